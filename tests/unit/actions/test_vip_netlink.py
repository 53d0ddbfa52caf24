from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface

import pytest

from actions.base import ActionError
from actions.vip_netlink import Standing, conversation
from tests.unit.actions.netns import ip, wired

OWN4, OWN6 = ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")
VIP6 = ip_interface("2001:db8::64/64")


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with wired():
        yield


async def test_links_and_addresses_are_read() -> None:
    async with conversation() as kernel:
        links = {link.name: link for link in await kernel.links()}
        standings = await kernel.standings()
    assert links.keys() == {"lo", "near", "far"}
    assert links["lo"].mac is None
    assert {links["near"].mac, links["far"].mac} == set(links["near"].own_macs)
    near = links["near"].index
    assert {Standing(near, OWN4, None), Standing(near, OWN6, None)} <= set(standings)


async def test_a_lifetime_is_counted_down_and_what_is_gone_may_be_removed_again() -> None:
    async with conversation() as kernel:
        near = next(link.index for link in await kernel.links() if link.name == "near")
        await kernel.put(near, VIP6, 7, covered=True)
        standing = next(s for s in await kernel.standings() if s.interface == VIP6)
        assert standing.valid_s in {6, 7}
        await kernel.remove(standing)
        await kernel.remove(standing)
        assert VIP6 not in [s.interface for s in await kernel.standings()]


async def test_the_route_that_the_host_has_is_not_given_a_lifetime() -> None:
    async with conversation() as kernel:
        near = next(link.index for link in await kernel.links() if link.name == "near")
        await kernel.put(near, VIP6, 7, covered=True)
        assert "expires" not in ip("-6", "route")
        await kernel.put(near, ip_interface("2001:db8:1::64/64"), 7, covered=False)
    assert "2001:db8:1::/64" in ip("-6", "route")


async def test_what_the_kernel_refuses_is_one_sentence() -> None:
    with pytest.raises(ActionError, match=r"^the kernel refused: No such device$"):
        async with conversation() as kernel:
            await kernel.put(99, VIP6, 7, covered=True)
