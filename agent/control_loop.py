"""One group on one node: gather the view -> decide -> execute -> publish, again and again. The agent's only caller of the core.

Four small loops feed it (the coordinator's changes, the local service's facts, the look at the leader's service, the core's own
wake-up); each ends in `_wake`. A turn itself never waits for the outside: commands run as tasks and come back as knowledge.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from agent.clock import Clock
from agent.coordination.coordinator import Coordinator, Operation, Snapshot, Verb
from agent.coordination.failsafe import forget_loss
from agent.coordination.failsafe_rules import resumed, undecided_of
from agent.coordination.lease import LeaseState, Tenure, group_folder, member_key
from agent.coordination.values import encode
from agent.decision.command import Command, FenceService, RenewLease
from agent.decision.engine import Decision, decide
from agent.decision.memory import Memory
from agent.decision.quorum import FRESH_PERIODS
from agent.decision.view import FenceLayer, FenceView, GroupSpec, Observation, RouteView, ServiceState, View
from agent.errors import CoordinationError, QuorateError, WatchdogError
from agent.execution.executor import Executor, Finished
from agent.execution.hands import Hands
from agent.execution.lease_writer import hand_over
from agent.instant import Instant, has_passed, observer_elapsed_s, remaining_s
from agent.observation.process_watch import ProcessWatch, process_start_time

log = structlog.get_logger()

SETTLE_S = 0.002
"""Changes that arrive together are decided upon together."""


class LeaderProbe(Protocol):
    """Asks, over the network, whether another member's service takes writes."""

    async def ask(self, node: str, timeout_s: float) -> tuple[bool | None, str]:
        """True, False, or None when it cannot be told; and a sentence."""
        ...


@dataclass(slots=True)
class Reports:
    """Where a group's loop tells what happened. None of them may block."""

    decided: tuple[Callable[[View, Decision, Instant], None], ...]
    finished: tuple[Callable[[Finished], None], ...]


class GroupLoop:
    """The control loop of one group."""

    def __init__(self, hands: Hands, probe: LeaderProbe, reports: Reports) -> None:
        self.hands = hands
        self._knowledge = hands.knowledge
        self._coordinator: Coordinator = hands.coordinator
        self._clock: Clock = hands.clock
        self._probe = probe
        self._reports = reports
        self._memory = Memory()
        self._woken = asyncio.Event()
        self._publish_now = asyncio.Event()
        self._publish_now.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._session_seen: Instant | None = None
        """When the session was last known to be alive; None: it is to be asked about now."""
        self._decided_upon: tuple[object, ...] = ()
        self._reading_lock = asyncio.Lock()
        self._readings = 0
        self._service_lock = asyncio.Lock()
        self._watch = ProcessWatch()
        self._watched: tuple[int, int | None] | None = None
        self._stopping = False
        self.executor = Executor(hands, self._clock, self._finished)
        self.decision: Decision | None = None
        self.view: View | None = None
        hands.refresh = self.refresh_service
        hands.refresh_reading = self.refresh_reading

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Look once at everything that can be looked at, then begin to turn. A coordinator that is away does not hold it up."""
        await self._adopt_fences()
        await self._adopt_port()
        await self._look_at_routes()
        await self.refresh_service()
        self._resume_tenure()
        if self._knowledge.tenure is None:
            with contextlib.suppress(CoordinationError):
                await self.refresh_reading()
        loops = [self._coordination_loop, self._session_loop, self._service_loop, self._probe_loop, self._publish_loop, self._turn_loop]
        if self.hands.routes is not None:
            loops.append(self._routes_loop)
        self._tasks = [asyncio.create_task(loop(), name=f"{self._knowledge.group.name} {loop.__name__}") for loop in loops]

    async def stop(self, within_s: float) -> None:
        """End: no new commands; those that run come to their end, or are cancelled (their journal entries stay open)."""
        self._stopping = True
        await self.executor.finish(within_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._watch.close()
        if self.hands.routes is not None:
            await self.hands.routes.close()
        if self.hands.kernel is not None:
            await self.hands.kernel.hang_up()
        if self.hands.service is not None:
            await self.hands.service.close()

    @property
    def failed(self) -> BaseException | None:
        """What ended one of the loops, if anything did: a bug. The agent then ends, and its supervisor starts it anew."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    def wake(self) -> None:
        """Decide again now."""
        self._woken.set()

    def reconfigure(self, group: GroupSpec) -> None:
        """Take a changed specification of the group from the next turn on."""
        self._knowledge.group = group
        self.wake()

    def fresh_view(self) -> View:
        """The view of this moment, for whoever shows it."""
        return self._knowledge.view(self._clock.now())

    # ------------------------------------------------------------------ turns

    async def _turn_loop(self) -> None:
        while not self._stopping:
            self._woken.clear()
            wake_up = self._turn()
            pause_s = max(SETTLE_S, remaining_s(wake_up, self._clock.now()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()

    def _turn(self) -> Instant:
        """Gather, decide, begin what follows."""
        now = self._clock.now()
        self._refresh_fences()
        view = self._knowledge.view(now)
        decision = decide(self._memory, view, now)
        self._memory, self._decided_upon = decision.memory, self._state_here()
        self.view, self.decision = view, decision
        for report in self._reports.decided:
            report(view, decision, now)
        started = [command for command in decision.commands if not self._stopping and self.executor.start(command)]
        if any(isinstance(command, FenceService) for command in started):
            log.warning("service.fencing", group=view.group.name, epoch=self._knowledge.high.epoch)
        return decision.wake_up

    def _finished(self, finished: Finished) -> None:
        for report in self._reports.finished:
            report(finished)
        if not finished.ok:
            self._session_seen = None
        if not finished.ok or not isinstance(finished.command, RenewLease):  # a renewal says nothing new of this node
            self._publish_now.set()
        self.wake()

    # ------------------------------------------------------------------ coordination

    async def _coordination_loop(self) -> None:
        """Follow the group's folder; open a session when there is none. No reading waits for the care of one that there is."""
        while True:
            try:
                if self._knowledge.session is None:
                    await self._ensure_session()
                await self._read(wait=True)
            except (QuorateError, TimeoutError) as error:
                log.warning("coordination.failed", group=self._knowledge.group.name, reason=str(error))
                self.wake()
                await asyncio.sleep(min(0.2, self._knowledge.group.renew_s))

    async def _session_loop(self) -> None:
        """See that the session lives. Right after an election Consul may sit on this question for seconds. A trouble is told once."""
        pause_s, told = min(0.2, self._knowledge.group.renew_s), ""
        while True:
            await asyncio.sleep(pause_s)
            if self._knowledge.session is None:
                continue
            reason = ""
            try:
                await self._ensure_session()
            except (QuorateError, TimeoutError) as error:
                reason = str(error) or "it did not say in time whether the session lives"
            if reason not in ("", told):
                log.warning("session.unknown", group=self._knowledge.group.name, reason=reason)
            told = reason

    async def _ensure_session(self) -> None:
        """Ask about the session each renew period, not with each reading: at once only when a command has failed."""
        session, asked, renew_s = self._knowledge.session, self._clock.now(), self._knowledge.group.renew_s
        if session is not None and self._session_seen is not None and observer_elapsed_s(self._session_seen, asked) < renew_s:
            return
        self._session_seen = None
        async with asyncio.timeout(2 * renew_s + 1):
            if session is None or not await self._coordinator.session_is_alive(session):
                name = f"quorate-{self._knowledge.group.name}-{self._knowledge.node}"
                await self._recognise_store()
                self._knowledge.session = await self._coordinator.open_session(name)
        self._session_seen = asked

    async def _recognise_store(self) -> None:
        """Another store than the one this node knew (rebuilt, or the wrong one) proves nothing: nobody resumes, nobody takes over."""
        identity, known = await self._coordinator.identity(), self.hands.remembered.state.coordinator
        if known is None:
            await self.hands.remembered.note_store(identity)
        self._knowledge.foreign_store = known not in (None, identity)

    async def refresh_reading(self) -> None:
        """Read the group's folder now."""
        await self._read(wait=False)

    async def _read(self, *, wait: bool) -> None:
        """One reading, taken with the moment its answer ARRIVED."""
        knowledge, asked_after = self._knowledge, self._readings
        folder, floor, timeout_s = group_folder(knowledge.group.name), knowledge.committed_index, knowledge.group.renew_s
        if wait and knowledge.reading is not None:
            snapshot = await self._coordinator.wait(folder, knowledge.reading.index, timeout_s)
        else:
            snapshot = await self._coordinator.read(folder, 2 * timeout_s)
        async with self._reading_lock:
            before = knowledge.tenure
            if self._was_overtaken(snapshot, asked_after) or not knowledge.take_snapshot(snapshot, floor, self._clock.now()):
                return
            self._readings += 1
            await self._after_reading(before)
        self.wake()

    def _was_overtaken(self, snapshot: Snapshot, asked_after: int) -> bool:
        """A newer answer to a later question was taken meanwhile: this one is old, and not the past restored."""
        reading = self._knowledge.reading
        return self._readings != asked_after and reading is not None and snapshot.index < reading.index

    async def _after_reading(self, before: Tenure | None) -> None:
        """Adopt the own lease after a restart, hand a newly confirmed deadline over, keep the high water on disk."""
        knowledge = self._knowledge
        self._adopt_tenure()
        confirmed_by_reading = knowledge.tenure is not None and before is not None and knowledge.tenure.dated != before.dated
        if confirmed_by_reading:
            await hand_over(self.hands)
        record = knowledge.reading.lease.record if knowledge.reading is not None else None
        if record is not None and not knowledge.went_back:
            await self.hands.remembered.note_seen(record.epoch, record.sequence)
        await forget_loss(knowledge, self.hands.remembered, self._clock.now())

    def _resume_tenure(self) -> None:
        """A restarted agent whose service takes writes under a live deadline asks for promises at once, without the coordinator.

        For that it has its own lease by its disk. As soon as the lease is read, the reading counts.
        """
        knowledge, remembered, fences = self._knowledge, self.hands.remembered, self._knowledge.fences
        deadline, now = fences.armed_deadline, self._clock.now()
        if deadline is None or fences.suspended or has_passed(deadline, now) or not remembered.is_of_this_boot:
            return
        tenure = resumed(remembered.state.kept_records, knowledge.node, deadline, now)
        is_it = tenure is not None and tenure.epoch == fences.armed_epoch == knowledge.high.epoch
        if is_it and knowledge.group.failsafe and knowledge.service.state is ServiceState.PRIMARY:
            knowledge.tenure = tenure

    def _adopt_tenure(self) -> None:
        """A restarted agent finds its own lease: the deadline that the watchdog holds is the only truth about its last SENT."""
        knowledge, lease = self._knowledge, self._knowledge.reading.lease if self._knowledge.reading else None
        if lease is None or lease.record is None or lease.entry is None or knowledge.tenure is not None or knowledge.went_back:
            return
        record, fences = lease.record, knowledge.fences
        mine = record.holder == knowledge.node and record.state is LeaseState.HELD and record.incarnation != knowledge.incarnation
        if not mine or fences.armed_epoch != record.epoch or fences.armed_deadline is None:
            return
        time_stands_still = record.paused and fences.suspended
        if has_passed(fences.armed_deadline, self._clock.now()) and not time_stands_still:
            return
        knowledge.tenure = Tenure(
            record,
            lease.entry.index,
            knowledge.session or "",
            dated=None,
            adopted_deadline=fences.armed_deadline,
            attempts=undecided_of(self.hands.remembered.state.kept_records, record, fences.armed_deadline),
            began=self._clock.now(),
        )
        log.info("lease.adopted", group=knowledge.group.name, epoch=record.epoch)

    # ------------------------------------------------------------------ the local service

    async def _service_loop(self) -> None:
        """Read the service's facts at a fixed rate; its death is noticed at once, beside this loop."""
        while True:
            await asyncio.sleep(self._knowledge.group.renew_s / 2)
            await self.refresh_service()

    async def refresh_service(self) -> None:
        """Read the local service's facts now."""
        service = self.hands.service
        if service is None:
            return
        async with self._service_lock:
            seen = await service.read(timeout_s=max(0.5, self._knowledge.group.renew_s))
            if self._knowledge.take_service(seen, self._clock.now()):
                self._publish_now.set()
            self._watch_main_process()
        await self._release_watchdog()
        await self._settle_port()
        if self._state_here() != self._decided_upon:
            self.wake()

    def _state_here(self) -> tuple[object, ...]:
        """What a look at the service may change. A look that finds all as it was in the last turn is no reason to take another one.

        Except at a primary: how long its standbys have been silent is told by the moment of the look.
        """
        kernel, service = self.hands.kernel, self._knowledge.service
        port = None if kernel is None else (kernel.epoch, kernel.stands, kernel.problem)
        facts = service if service.state is ServiceState.PRIMARY else replace(service, seen=None)
        return facts, self._knowledge.fences, port

    async def _release_watchdog(self) -> None:
        """A node without the lease whose service is proven not writable needs no deadline: left armed, it would kill the new standby."""
        knowledge, watchdog = self._knowledge, self.hands.watchdog
        held = knowledge.tenure is not None or knowledge.reading is None or knowledge.fences.armed_epoch is None
        if watchdog is None or held or knowledge.service.state not in (ServiceState.DOWN, ServiceState.STANDBY) or knowledge.in_flight:
            return
        await self.hands.release_watchdog()

    async def _settle_port(self) -> None:
        """A proven standby without the lease serves readers; a service that is down lets nobody in, whoever starts it."""
        kernel, state = self.hands.kernel, self._knowledge.service.state
        if kernel is not None and state is ServiceState.STANDBY:
            await kernel.stand(self._is_unleased)
        elif kernel is not None and state is ServiceState.DOWN:
            await kernel.close(self._is_unleased)

    def _is_unleased(self) -> bool:
        return self._knowledge.tenure is None and not self._knowledge.in_flight

    def _watch_main_process(self) -> None:
        assert self.hands.service is not None
        pid = self.hands.service.main_pid()
        life = None if pid is None else (pid, process_start_time(pid))
        if pid is not None and life != self._watched:
            self._watched = life
            self._watch.watch(pid, self._main_process_died, None if life is None else life[1])

    def _main_process_died(self) -> None:
        """Called by the kernel's word, not by the next check."""
        self._watched = None
        self._tasks.append(asyncio.create_task(self.refresh_service(), name="read after death"))
        self._tasks = [t for t in self._tasks if not t.done() or t.get_name() != "read after death"]

    # ------------------------------------------------------------------ the look at the leader

    async def _probe_loop(self) -> None:
        """Ask the holder's service from where this node stands, each renew period."""
        while True:
            period_s = self._knowledge.group.renew_s
            await asyncio.sleep(period_s)
            record = self._knowledge.reading.lease.record if self._knowledge.reading is not None else None
            if record is None or record.holder == self._knowledge.node or record.state is not LeaseState.HELD:
                self._knowledge.observation = None
                continue
            writable, sentence = await self._probe.ask(record.holder, max(0.2, period_s))
            self._note_observation(record.holder, writable, sentence)

    def _note_observation(self, node: str, writable: bool | None, sentence: str) -> None:
        now, before = self._clock.now(), self._knowledge.observation
        same = before is not None and before.node == node and before.writable is writable
        since = before.since if same and before is not None else now
        self._knowledge.observation = Observation(node, writable, now, since, sentence)
        was_fresh = before is not None and observer_elapsed_s(before.asked, now) <= FRESH_PERIODS * self._knowledge.group.renew_s
        if not (same and was_fresh and writable):  # a leader that goes on taking writes is no news
            self.wake()

    # ------------------------------------------------------------------ what follows the leader

    def routes_changed(self, routes: tuple[RouteView, ...]) -> None:
        """Take how everything that follows the leader stands here. The others hear of it at once when it moved."""
        moved = [route.state for route in routes] != [route.state for route in self._knowledge.routes]
        self._knowledge.routes = routes
        if moved:
            self._publish_now.set()
            self.wake()

    async def _routes_loop(self) -> None:
        """See how it stands, each renew period: a hand may have changed it."""
        while True:
            await asyncio.sleep(self._knowledge.group.renew_s)
            await self._look_at_routes()

    async def _look_at_routes(self) -> None:
        if self.hands.routes is not None:
            await self.hands.routes.look()

    # ------------------------------------------------------------------ publishing

    async def _publish_loop(self) -> None:
        """Write the own heartbeat: every renew period, and at once when others should know."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._knowledge.group.renew_s):
                    await self._publish_now.wait()
            self._publish_now.clear()
            await self._publish()
            await asyncio.sleep(SETTLE_S)

    async def _publish(self) -> None:
        knowledge = self._knowledge
        knowledge.beat += 1
        value = encode(knowledge.member_value())
        write = Operation(Verb.SET, member_key(knowledge.group.name, knowledge.node), value=value)
        try:
            await self._coordinator.transact((write,), 2 * knowledge.group.renew_s)
        except CoordinationError as error:
            log.warning("heartbeat.failed", group=knowledge.group.name, reason=str(error))
            await asyncio.sleep(min(0.2, knowledge.group.renew_s))

    # ------------------------------------------------------------------ fences

    async def _adopt_fences(self) -> None:
        """Ask the watchdog what it holds; register what it has to fence."""
        watchdog, service, knowledge = self.hands.watchdog, self.hands.service, self._knowledge
        if watchdog is None or service is None:
            return
        try:
            addresses = () if self.hands.routes is None else self.hands.routes.addresses
            budget_s = knowledge.group.terms.fence_budget_s
            await watchdog.register(knowledge.group.name, service.data_dir, service.owner_uid, budget_s, addresses)
            armed = await watchdog.adopt(knowledge.group.name)
        except WatchdogError as error:
            knowledge.fences = replace(knowledge.fences, refused=str(error))
            return
        if armed is not None:
            knowledge.fences = replace(knowledge.fences, armed_epoch=armed.epoch, armed_deadline=armed.deadline, suspended=armed.paused)

    async def _adopt_port(self) -> None:
        """Have the port's lease be what the watchdog holds: an earlier life's, or one that is new to a service which runs already."""
        kernel, fences = self.hands.kernel, self._knowledge.fences
        if kernel is None:
            return
        if fences.suspended:
            await kernel.stand()
        elif fences.armed_epoch is not None and fences.armed_deadline is not None:
            await kernel.arm(fences.armed_epoch, fences.armed_deadline)
        else:
            await kernel.begin()

    def _refresh_fences(self) -> None:
        knowledge, watchdog, kernel = self._knowledge, self.hands.watchdog, self.hands.kernel
        alive = watchdog is not None and watchdog.alive
        standing: set[FenceLayer] = set()
        if alive or self.hands.service is None:
            standing.add(FenceLayer.WATCHDOG)
        if knowledge.service.state is not ServiceState.PRIMARY or knowledge.service.sealed:
            standing.add(FenceLayer.SEAL)
        if kernel is not None and kernel.stands:
            standing.add(FenceLayer.KERNEL)
        knowledge.fences = replace(
            knowledge.fences,
            standing=frozenset(standing),
            watchdog_alive=alive,
            kernel_epoch=None if kernel is None else kernel.epoch,
            kernel_problem=self.hands.kernel_absence if kernel is None else kernel.problem,
        )

    async def watchdog_came_back(self) -> None:
        """A new watchdog answers: it holds nothing yet. What was armed in the old one is void."""
        self._knowledge.fences = FenceView(frozenset())
        await self._adopt_fences()
        self.wake()

    def commands_in_flight(self) -> tuple[Command, ...]:
        """What runs now, for the agent's last line."""
        return tuple(f.command for f in self._knowledge.in_flight.values())
