"""Turns what a group's loop did into events, metrics and history. It only listens: nothing it does can hold up a turn.

An epoch's history entry is written by the member that became its leader, when its service takes writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from actions.base import ActionTimeout, ActionTooLate
from agent.clock import Clock
from agent.coordination.coordinator import Coordinator
from agent.coordination.history import HistoryEntry, HistoryReason, append
from agent.coordination.lease import LeaseRecord
from agent.decision.command import (
    CastVote,
    Command,
    FenceService,
    FinishIntent,
    FollowLeader,
    FormGroup,
    PromoteService,
    RejoinService,
    RenewLease,
    RunHooks,
    StartService,
    StopService,
    TakeLease,
    VacateLease,
)
from agent.decision.engine import Decision
from agent.decision.situation import Situation
from agent.decision.view import FenceLayer, RouteState, RouteView, ServiceState, View
from agent.errors import QuorateError
from agent.execution.executor import Finished
from agent.instant import NANOSECONDS, Instant, observer_elapsed_s
from agent.reporting.audit import Audit, EventKind
from agent.reporting.metrics import ActionOutcome, FailoverOutcome, Metrics

KINDS: Mapping[type[Command], EventKind] = {
    FormGroup: EventKind.LEASE_TAKEN,
    TakeLease: EventKind.LEASE_TAKEN,
    VacateLease: EventKind.LEASE_VACATED,
    FenceService: EventKind.SERVICE_FENCED,
    StopService: EventKind.SERVICE_STOPPED,
    StartService: EventKind.SERVICE_STARTED,
    PromoteService: EventKind.SERVICE_PROMOTED,
    FollowLeader: EventKind.MEMBER_FOLLOWED,
    RejoinService: EventKind.MEMBER_REJOINED,
    FinishIntent: EventKind.INTENT_FINISHED,
    RunHooks: EventKind.HOOKS_RUN,
}
"""Commands whose success is an event. Renewals, settings and words are routine."""


@dataclass(frozen=True, slots=True)
class Succession:
    """How the epoch that this node just took began."""

    previous_leader: str | None
    reason: HistoryReason
    vacancy_began: Instant
    sentence: str


@dataclass(frozen=True, slots=True)
class Promoted:
    """A promotion that ended well, at `ended` by the own clocks."""

    succession: Succession
    command: PromoteService
    ended: Instant
    ended_wall_s: float


class Chronicle:
    """The listener of one group."""

    def __init__(self, audit: Audit, metrics: Metrics, clock: Clock, coordinator: Coordinator) -> None:
        self._audit = audit
        self._metrics = metrics
        self._clock = clock
        self._coordinator = coordinator
        self._situation: Situation | None = None
        self._view: View | None = None
        self._attempt: Succession | None = None
        """Of the takeover that was decided last; it counts once that is committed."""
        self._succession: Succession | None = None
        self._promoted: Promoted | None = None
        """A promotion that ended; its history is written when the next view shows what came of it."""
        self._routes: tuple[RouteView, ...] = ()
        self._writing: set[asyncio.Task[None]] = set()

    def decided(self, view: View, decision: Decision, now: Instant) -> None:
        """A turn was taken: a new situation is an event."""
        self._view = view
        taking = next((c for c in decision.commands if isinstance(c, TakeLease | FormGroup)), None)
        if taking is not None:
            self._attempt = _succession(taking, view, now)
        if self._promoted is not None and view.service.state is ServiceState.PRIMARY:
            self._conclude(self._promoted, view)
        self._tell_routes(view, now)
        if decision.situation is self._situation:
            return
        before, self._situation = self._situation, decision.situation
        kind = EventKind.SERVICE_DIED if decision.situation is Situation.CRASHED else EventKind.SITUATION_CHANGED
        sentence = f"{'' if before is None else before.value + ' -> '}{decision.situation.value}: {decision.reason}"
        self._note(kind, sentence, now)

    def _tell_routes(self, view: View, now: Instant) -> None:
        """Each change of what follows the leader, whoever made it: this agent, a hand, the kernel when a lifetime was over."""
        before = {route.name: route.state for route in self._routes}
        self._routes = view.routes
        for route in view.routes:
            was = before.get(route.name, RouteState.UNKNOWN)
            if route.state is not was:
                why = f": {route.sentence}" if route.sentence else ""
                self._note(EventKind.ROUTE_CHANGED, f"{route.name}: {was.value} -> {route.state.value}{why}", now)

    def finished(self, finished: Finished) -> None:
        """A command ended."""
        command, now = finished.command, self._clock.now()
        self._metrics.action_ended(type(command), _outcome(finished), finished.duration_s)
        if not finished.ok:
            self._note(EventKind.COMMAND_FAILED, f"{type(command).__name__}: {finished.sentence}", now)
        elif isinstance(command, CastVote):
            self._note(EventKind.VOTE_CAST if command.down else EventKind.VOTE_WITHDRAWN, finished.sentence, now)
        elif type(command) in KINDS:
            self._note(KINDS[type(command)], finished.sentence, now, epoch=_epoch_of(command))
        if finished.ok:
            self._count(finished)
        elif isinstance(command, PromoteService) and self._succession is not None and self._view is not None:
            self._metrics.failover_ended(self._view.group.name, self._succession.reason, FailoverOutcome.FAILED, None)

    def _count(self, finished: Finished) -> None:
        if self._view is None:
            return
        group, command = self._view.group.name, finished.command
        if isinstance(command, RenewLease):
            self._metrics.lease_renewed(group, finished.duration_s)
        elif isinstance(command, FenceService):
            self._metrics.service_fenced(group, FenceLayer.WATCHDOG)
        elif isinstance(command, TakeLease) or (isinstance(command, FormGroup) and command.words):  # without words: no new epoch
            self._succession = self._attempt
        elif isinstance(command, PromoteService) and self._succession is not None:
            self._promoted = Promoted(self._succession, command, self._clock.now(), self._clock.wall_s())
            self._succession = None

    def _conclude(self, promoted: Promoted, view: View) -> None:
        """The epoch has a leader that takes writes: count it, and write it into the history."""
        self._promoted = None
        succession, command = promoted.succession, promoted.command
        duration_s = max(0.0, observer_elapsed_s(succession.vacancy_began, promoted.ended))
        self._metrics.failover_ended(view.group.name, succession.reason, FailoverOutcome.DONE, duration_s)
        position = view.service.position
        entry = HistoryEntry(
            epoch=command.epoch,
            leader=view.node,
            previous_leader=succession.previous_leader,
            reason=succession.reason,
            started_wall_s=promoted.ended_wall_s - duration_s,
            ended_wall_s=promoted.ended_wall_s,
            duration_s=duration_s,
            timeline=None if position is None else position.timeline,
            lost_bytes=0 if command.sync_names is not None else None,
            sentence=succession.sentence,
        )
        task = asyncio.create_task(self._write(view.group.name, entry), name="write history")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, group: str, entry: HistoryEntry) -> None:
        try:
            await append(self._coordinator, group, entry)
        except QuorateError as error:
            self._note(EventKind.COMMAND_FAILED, f"history of epoch {entry.epoch} was not written: {error}", self._clock.now())

    def _note(self, kind: EventKind, sentence: str, now: Instant, epoch: int | None = None) -> None:
        view = self._view
        record = None if view is None else view.lease.record
        epoch = epoch if epoch is not None else None if record is None else record.epoch
        self._audit.note(kind, None if view is None else view.group.name, epoch, sentence, boot_s=now.boot_ns / NANOSECONDS)


def _succession(command: TakeLease | FormGroup, view: View, now: Instant) -> Succession:
    """How an epoch comes about, from the record that is taken over."""
    before, sight = view.lease.record, view.lease.sight
    previous = None if before is None else before.holder
    return Succession(previous, _reason(before, command, view.node), now if sight is None else sight.since, command.record.cause)


def _epoch_of(command: Command) -> int:
    return command.record.epoch if isinstance(command, TakeLease | FormGroup) else command.epoch


def _outcome(finished: Finished) -> ActionOutcome:
    if finished.ok:
        return ActionOutcome.DONE
    if isinstance(finished.error, ActionTooLate):
        return ActionOutcome.TOO_LATE
    return ActionOutcome.TIMED_OUT if isinstance(finished.error, ActionTimeout) else ActionOutcome.FAILED


def _reason(before: LeaseRecord | None, command: TakeLease | FormGroup, node: str) -> HistoryReason:
    if before is None or isinstance(command, FormGroup):
        return HistoryReason.FORMED
    if before.heir is not None:
        return HistoryReason.SWITCHOVER
    if before.is_vacant:
        return HistoryReason.CRASHED
    return HistoryReason.RESUMED if before.holder == node else HistoryReason.EXPIRED
