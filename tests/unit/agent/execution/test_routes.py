from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import util
from pathlib import Path

import pytest

from actions.base import ActionError, ActionTooLate, Guard
from agent.decision.routes import PROBE_FRESH_S
from agent.decision.view import RouteState, RouteView
from agent.execution import routes as module
from agent.execution.routes import RIVAL_KEPT_S, Routes
from tests.guards import GUARD, no_step
from tests.polling import eventually_async
from tests.unit.agent.execution.standing import StandInFollower
from tests.unit.agent.stage import ShiftedClock


class Kept:
    """Routes over two stand-ins, and all that they ever said."""

    def __init__(self) -> None:
        self.clock = ShiftedClock()
        self.one = StandInFollower()
        self.two = StandInFollower("vip 2001:db8::64", "2001:db8::64/64")
        self.said: list[tuple[RouteView, ...]] = []
        self.routes = Routes((self.one, self.two), self.clock, self.said.append)

    def states(self) -> list[RouteState]:
        return [route.state for route in self.said[-1]]

    async def raise_all(self) -> tuple[str, ...]:
        return await self.routes.raise_all(GUARD, lambda: 1.5)


@pytest.fixture
async def kept() -> AsyncIterator[Kept]:
    one = Kept()
    yield one
    await one.routes.close()


async def test_it_looks_and_says_what_changed(kept: Kept) -> None:
    assert kept.routes.addresses == ("192.0.2.100/24", "2001:db8::64/64")
    kept.one.here = True
    kept.two.errors["look"] = ActionError("the kernel refused")
    await kept.routes.look()
    assert kept.states() == [RouteState.PRESENT, RouteState.UNKNOWN]
    assert kept.said[-1][1].sentence == "the kernel refused"
    before = len(kept.said)
    await kept.routes.look()
    assert len(kept.said) == before


async def test_it_asks_before_it_raises_unless_that_was_just_done(kept: Kept) -> None:
    assert await kept.raise_all() == ()
    assert kept.one.calls[:2] == ["ask", "raise"]
    assert kept.one.lifetimes_s == [1.5]
    await kept.routes.drop_all()
    await kept.raise_all()
    assert kept.one.calls == ["ask", "raise", "drop", "raise"]
    await kept.routes.drop_all()
    kept.clock.shift_s += PROBE_FRESH_S
    await kept.raise_all()
    assert kept.one.calls[-2:] == ["ask", "raise"]
    before = list(kept.one.calls)
    await kept.raise_all()
    assert kept.one.calls == before


async def test_what_answers_elsewhere_is_not_raised_and_asked_again(kept: Kept) -> None:
    kept.one.other = "02:00:00:00:00:02"
    assert await kept.raise_all() == ("vip 192.0.2.100",)
    assert kept.states() == [RouteState.CONFLICT, RouteState.PRESENT]
    assert kept.said[-1][0].sentence == "vip 192.0.2.100 answers elsewhere, from 02:00:00:00:00:02"
    kept.one.other = None
    assert await kept.raise_all() == ()
    assert kept.states() == [RouteState.PRESENT] * 2
    assert "raise" not in kept.one.calls[:1]


async def test_what_was_learnt_of_a_rival_is_forgotten_in_time(kept: Kept) -> None:
    kept.one.other = "02:00:00:00:00:02"
    await kept.routes.ask()
    await kept.routes.look()
    assert kept.states()[0] is RouteState.CONFLICT
    kept.clock.shift_s += RIVAL_KEPT_S + 1
    await kept.routes.look()
    assert kept.said[-1][0] == RouteView(kept.one.name, present=False, asked=kept.said[-1][0].asked)


async def test_one_that_fails_does_not_keep_the_others_down(kept: Kept) -> None:
    kept.one.errors["raise"] = ActionError("no such interface")
    with pytest.raises(ActionError, match="no such interface"):
        await kept.raise_all()
    assert kept.two.here
    kept.one.errors = {"drop": ActionError("EPERM")}
    with pytest.raises(ActionError, match="EPERM"):
        await kept.routes.drop_all()
    assert not kept.two.here


async def test_a_permission_that_ended_ends_the_raise(kept: Kept) -> None:
    def refuse() -> None:
        raise ActionTooLate("over")

    with pytest.raises(ActionTooLate):
        await kept.routes.raise_all(Guard(refuse, no_step), lambda: 1.0)
    assert not kept.one.calls
    assert not kept.two.calls


async def test_a_renewal_renews_what_stands_and_never_raises(kept: Kept) -> None:
    await kept.routes.renew(lambda: 2.0)
    assert not kept.one.calls
    await kept.raise_all()
    kept.two.here = False
    await kept.routes.renew(lambda: 2.0)
    assert kept.one.lifetimes_s == [1.5, 2.0]
    assert kept.states() == [RouteState.PRESENT, RouteState.ABSENT]
    kept.one.errors["renew"] = ActionTooLate("late: it was taken off")
    await kept.routes.renew(lambda: 2.0)
    assert kept.states()[0] is RouteState.ABSENT


async def test_a_renewal_that_the_kernel_refuses_is_told_and_harmless(kept: Kept) -> None:
    await kept.raise_all()
    kept.one.errors["renew"] = ActionError("the kernel refused")
    await kept.routes.renew(lambda: 2.0)
    assert kept.said[-1][0].sentence == "the kernel refused"
    assert kept.two.calls[-1] == "renew"


async def test_a_renewal_never_brings_back_what_a_drop_takes_off(kept: Kept) -> None:
    await kept.raise_all()
    kept.one.wait["drop"] = asyncio.Event()
    dropping = asyncio.create_task(kept.routes.drop_all())
    await eventually_async(lambda: "drop" in kept.one.calls)
    renewing = asyncio.create_task(kept.routes.renew(lambda: 2.0))
    await asyncio.sleep(0)
    kept.one.wait["drop"].set()
    await asyncio.gather(dropping, renewing)
    assert "renew" not in kept.one.calls
    assert not kept.one.here


async def test_a_question_to_the_link_does_not_hold_up_a_renewal(kept: Kept) -> None:
    await kept.raise_all()
    kept.one.wait["ask"] = asyncio.Event()
    asking = asyncio.create_task(kept.routes.ask())
    await eventually_async(lambda: kept.one.calls.count("ask") == 2)
    async with asyncio.timeout(5):
        await kept.routes.renew(lambda: 2.0)
    kept.one.wait["ask"].set()
    await asking


async def test_what_stands_is_announced_again_and_what_falls_is_not(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BURST_S", (0.0, 0.0))
    monkeypatch.setattr(module, "ANNOUNCE_EVERY_S", 0.0)
    kept.one.here = True  # an earlier life put it there
    await kept.routes.look()
    await eventually_async(lambda: kept.one.calls.count("announce") > 3)
    kept.one.errors["announce"] = ActionError("the link is down")
    await eventually_async(lambda: kept.one.calls.count("announce") > 6)
    await kept.routes.drop_all()
    announced = kept.one.calls.count("announce")
    await kept.routes.look()
    assert kept.one.calls.count("announce") == announced
    assert "announce" not in kept.two.calls


def test_pyroute2_comes_only_with_a_vip() -> None:
    """The agent stays small without one: nothing that is imported for every group imports it."""
    assert util.find_spec("pyroute2") is not None
    for path in ("agent/app.py", "agent/execution/routes.py", "agent/execution/route_runner.py", "agent/execution/hands.py"):
        text = (Path(__file__).parents[4] / path).read_text(encoding="utf-8")
        imported = [line for line in text.splitlines() if line.startswith(("from ", "import "))]
        assert not [line for line in imported if "route_vip" in line or "actions.vip" in line]
