"""Runs commands: one at a time per resource, each under a deadline, each outcome brought back as knowledge.

EXECUTORS is the one table from command to executor (tests/tidy: every command has one). A fence goes before everything else on its
resource: whatever runs there is cancelled. A command that was decided in an older epoch than the highest seen is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from actions.base import ActionError
from agent.clock import Clock
from agent.decision.command import (
    AskPromises,
    CastVote,
    Command,
    DropRoutes,
    FenceService,
    FinishIntent,
    FollowLeader,
    FormGroup,
    GiveWord,
    ProbeRoutes,
    PromoteService,
    RaiseRoutes,
    RejoinService,
    RenewLease,
    Resource,
    RunHooks,
    SealService,
    SetSyncNames,
    StartService,
    StopReceiving,
    StopService,
    TakeLease,
    VacateLease,
)
from agent.decision.view import InFlight
from agent.errors import QuorateError
from agent.execution import lease_writer, promise_asker, route_runner, service_runner, vote_writer
from agent.execution.hands import Hands
from agent.instant import holder_elapsed_s

log = structlog.get_logger()

Run = Callable[[Hands, Command], Awaitable[str]]

EXECUTORS: Mapping[type[Command], Run] = {
    FormGroup: lease_writer.form_group,
    RenewLease: lease_writer.renew_lease,
    VacateLease: lease_writer.vacate_lease,
    TakeLease: lease_writer.take_lease,
    AskPromises: promise_asker.ask_promises,
    CastVote: vote_writer.cast_vote,
    GiveWord: vote_writer.give_word,
    FinishIntent: vote_writer.finish_intent,
    FenceService: service_runner.fence,
    StopService: service_runner.stop,
    StartService: service_runner.start,
    StopReceiving: service_runner.stop_receiving,
    FollowLeader: service_runner.follow,
    RejoinService: service_runner.rejoin,
    PromoteService: service_runner.promote,
    SealService: service_runner.seal,
    SetSyncNames: service_runner.set_sync_names,
    RaiseRoutes: route_runner.raise_routes,
    DropRoutes: route_runner.drop_routes,
    ProbeRoutes: route_runner.probe_routes,
    RunHooks: route_runner.run_hooks,
}


GOES_FIRST = (FenceService, DropRoutes)
"""They bring the safe state about: they cancel what is in their way on their resource, and are never stale."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How one command ended, for whoever reports it."""

    command: Command
    ok: bool
    sentence: str
    duration_s: float
    error: Exception | None = None


class Executor:
    """Runs the commands of one group. `on_finished` is told of every end; it must not block."""

    def __init__(self, hands: Hands, clock: Clock, on_finished: Callable[[Finished], None]) -> None:
        self._hands = hands
        self._clock = clock
        self._on_finished = on_finished
        self._running: dict[Resource, asyncio.Task[None]] = {}
        self._next = 0

    def start(self, command: Command) -> bool:
        """Begin a command; False when its resource is busy. A fence or a drop cancels what is in its way."""
        running = self._running.get(command.resource)
        if running is not None and not running.done():
            if not isinstance(command, GOES_FIRST):
                return False
            running.cancel()
        self._next += 1
        self._hands.knowledge.in_flight[self._next] = InFlight(command, self._clock.now())
        task = asyncio.create_task(self._run(self._next, command, running), name=f"command {type(command).__name__}")
        self._running[command.resource] = task
        return True

    async def _run(self, number: int, command: Command, before: asyncio.Task[None] | None) -> None:
        """One command from begin to end. Never raises but for its own cancellation, which is also an end."""
        began = self._clock.now()
        error: Exception | None = None
        ok, sentence = False, "it was cancelled: a fence or a drop goes first, or the agent stops"
        try:
            if before is not None:
                await asyncio.wait({before})
            self._refuse_stale(command)
            sentence = await EXECUTORS[type(command)](self._hands, command)
            ok = True
        except (QuorateError, ActionError) as failure:
            error, sentence = failure, str(failure)
        except Exception as failure:
            error, sentence = failure, f"the agent made a mistake ({type(failure).__name__}); its log says which"
            log.exception("command.broke", command=type(command).__name__)
        finally:
            ended = self._clock.now()
            knowledge = self._hands.knowledge
            knowledge.in_flight.pop(number, None)
            knowledge.note_outcome(command, ok, ended, sentence)
            self._on_finished(Finished(command, ok, sentence, holder_elapsed_s(began, ended), error))

    def _refuse_stale(self, command: Command) -> None:
        """A command of an older epoch is dropped, not resumed; a fence or a drop is never stale."""
        newest, guarded = self._hands.knowledge.high.epoch, (Resource.SERVICE, Resource.ROUTES)
        if command.epoch < newest and command.resource in guarded and not isinstance(command, GOES_FIRST):
            raise ActionError(f"it was decided in epoch {command.epoch}; epoch {newest} has begun")

    async def finish(self, within_s: float) -> None:
        """Let what runs come to its end, then cancel the rest. For a clean stop of the agent."""
        tasks = [t for t in self._running.values() if not t.done()]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=within_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=within_s)
