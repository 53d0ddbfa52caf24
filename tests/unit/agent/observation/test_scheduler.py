from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from agent.clock import SystemClock
from agent.observation.scheduler import CheckState, ScheduledCheck, Scheduler
from checks.base import Check, CheckOptions, Level, Result, RunLog, Status
from tests.polling import eventually_async

WELL = Result(Status.HEALTHY, "well")
BAD = Result(Status.UNHEALTHY, "bad")


class Options(CheckOptions):
    target: str = "a"


class ScriptedCheck(Check[Options]):
    """Does what the test says."""

    kind: ClassVar[str] = "scripted"
    options_model: ClassVar[type[CheckOptions]] = Options
    levels: ClassVar[frozenset[Level]] = frozenset(Level)

    def __init__(self, answer: Callable[[], Awaitable[Result]] | None = None, target: str = "a") -> None:
        super().__init__(Level.LIVENESS, Options(target=target))
        self.answer = answer
        self.result = WELL
        self.running = self.most_running = self.runs = self.closed = 0

    async def probe(self, timeout_s: float, log: RunLog) -> Result:
        self.runs += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        log.add(f"run {self.runs} within {timeout_s} s")
        try:
            return self.result if self.answer is None else await self.answer()
        finally:
            self.running -= 1

    async def close(self) -> None:
        self.closed += 1


async def hang() -> Result:
    await asyncio.Event().wait()
    raise AssertionError


def scheduled(
    name: str, check: Check[Options], *, every_s: float = 0.02, timeout_s: float = 1.0, fall: int = 1, requires: tuple[str, ...] = ()
) -> ScheduledCheck:
    return ScheduledCheck(name, check, every_s, timeout_s, 1, fall, requires)


@asynccontextmanager
async def running(*catalogue: ScheduledCheck, parallel: int = 32) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(SystemClock(), parallel=parallel)
    await scheduler.reload(catalogue)
    scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.close()


async def test_each_check_runs_again_and_again_and_its_last_run_is_kept() -> None:
    check = ScriptedCheck()
    async with running(scheduled("a", check)) as scheduler:
        await eventually_async(lambda: check.runs >= 5)
        state = scheduler.states()["a"]
    assert state.status is Status.HEALTHY
    assert state.last is not None
    assert state.last.log == (f"run {state.runs} within 1.0 s",)
    assert state.failures == state.abandoned == 0
    assert state.since is not None
    assert state.ran is not None
    assert state.since.boot_ns <= state.ran.boot_ns
    assert check.closed == 1


async def test_a_hung_check_holds_up_nobody_and_is_never_run_twice_at_once() -> None:
    hung, well = ScriptedCheck(hang), ScriptedCheck()
    async with running(scheduled("hung", hung, timeout_s=0.01), scheduled("well", well)) as scheduler:
        await eventually_async(lambda: scheduler.states()["hung"].runs >= 2)
        state = scheduler.states()["hung"]
        assert scheduler.states()["well"].runs > state.runs
    assert state.status is Status.UNHEALTHY
    assert state.last is not None
    assert state.last.sentence == "no answer within 0.01 s"
    assert state.skipped > 0
    assert hung.most_running == 1


async def test_a_check_that_ignores_its_cancellation_is_left_alone_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.observation.scheduler.CANCEL_GRACE_S", 0.01)
    released = asyncio.Event()

    async def ignore() -> Result:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        return WELL

    stuck, well = ScriptedCheck(ignore), ScriptedCheck()
    try:
        async with running(scheduled("stuck", stuck, timeout_s=0.01), scheduled("well", well), parallel=1) as scheduler:
            await eventually_async(lambda: scheduler.states()["stuck"].runs >= 3)
            state = scheduler.states()["stuck"]
            assert (state.abandoned, stuck.runs) == (1, 1)
            assert state.last is not None
            assert (state.last.status, state.last.sentence) == (Status.UNKNOWN, "not asked: an earlier run ignores its end")
            await eventually_async(lambda: scheduler.states()["well"].runs >= 3)
            released.set()
            await eventually_async(lambda: scheduler.states()["stuck"].status is Status.HEALTHY)
    finally:
        released.set()  # else it would outlive the test


async def test_only_so_many_run_at_once() -> None:
    now = most = 0
    gate = asyncio.Event()

    async def count() -> Result:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await gate.wait()
        now -= 1
        return WELL

    names = [f"c{number}" for number in range(9)]
    async with running(*(scheduled(name, ScriptedCheck(count)) for name in names), parallel=3) as scheduler:
        await eventually_async(lambda: now == 3)
        await eventually_async(lambda: all(entry.run is not None for entry in scheduler._entries.values()), what="all want to run")
        assert now == 3
        gate.set()
        await eventually_async(lambda: all(state.runs >= 3 for state in scheduler.states().values()))
    assert most == 3


async def test_a_check_that_raises_is_unknown_and_goes_on() -> None:
    async def stumble() -> Result:
        raise KeyError("secret")

    async with running(scheduled("a", ScriptedCheck(stumble))) as scheduler:
        await eventually_async(lambda: scheduler.states()["a"].runs >= 2)
        state = scheduler.states()["a"]
    assert state.last == Result(Status.UNKNOWN, "the check itself failed: KeyError", log=state.last.log if state.last else ())
    assert state.status is Status.UNKNOWN
    assert state.failures == state.runs


async def test_it_takes_fall_answers_to_be_called_down_and_each_change_is_told_once() -> None:
    check, told = ScriptedCheck(), []
    scheduler = Scheduler(SystemClock(), on_run=lambda state: told.append(("run", state.status)))
    end = scheduler.subscribe(lambda state: told.append(("change", state.status)))
    await scheduler.reload([scheduled("a", check, every_s=60, fall=2)])
    await scheduler.run_now("a")
    check.result = BAD
    await scheduler.run_now("a")
    await scheduler.run_now("a")
    end()
    end()
    check.result = WELL
    await scheduler.run_now("a")
    await scheduler.close()
    assert [status for what, status in told if what == "change"] == [Status.HEALTHY, Status.UNHEALTHY]
    assert [status for what, status in told if what == "run"] == [Status.HEALTHY, Status.HEALTHY, Status.UNHEALTHY, Status.HEALTHY]


async def test_a_listener_that_fails_harms_nobody() -> None:
    def fail(_: CheckState) -> None:
        raise RuntimeError

    told: list[str] = []
    scheduler = Scheduler(SystemClock(), on_run=fail)
    scheduler.subscribe(fail)
    scheduler.subscribe(lambda state: told.append(state.name))
    await scheduler.reload([scheduled("a", ScriptedCheck(), every_s=60)])
    assert (await scheduler.run_now("a")).status is Status.HEALTHY
    await scheduler.close()
    assert told == ["a"]


async def test_a_check_that_requires_an_unhealthy_one_is_unknown_and_never_down() -> None:
    gateway, target = ScriptedCheck(), ScriptedCheck()
    gateway.result = target.result = BAD
    scheduler = Scheduler(SystemClock())
    await scheduler.reload(
        [scheduled("gateway", gateway, every_s=60), scheduled("target", target, every_s=60, requires=("gateway", "gone"))]
    )
    assert (await scheduler.run_now("target")).status is Status.UNHEALTHY  # the gateway has no verdict yet
    await scheduler.run_now("gateway")
    result = await scheduler.run_now("target")
    assert (result.status, result.sentence) == (Status.UNKNOWN, "not asked: it requires gateway, which is unhealthy: bad")
    assert target.runs == 1
    await scheduler.close()


async def test_run_now_joins_the_run_that_is_under_way() -> None:
    gate = asyncio.Event()

    async def wait() -> Result:
        await gate.wait()
        return WELL

    check = ScriptedCheck(wait)
    scheduler = Scheduler(SystemClock())
    await scheduler.reload([scheduled("a", check, every_s=60, timeout_s=30)])
    both = asyncio.gather(scheduler.run_now("a"), scheduler.run_now("a"))
    await eventually_async(lambda: check.runs)
    gate.set()
    assert [result.status for result in await both] == [Status.HEALTHY, Status.HEALTHY]
    assert check.runs == 1
    await scheduler.close()


async def test_whoever_asks_for_a_run_may_be_cancelled_and_the_run_goes_on() -> None:
    gate = asyncio.Event()

    async def wait() -> Result:
        await gate.wait()
        return WELL

    scheduler = Scheduler(SystemClock())
    check = ScriptedCheck(wait)
    await scheduler.reload([scheduled("a", check, every_s=60)])
    asking = asyncio.create_task(scheduler.run_now("a"))
    await eventually_async(lambda: check.runs)
    asking.cancel()
    gate.set()
    await eventually_async(lambda: scheduler.states()["a"].runs == 1)
    await scheduler.close()


async def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(LookupError, match="no check named nobody"):
        await Scheduler(SystemClock()).run_now("nobody")


async def test_a_reload_keeps_what_stays_the_same_and_closes_the_rest() -> None:
    same, changed, removed = ScriptedCheck(), ScriptedCheck(), ScriptedCheck()
    same_again, changed_now, added = ScriptedCheck(), ScriptedCheck(target="b"), ScriptedCheck()
    scheduler = Scheduler(SystemClock())
    await scheduler.reload(
        [scheduled(name, check, every_s=60) for name, check in (("same", same), ("changed", changed), ("removed", removed))]
    )
    for name in ("same", "changed", "removed"):
        await scheduler.run_now(name)
    await scheduler.reload(
        [scheduled(name, check, every_s=60) for name, check in (("same", same_again), ("changed", changed_now), ("added", added))]
    )
    states = scheduler.states()
    assert {name: state.runs for name, state in states.items()} == {"same": 1, "changed": 0, "added": 0}
    assert [check.closed for check in (same, changed, removed, same_again, changed_now, added)] == [0, 1, 1, 1, 0, 0]
    await scheduler.run_now("same")
    assert (same.runs, same_again.runs) == (2, 0)
    await scheduler.close()


async def test_a_run_whose_check_is_removed_ends_and_whoever_asked_is_told() -> None:
    check = ScriptedCheck(hang)
    scheduler = Scheduler(SystemClock())
    await scheduler.reload([scheduled("a", check, every_s=60)])
    asking = asyncio.create_task(scheduler.run_now("a"))
    await eventually_async(lambda: check.running)
    await scheduler.reload([])
    assert (await asking).sentence == "not asked: the check was removed"
    await eventually_async(lambda: not check.running)
    await scheduler.close()


async def test_a_check_that_cannot_be_closed_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.observation.scheduler.CLOSE_TIMEOUT_S", 0.01)

    class Unwilling(ScriptedCheck):
        async def close(self) -> None:
            await asyncio.Event().wait()

    class Broken(ScriptedCheck):
        async def close(self) -> None:
            raise RuntimeError

    async with running(scheduled("a", Unwilling()), scheduled("b", Broken())):
        pass


async def test_closing_ends_hanging_runs_and_may_be_repeated() -> None:
    check = ScriptedCheck(hang)
    async with running(scheduled("a", check, timeout_s=60)) as scheduler:
        await eventually_async(lambda: check.running)
    await scheduler.close()
    await eventually_async(lambda: not check.running)
    assert not scheduler.states()
