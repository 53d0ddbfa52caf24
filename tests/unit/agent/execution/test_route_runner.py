from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from actions.base import ActionError, ActionTooLate
from agent.coordination.lease import Attempt, Tenure
from agent.decision.command import DropRoutes, HookRole, ProbeRoutes, RaiseRoutes, RunHooks
from agent.decision.view import Candidacy, Durability, RouteState, ServiceState, Told
from agent.execution import route_runner
from agent.execution.executor import Executor, Finished
from agent.execution.hands import HookSpec
from agent.execution.lease_writer import hand_over
from agent.execution.routes import Routes
from tests.polling import eventually_async
from tests.unit.agent.execution.standing import StandInFollower
from tests.unit.agent.looped import looped
from tests.unit.agent.stage import SPEC, Stage, first_record

ALONE = replace(SPEC, members={"pg1": Candidacy()}, witnesses=(), durability=Durability.ASYNC)
"""A group of one: it forms itself and leads."""


@pytest.fixture
def vip(stage: Stage) -> StandInFollower:
    """The stage leads epoch 1 for two seconds more, and one address follows it."""
    now = stage.clock.now()
    stage.knowledge.tenure = Tenure(first_record(), 3, "s1", dated=now)
    stage.knowledge.fences = replace(stage.knowledge.fences, armed_epoch=1, armed_deadline=now.after(1.5))
    one = StandInFollower()

    def note(routes: tuple[object, ...]) -> None:
        stage.knowledge.routes = routes  # type: ignore[assignment]

    stage.hands.routes = Routes((one,), stage.clock, note)
    return one


async def test_it_is_raised_for_what_is_left_of_the_acknowledged_deadline(stage: Stage, vip: StandInFollower) -> None:
    assert await route_runner.raise_routes(stage.hands, RaiseRoutes(1)) == "everything points here"
    assert vip.lifetimes_s[0] is not None
    assert 0.5 < vip.lifetimes_s[0] <= 1.5
    assert [route.state for route in stage.knowledge.routes] == [RouteState.PRESENT]
    assert await route_runner.drop_routes(stage.hands, DropRoutes(1)) == "nothing points here"
    vip.other = "02:00:00:00:00:02"
    assert await route_runner.probe_routes(stage.hands, ProbeRoutes(1)) == "asked"
    said = await route_runner.raise_routes(stage.hands, RaiseRoutes(1))
    assert said == "not raised, because it answers elsewhere: vip 192.0.2.100"
    assert stage.hands.routes is not None
    await stage.hands.routes.close()


@pytest.mark.parametrize("what", ["no lease", "another epoch", "a newer epoch", "late"])
async def test_without_the_right_to_it_nothing_is_raised(stage: Stage, vip: StandInFollower, what: str) -> None:
    if what == "no lease":
        stage.knowledge.tenure = None
    elif what == "a newer epoch":
        stage.knowledge.high.rise(2, 0)
    elif what == "late":
        stage.clock.shift_s = 3.0
    with pytest.raises(ActionTooLate):
        await route_runner.raise_routes(stage.hands, RaiseRoutes(2 if what == "another epoch" else 1))
    assert not vip.here


async def test_the_executor_refuses_a_raise_of_an_older_epoch_and_never_a_drop(stage: Stage, vip: StandInFollower) -> None:
    vip.here = True
    stage.knowledge.high.rise(2, 0)
    ends: list[Finished] = []
    executor = Executor(stage.hands, stage.clock, ends.append)
    assert executor.start(RaiseRoutes(1))
    await eventually_async(lambda: ends)
    assert not ends[0].ok
    assert "epoch 2 has begun" in ends[0].sentence
    assert executor.start(DropRoutes(1))
    await eventually_async(lambda: len(ends) == 2)
    assert ends[1].ok
    assert not vip.here


# ------------------------------------------------------------------ at each moved deadline


async def test_a_moved_deadline_renews_what_stands(stage: Stage, vip: StandInFollower) -> None:
    await route_runner.raise_routes(stage.hands, RaiseRoutes(1))
    await hand_over(stage.hands)
    assert vip.calls[-1] == "renew"
    assert vip.lifetimes_s[-1] is not None
    assert 1.5 < vip.lifetimes_s[-1] <= 2.0


async def test_a_deadline_that_the_watchdog_refused_renews_nothing(stage: Stage, vip: StandInFollower) -> None:
    await route_runner.raise_routes(stage.hands, RaiseRoutes(1))
    stage.watchdog.error = "the deadline passed already"
    await hand_over(stage.hands)
    assert "renew" not in vip.calls


async def test_in_a_pause_it_stands_for_good(stage: Stage, vip: StandInFollower) -> None:
    assert not vip.here
    tenure = stage.knowledge.tenure
    assert tenure is not None
    paused = replace(tenure.record, paused=True)
    stage.knowledge.tenure = replace(tenure, record=paused)
    assert route_runner.lifetime_s(stage.hands) is not None  # the watchdog's clock still runs
    stage.knowledge.fences = replace(stage.knowledge.fences, suspended=True)
    assert route_runner.lifetime_s(stage.hands) is None
    running = Attempt(replace(paused, paused=False), stage.clock.now())
    stage.knowledge.tenure = replace(stage.knowledge.tenure, attempts=(running,))
    assert route_runner.lifetime_s(stage.hands) is not None


async def test_nobody_else_s_lease_gives_it_a_lifetime(stage: Stage, vip: StandInFollower) -> None:
    assert not vip.here
    stage.knowledge.high.rise(2, 0)
    with pytest.raises(ActionTooLate):
        route_runner.lifetime_s(stage.hands)


# ------------------------------------------------------------------ in a group's loop


async def test_elected_it_is_asked_about_then_raised_and_dropped_before_the_give_up() -> None:
    async with looped(ALONE) as one:
        follower = StandInFollower()
        one.stage.hands.routes = Routes((follower,), one.stage.clock, one.loop.routes_changed)
        await one.loop.start()
        await one.until("RaiseRoutes")
        assert follower.calls[:2] == ["ask", "raise"]
        assert follower.here
        await eventually_async(lambda: "renew" in follower.calls)
        beat = await eventually_async(one.heartbeat)
        assert beat is not None
        await eventually_async(lambda: [route.state for route in one.loop.fresh_view().routes] == [RouteState.PRESENT])
        follower.here = False  # a hand took it off: it is mended
        await eventually_async(lambda: follower.here)
        one.stage.service.seen = replace(one.stage.service.seen, state=ServiceState.DOWN)
        await one.loop.refresh_service()
        await one.until("DropRoutes")
        assert not follower.here


# ------------------------------------------------------------------ hooks


def saying(role: HookRole, where: Path, code: int = 0) -> HookSpec:
    script = (
        f"import os; open({str(where)!r}, 'a').write(os.environ['QUORATE_ROLE'] + os.environ['QUORATE_EPOCH']); print('ok'); exit({code})"
    )
    return HookSpec(role, (sys.executable, "-c", script), 10.0)


@pytest.mark.usefixtures("vip")
async def test_hooks_are_run_and_remembered(stage: Stage, tmp_path: Path) -> None:
    stage.hands.hooks = (
        saying(HookRole.ELECTED, tmp_path / "a"),
        saying(HookRole.DEFEATED, tmp_path / "b"),
        saying(HookRole.ELECTED, tmp_path / "c"),
    )
    assert await route_runner.run_hooks(stage.hands, RunHooks(1, HookRole.ELECTED)) == "hooks were told: elected; ok; ok"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "elected1", "c": "elected1"}
    assert stage.knowledge.told == stage.hands.remembered.state.told == Told(1, HookRole.ELECTED)
    assert stage.folder.load("pg-main").told == Told(1, HookRole.ELECTED)
    stage.knowledge.tenure = None
    assert await route_runner.run_hooks(stage.hands, RunHooks(1, HookRole.DEFEATED)) == "hooks were told: defeated; ok"


@pytest.mark.usefixtures("vip")
async def test_a_hook_that_fails_is_not_remembered(stage: Stage, tmp_path: Path) -> None:
    stage.hands.hooks = (saying(HookRole.ELECTED, tmp_path / "a", 1), saying(HookRole.ELECTED, tmp_path / "b"))
    with pytest.raises(ActionError, match="ended with 1: ok"):
        await route_runner.run_hooks(stage.hands, RunHooks(1, HookRole.ELECTED))
    assert not (tmp_path / "b").exists()
    assert stage.knowledge.told is None
    stage.knowledge.tenure = None
    with pytest.raises(ActionTooLate):
        await route_runner.run_hooks(stage.hands, RunHooks(1, HookRole.ELECTED))
