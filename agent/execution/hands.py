"""What executors work with: handed to each of them, so that none builds or finds anything itself."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from actions.base import ActionTooLate, Guard
from agent.clock import Clock
from agent.coordination.coordinator import Coordinator
from agent.coordination.failsafe_rules import Answer, Question, is_in_force, speaks_of
from agent.decision.command import Command, HookRole
from agent.decision.view import FenceLayer
from agent.errors import CoordinationRefused, WatchdogError
from agent.execution.crash_points import CrashPoint
from agent.execution.journal import Journal
from agent.execution.kernel_lease import KernelLease
from agent.execution.remembered import Remembered
from agent.execution.routes import Routes
from agent.execution.service import Service
from agent.execution.watchdog_client import WatchdogClient
from agent.instant import Instant, has_passed
from agent.knowledge import Knowledge


async def _not_wired() -> None:
    """Nobody asked for fresh facts yet."""


async def _no_step(_: str) -> None:
    """Nobody notes it."""


@dataclass(frozen=True, slots=True)
class HookSpec:
    """A fixed command of the operator's, and when it is run."""

    role: HookRole
    command: tuple[str, ...]
    timeout_s: float


class PeerLine(Protocol):
    """A way to the other agents."""

    async def ask_promise(self, node: str, question: Question, timeout_s: float) -> Answer:
        """The node's own answer to this very question. Raises `PeerError` when there is none that can be trusted."""
        ...


@dataclass(slots=True)
class Hands:
    """The tools of one group's executors. `service` is None on a witness. `refresh` reads the service's facts anew."""

    clock: Clock
    coordinator: Coordinator
    knowledge: Knowledge
    remembered: Remembered
    journal: Journal
    service: Service | None
    watchdog: WatchdogClient | None
    crash_point: CrashPoint
    kernel: KernelLease | None = None
    """The lease of the service's port in the packet filter; None: the layer is not there."""
    kernel_absence: str = ""
    """Why it is not there, although nobody forbade it."""
    routes: Routes | None = None
    """What follows the leader; None: nothing, or not on this node."""
    hooks: tuple[HookSpec, ...] = ()
    """The operator's commands, in their order."""
    peers: PeerLine | None = None
    """How the other agents are asked; None: they cannot prove to each other who they are."""
    refresh: Callable[[], Awaitable[None]] = _not_wired
    """Reads the local service's facts anew; set by the control loop."""
    refresh_reading: Callable[[], Awaitable[None]] = _not_wired
    """Reads the group's folder anew; set by the control loop."""

    def the_service(self) -> Service:
        """The local service. Only members get commands for it."""
        assert self.service is not None
        return self.service

    @property
    def owned_deadline(self) -> Instant | None:
        """Until when this node may act as holder: the agent believes the earlier of its own deadline and the acknowledged one."""
        tenure = self.knowledge.tenure
        if tenure is None or tenure.deadline is None:
            return None
        if FenceLayer.WATCHDOG not in self.knowledge.group.required_fences:
            return tenure.deadline
        fences = self.knowledge.fences
        if fences.armed_epoch != tenure.epoch or fences.armed_deadline is None:
            return None
        return tenure.deadline.earlier(fences.armed_deadline)

    def refuse_when_bound(self, epoch: int) -> None:
        """Raise `CoordinationRefused` while an own promise forbids to vote against `epoch` or to take it over."""
        promise, reading = self.knowledge.promise, self.knowledge.reading
        record, terms = None if reading is None else reading.lease.record, self.knowledge.group.terms
        if promise is not None and speaks_of(promise, epoch) and is_in_force(promise, terms, record, self.clock.now()):
            raise CoordinationRefused(f"this node has promised the holder of epoch {epoch} to let nobody take over")

    async def release_watchdog(self) -> None:
        """For a service that is proven not writable: a deadline left armed would only kill what is started next.

        A watchdog that refuses has its reasons, and keeps its deadline.
        """
        if self.watchdog is None:
            return
        with contextlib.suppress(WatchdogError):
            await self.watchdog.release(self.knowledge.group.name)
            self.knowledge.fences = replace(self.knowledge.fences, armed_epoch=None, armed_deadline=None, suspended=False)

    def lease_guard(self, command: Command, entry: str) -> Guard:
        """Permission under the lease of the command's epoch, asked anew at each irreversible step; steps go to the journal."""
        return Guard(self._permission(command), self._stepper(command, entry))

    def routes_guard(self, command: Command) -> Guard:
        """The same permission; nothing is journaled, because nothing has to be resumed."""
        return Guard(self._permission(command), _no_step)

    def _permission(self, command: Command) -> Callable[[], None]:
        def permit() -> None:
            tenure = self.knowledge.tenure
            if tenure is None or tenure.epoch != command.epoch:
                raise ActionTooLate(f"the lease of epoch {command.epoch} is this node's no more")
            if self.knowledge.high.epoch > command.epoch:
                raise ActionTooLate(f"epoch {self.knowledge.high.epoch} has begun")
            deadline = self.owned_deadline
            if deadline is None or has_passed(deadline, self.clock.now()):
                raise ActionTooLate(f"the lease of epoch {command.epoch} ran out")

        return permit

    def open_guard(self, command: Command, entry: str) -> Guard:
        """For commands that only make the service safer: always permitted; steps go to the journal."""
        return Guard(lambda: None, self._stepper(command, entry))

    def fence_guard(self) -> Guard:
        """For a fence: always permitted, and no disk stands in its way."""
        return Guard(lambda: None, _no_step)

    def _stepper(self, command: Command, entry: str) -> Callable[[str], Awaitable[None]]:
        async def step(name: str) -> None:
            await self.journal.step(entry, name)
            self.crash_point.passing(type(command).__name__, name)

        return step
