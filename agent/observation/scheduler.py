"""Runs the check catalogue: each check on its own schedule, with a deadline that holds whatever the check does.

Promises: no check runs twice at the same time; a probe that ignores its deadline and its cancellation is left alone and counted, and
holds up nobody else; at most `parallel` probes run at once; nothing here raises for what a check or a listener does. What the checks
found stays in memory only; whoever wants to know is told of each change and of each run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import structlog

from agent.clock import Clock
from agent.instant import Instant
from agent.observation.rise_fall import RiseFall
from agent.observation.timetable import Timetable
from checks.base import AnyCheck, Result, RunLog, Status

PARALLEL = 32
DEADLINE_GRACE_S = 0.25
"""After its deadline a probe may still say in its own words what happened."""
CANCEL_GRACE_S = 0.5
CLOSE_TIMEOUT_S = 2.0

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ScheduledCheck:
    """One check of the catalogue with its schedule. The scheduler owns `check` from the moment it is handed over, and closes it."""

    name: str
    check: AnyCheck
    every_s: float
    timeout_s: float
    rise: int
    fall: int
    requires: tuple[str, ...] = ()

    def is_same(self, other: ScheduledCheck) -> bool:
        """Whether the other asks the same of the same target on the same schedule."""
        same_question = type(self.check) is type(other.check) and self.check.level is other.check.level
        return same_question and self.check.options == other.check.options and replace(self, check=other.check) == other


@dataclass(frozen=True, slots=True)
class CheckState:
    """What is known of one check. `status` (the verdict) is what counts; `last` is what the last run said, with its log."""

    scheduled: ScheduledCheck
    verdict: RiseFall
    last: Result | None = None
    since: Instant | None = None
    """When `status` became what it is."""
    ran: Instant | None = None
    ran_wall_s: float | None = None
    last_success_wall_s: float | None = None
    runs: int = 0
    failures: int = 0
    """Runs that said unhealthy or unknown."""
    skipped: int = 0
    """Ticks at which the run before was not over."""
    abandoned: int = 0
    """Runs that ignored their end."""

    @property
    def name(self) -> str:
        return self.scheduled.name

    @property
    def status(self) -> Status:
        return self.verdict.status


Listener = Callable[[CheckState], None]


@dataclass(slots=True)
class _Entry:
    state: CheckState
    run: asyncio.Task[Result] | None = None
    stuck: asyncio.Task[Result] | None = None
    """A probe that ignores its end; until it ends, the check is not run again."""


class Scheduler:
    """The catalogue in motion."""

    def __init__(self, clock: Clock, *, parallel: int = PARALLEL, on_run: Listener | None = None) -> None:
        self._clock = clock
        self._slots = asyncio.Semaphore(parallel)
        self._on_run = on_run
        self._listeners: list[Listener] = []
        self._entries: dict[str, _Entry] = {}
        self._timetable = Timetable()
        self._changed = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ for the others

    def states(self) -> Mapping[str, CheckState]:
        """All checks as they stand, by name."""
        return {name: entry.state for name, entry in self._entries.items()}

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` of every check whose status changed, with its new state. Returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def start(self) -> None:
        """Begin to run what `reload` handed over."""
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._loop(), name="check scheduler")

    async def reload(self, catalogue: Iterable[ScheduledCheck]) -> None:
        """Take another catalogue. What stays the same keeps its state, its schedule and its open connections."""
        wanted = {scheduled.name: scheduled for scheduled in catalogue}
        superfluous: list[AnyCheck] = []
        for name in tuple(self._entries):
            if name in wanted and self._entries[name].state.scheduled.is_same(wanted[name]):
                superfluous.append(wanted.pop(name).check)
            else:
                superfluous.append(self._remove(name))
        now = self._clock.now()
        for name, scheduled in wanted.items():
            self._entries[name] = _Entry(CheckState(scheduled, RiseFall(scheduled.rise, scheduled.fall)))
            self._timetable.enter(name, scheduled.every_s, now, self._clock.fraction())
        self._changed.set()
        await _close_all(superfluous)

    async def run_now(self, name: str) -> Result:
        """Run one check out of turn, or join the run that is under way. Raises LookupError for an unknown name."""
        if name not in self._entries:
            raise LookupError(f"there is no check named {name}")
        run = self._begin(self._entries[name])
        await asyncio.wait({run})
        return Result(Status.UNKNOWN, "not asked: the check was removed") if run.cancelled() else run.result()

    async def close(self) -> None:
        """End all runs and close all checks, within a few seconds whatever they do."""
        if self._loop_task is not None:
            self._loop_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop_task
            self._loop_task = None
        await _close_all([self._remove(name) for name in tuple(self._entries)])

    # ------------------------------------------------------------ the loop

    async def _loop(self) -> None:
        while True:
            now = self._clock.now()
            for name in self._timetable.take_due(now, self._clock.fraction()):
                self._tick(self._entries[name])
            self._changed.clear()
            wait_s = self._timetable.wait_s(now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    def _tick(self, entry: _Entry) -> None:
        if entry.run is not None:
            entry.state = replace(entry.state, skipped=entry.state.skipped + 1)
        else:
            self._begin(entry)

    def _begin(self, entry: _Entry) -> asyncio.Task[Result]:
        """The run under way, or a new one."""
        if entry.run is None:
            entry.run = asyncio.create_task(self._run(entry), name=f"check {entry.state.name}")
        return entry.run

    def _remove(self, name: str) -> AnyCheck:
        entry = self._entries.pop(name)
        self._timetable.remove(name)
        for task in (entry.run, entry.stuck):
            if task is not None:
                task.cancel()
        return entry.state.scheduled.check

    # ------------------------------------------------------------ one run

    async def _run(self, entry: _Entry) -> Result:
        try:
            result = self._not_asked(entry)
            if result is None:
                async with self._slots:
                    result = await self._probe(entry)
            self._take(entry, result)
            return result
        finally:
            entry.run = None

    def _not_asked(self, entry: _Entry) -> Result | None:
        """Why this run cannot ask, if it cannot. A requirement that has no verdict yet holds nobody back."""
        if entry.stuck is not None:
            return Result(Status.UNKNOWN, "not asked: an earlier run ignores its end")
        for name in entry.state.scheduled.requires:
            required = self._entries.get(name)
            if required is not None and required.state.status is Status.UNHEALTHY:
                said = required.state.last.sentence if required.state.last is not None else ""
                return Result(Status.UNKNOWN, f"not asked: it requires {name}, which is unhealthy: {said}")
        return None

    async def _probe(self, entry: _Entry) -> Result:
        """One probe, held to its deadline from outside as well."""
        scheduled = entry.state.scheduled
        run_log = RunLog()
        probe = asyncio.create_task(scheduled.check.probe(scheduled.timeout_s, run_log), name=f"probe {scheduled.name}")
        try:
            await asyncio.wait({probe}, timeout=scheduled.timeout_s + DEADLINE_GRACE_S)
            if not probe.done():
                probe.cancel()
                await asyncio.wait({probe}, timeout=CANCEL_GRACE_S)
        finally:
            if not probe.done():
                probe.cancel()
                self._abandon(entry, probe)
        result = _outcome(probe, scheduled.timeout_s)
        return replace(result, log=result.log or tuple(run_log.lines))

    def _abandon(self, entry: _Entry, probe: asyncio.Task[Result]) -> None:
        entry.stuck = probe
        entry.state = replace(entry.state, abandoned=entry.state.abandoned + 1)
        probe.add_done_callback(lambda ended: _forget(entry, ended))

    def _take(self, entry: _Entry, result: Result) -> None:
        """Note one run's result and tell whoever wants to know."""
        before, now, wall_s = entry.state, self._clock.now(), self._clock.wall_s()
        verdict = before.verdict.step(result)
        is_failure = result.status in {Status.UNHEALTHY, Status.UNKNOWN}
        entry.state = replace(
            before,
            verdict=verdict,
            last=result,
            since=now if before.since is None or verdict.status is not before.status else before.since,
            ran=now,
            ran_wall_s=wall_s,
            last_success_wall_s=before.last_success_wall_s if is_failure else wall_s,
            runs=before.runs + 1,
            failures=before.failures + is_failure,
        )
        if self._on_run is not None:
            _tell(self._on_run, entry.state)
        if verdict.status is not before.status:
            for listener in tuple(self._listeners):
                _tell(listener, entry.state)


def _tell(listener: Listener, state: CheckState) -> None:
    try:
        listener(state)
    except Exception:
        logger.exception("check.listener_failed", check=state.name)


def _outcome(probe: asyncio.Task[Result], timeout_s: float) -> Result:
    if not probe.done() or probe.cancelled():
        return Result(Status.UNHEALTHY, f"no answer within {timeout_s:g} s", latency_s=timeout_s)
    error = probe.exception()
    if error is not None:
        return Result(Status.UNKNOWN, f"the check itself failed: {type(error).__name__}")
    return probe.result()


def _forget(entry: _Entry, probe: asyncio.Task[Result]) -> None:
    """A stuck probe has ended after all; its answer is too late to be told."""
    entry.stuck = None
    if not probe.cancelled():
        probe.exception()


async def _close_all(checks: Iterable[AnyCheck]) -> None:
    """Close checks side by side; one that hangs or fails is left behind."""
    tasks = [asyncio.create_task(check.close(), name=f"close check {check.kind}") for check in checks]
    if not tasks:
        return
    done, hung = await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
    for task in hung:
        task.cancel()
    for task in done:
        if not task.cancelled() and task.exception() is not None:
            logger.warning("check.close_failed", error=type(task.exception()).__name__)
