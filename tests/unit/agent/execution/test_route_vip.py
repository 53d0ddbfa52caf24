from __future__ import annotations

from collections.abc import Iterator

import pytest

from actions.base import Guard
from agent.execution.route_vip import VipRoute
from tests.guards import no_step
from tests.unit.actions.netns import wired


@pytest.fixture
def network() -> Iterator[None]:
    with wired():
        yield


def test_its_names() -> None:
    route = VipRoute("192.0.2.100/24", None)
    assert (route.name, route.address) == ("vip 192.0.2.100", "192.0.2.100/24")


@pytest.mark.usefixtures("network")
async def test_it_does_what_a_follower_does() -> None:
    route = VipRoute("192.0.2.100/24", "near")
    assert not await route.points_here()
    assert await route.rival() is None
    await route.raise_here(Guard(lambda: None, no_step), lambda: 5.0)
    assert await route.points_here()
    assert await route.renew(lambda: 5.0)
    await route.announce()
    await route.drop()
    assert not await route.points_here()
    assert not await route.renew(lambda: 5.0)
