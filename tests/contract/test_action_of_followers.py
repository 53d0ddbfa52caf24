"""What every action on what follows the leader keeps: done twice it is harmless, undone it is safe, cancelled it is mended by the next.

The sibling of test_action.py, for actions that need no Postgres: a VIP in a network of the test's own, and hooks.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface

import pytest

from actions import hook, vip
from actions.base import Action, ActionError, ActionTooLate, Guard
from actions.hook import Occasion, Role, RunHook
from actions.vip import DropVip, RaiseVip, Vip
from tests.guards import GUARD, no_step
from tests.unit.actions.netns import ip, wired

OCCASION = Occasion("pg-main", 7, Role.ELECTED, "pg1")
VIPS = (Vip(ip_interface("192.0.2.100/24")), Vip(ip_interface("2001:db8::64/64"), "near"))


@dataclass(frozen=True)
class Situation:
    """`make`: the action, made anew each time. `before`: what has to be so first. `level`: whether the state can be seen by anybody."""

    make: Callable[[], Action[object]]
    before: Callable[[], None] = lambda: None
    level: bool = True


def by_hand(one: Vip) -> Callable[[], None]:
    return lambda: (ip("addr", "add", str(one.address), "dev", "far", *(["nodad"] if ":" in one.text else [])), None)[1]


SITUATIONS: Mapping[str, Situation] = {
    **{f"RaiseVip {one.text}": Situation(lambda one=one: RaiseVip(one, lambda: 5.0)) for one in VIPS},  # type: ignore[misc]
    **{f"DropVip {one.text}": Situation(lambda one=one: DropVip(one), by_hand(one)) for one in VIPS},  # type: ignore[misc]
    "RunHook": Situation(lambda: RunHook((sys.executable, "-c", "print(1)"), 20.0, OCCASION), level=False),  # type: ignore[arg-type,return-value]
}
ALL = pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS)


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with wired():
        yield


def test_every_action_is_in_this_suite() -> None:
    kinds = {
        kind.__name__
        for module in (vip, hook)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Action) and not inspect.isabstract(kind)
    }
    assert kinds == {name.split()[0] for name in SITUATIONS}


@ALL
async def test_applied_it_is_done_and_twice_is_harmless(situation: Situation) -> None:
    situation.before()
    one = situation.make()
    assert not await one.is_done()
    with pytest.raises(ActionError):
        await one.verify()
    await one.apply(GUARD)
    await one.verify()
    assert await one.is_done()
    if situation.level:
        assert await situation.make().is_done()
    again = situation.make()
    await again.apply(GUARD)
    await again.verify()


@ALL
async def test_one_that_is_cancelled_is_mended_by_the_next(situation: Situation) -> None:
    situation.before()
    running = asyncio.ensure_future(situation.make().apply(GUARD))
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=5)
    assert done
    one = situation.make()
    await one.apply(GUARD)
    await one.verify()


@ALL
async def test_an_agent_that_dies_after_noting_a_step_is_mended_by_the_next(situation: Situation) -> None:
    class Died(BaseException):
        pass

    async def die(_: str) -> None:
        raise Died

    situation.before()
    with pytest.raises(Died):
        await situation.make().apply(Guard(lambda: None, die))
    one = situation.make()
    await one.apply(GUARD)
    await one.verify()


@ALL
async def test_undone_nothing_points_here(situation: Situation) -> None:
    situation.before()
    one = situation.make()
    await one.apply(GUARD)
    await one.undo()
    shown = ip("-o", "addr", "show")
    assert not [each for each in VIPS if f"{each.text}/" in shown]


@pytest.mark.parametrize("one", VIPS, ids=lambda one: one.text)
async def test_nothing_is_raised_without_permission(one: Vip) -> None:
    def refuse() -> None:
        raise ActionTooLate("over")

    with pytest.raises(ActionTooLate):
        await RaiseVip(one, lambda: 5.0).apply(Guard(refuse, no_step))
    assert not await vip.stands(one)
