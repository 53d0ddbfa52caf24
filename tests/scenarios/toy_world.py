"""A toy world for the core: a perfect coordinator as a dict, services as lists of writes, and the watchdog's own rules of a deadline.

Everything runs from one seed, in steps of 50 ms; messages take their time, get lost in either direction and overtake each other. What
is real: `decide`, `Knowledge`, the transactions of lease.py, the readings, the watchdog's deadline. What is a toy: all that they touch.
It must never grow into the simulator: no clock rates, no disks, no failsafe.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from agent.coordination import lease
from agent.coordination.coordinator import Committed, Entry, Operation, Refused, Snapshot, Transaction, Verb
from agent.coordination.lease import Attempt, LeaseRecord, LeaseState, Position, Tenure
from agent.coordination.values import VoteValue, WordValue, encode
from agent.decision import command as c
from agent.decision.engine import decide
from agent.decision.memory import Memory
from agent.decision.view import Branch, FenceLayer, FenceView, GroupSpec, InFlight, Observation, Replica, ServiceState, ServiceView
from agent.instant import NANOSECONDS, Instant, has_passed, remaining_s
from agent.knowledge import HighWater, Knowledge
from agent.watchdog import deadline as watch

STEP_S = 0.05
GROUP = "pg-main"


class Broken(AssertionError):
    """An invariant does not hold."""


# ------------------------------------------------------------------ the coordinator


class Store:
    """Runs transactions: all or nothing, one after another."""

    def __init__(self) -> None:
        self.index = 1
        self.entries: dict[str, Entry] = {}
        self.sessions: set[str] = set()
        self.is_up = True

    def run(self, transaction: Transaction) -> Committed | Refused:
        work, index = dict(self.entries), self.index + 1
        for number, operation in enumerate(transaction):
            if not self._apply(work, operation, index):
                return Refused(number, f"{operation.verb} {operation.key}")
        self.entries, self.index = work, index
        return Committed(index)

    def _apply(self, work: dict[str, Entry], op: Operation, index: int) -> bool:
        entry = work.get(op.key)
        match op.verb:
            case Verb.CHECK_INDEX:
                return entry is not None and entry.index == op.index
            case Verb.CHECK_NOT_EXISTS:
                return entry is None
            case Verb.CHECK_SESSION:
                return entry is not None and entry.session == op.session
            case Verb.CAS if (0 if entry is None else entry.index) != op.index:
                return False
            case Verb.LOCK if op.session not in self.sessions or (entry is not None and entry.session not in (None, op.session)):
                return False
            case Verb.UNLOCK if entry is None or entry.session != op.session:
                return False
        locked = op.session if op.verb is Verb.LOCK else None if op.verb is Verb.UNLOCK or entry is None else entry.session
        value = op.value if op.value is not None or entry is None else entry.value
        work[op.key] = Entry(value or b"", index, locked)
        return True

    def snapshot(self) -> Snapshot:
        return Snapshot(self.index, dict(self.entries))

    def end_session(self, session: str) -> None:
        self.sessions.discard(session)
        self.index += 1
        freed = {k: replace(e, session=None, index=self.index) for k, e in self.entries.items() if e.session == session}
        self.entries |= freed


# ------------------------------------------------------------------ a node: what outlives its agent, and the agent


@dataclass
class Service:
    """A database: a list of writes. What is in `log` is on disk."""

    state: ServiceState = ServiceState.STANDBY
    log: list[int] = field(default_factory=lambda: [0])
    timeline: int = 1
    history: tuple[Branch, ...] = ()
    upstream: str | None = None
    receiving: bool = False
    sync_names: tuple[str, ...] = ()
    effective_lsn: int | None = None

    def kill(self) -> None:
        self.state, self.receiving, self.effective_lsn = ServiceState.DOWN, False, None

    def is_prefix_of(self, other: Service) -> bool:
        return other.log[: len(self.log)] == self.log


@dataclass
class Node:
    """One host."""

    name: str
    offset_s: float
    service: Service = field(default_factory=Service)
    guard: watch.GroupState = field(default_factory=lambda: watch.GroupState(watch.Target("/data", 1, 0.3)))
    disk: HighWater = field(default_factory=HighWater)
    own_timelines: tuple[tuple[int, int], ...] = ()
    life: int = 0
    knowledge: Knowledge | None = None
    memory: Memory = field(default_factory=Memory)
    frozen_until_s: float = 0.0
    cut_until_s: float = 0.0
    wake_at_s: float = 0.0
    seen_since_s: tuple[bool, float] = (True, 0.0)


class World:
    """All of it. `run` goes on until a second; `Broken` is raised in the very step that breaks an invariant."""

    def __init__(self, seed: int, group: GroupSpec) -> None:
        self.rng = Random(seed)  # noqa: S311  # a toy world is seeded, not secret
        self.group = group
        self.store = Store()
        self.nodes = {name: Node(name, offset_s=1000.0 * n) for n, name in enumerate(group.voters, start=1)}
        self.now_s = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.acknowledged: set[int] = set()
        self.promotions = 0
        self.is_lossy = True
        self.trace: list[str] = []
        for node in self.nodes.values():
            self.start_agent(node)

    # -------------------------------------------------------------- time and messages

    def instant(self, node: Node) -> Instant:
        at_ns = round((self.now_s + node.offset_s) * NANOSECONDS)
        return Instant(at_ns, at_ns)

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now_s + seconds, self.count, event))

    def agent_after(self, node: Node, seconds: float, event: Callable[[], None]) -> None:
        """Later in this agent's life; a frozen agent gets to it when it thaws, a dead one never."""
        life = node.life

        def arrive() -> None:
            if node.life != life or node.knowledge is None:
                return
            if self.now_s < node.frozen_until_s:
                self.agent_after(node, node.frozen_until_s - self.now_s + 0.001, event)
                return
            event()
            node.wake_at_s = self.now_s

        self.after(seconds, arrive)

    def delay_s(self) -> float:
        return self.rng.choice([0.002, 0.002, 0.01, 0.03]) if not self.is_lossy or self.rng.random() < 0.9 else self.rng.uniform(0.05, 1.2)

    def request(self, node: Node, transaction: Transaction, answer: Callable[[Committed | Refused | None], None]) -> None:
        """Send; the answer comes back, or after a while None: unknown."""
        done: list[bool] = []

        def reply(result: Committed | Refused | None) -> None:
            if not done:
                done.append(True)
                answer(result)

        def arrive() -> None:
            if self.store.is_up:
                result = self.store.run(transaction)
                if not (self.is_lossy and self.rng.random() < 0.03) and self.now_s >= node.cut_until_s:
                    self.agent_after(node, self.delay_s(), lambda: reply(result))

        if self.now_s >= node.cut_until_s and not (self.is_lossy and self.rng.random() < 0.03):
            self.after(self.delay_s(), arrive)
        self.agent_after(node, max(0.2, min(2 * self.group.renew_s, self.group.terms.ttl_s / 2)), lambda: reply(None))

    def run(self, until_s: float) -> None:
        while self.now_s < until_s:
            step_end_s = self.now_s + STEP_S
            while self.events and self.events[0][0] <= step_end_s:
                at_s, _, event = heapq.heappop(self.events)
                self.now_s = max(self.now_s, at_s)
                event()
                self.turns()
                self.check()
            self.now_s = step_end_s
            self.physics()
            self.turns()
            self.check()

    # -------------------------------------------------------------- agents

    def start_agent(self, node: Node) -> None:
        node.life += 1
        node.memory = Memory()
        session = f"s-{node.name}-{node.life}"
        self.store.sessions.add(session)
        high = HighWater(node.disk.epoch, node.disk.sequence)
        known = Knowledge(node.name, f"{node.name}-{node.life}", self.group, high, session=session)
        known.own_timelines = node.own_timelines
        node.knowledge = known
        at = None if node.guard.deadline is None else Instant(*node.guard.deadline.at)
        armed = None if node.guard.deadline is None else node.guard.deadline.epoch
        known.fences = FenceView(frozenset({FenceLayer.SEAL, FenceLayer.WATCHDOG}), True, armed, at)
        self.poll(node)
        self.beat(node)

    def kill_agent(self, node: Node) -> None:
        if node.knowledge is not None:
            node.disk, node.knowledge = node.knowledge.high, None

    def poll(self, node: Node) -> None:
        """Read the group's folder every 100 ms."""
        assert node.knowledge is not None
        floor = node.knowledge.committed_index
        if self.store.is_up and self.now_s >= node.cut_until_s:
            snapshot = self.store.snapshot()
            self.agent_after(node, self.delay_s(), lambda: self.take_reading(node, snapshot, floor))
        self.agent_after(node, 0.1, lambda: self.poll(node))

    def take_reading(self, node: Node, snapshot: Snapshot, floor: int) -> None:
        known = node.knowledge
        assert known is not None
        known.take_snapshot(snapshot, floor, self.instant(node))
        read = None if known.reading is None else known.reading.lease
        if known.tenure is not None or read is None or read.record is None or read.entry is None or known.went_back:
            return
        record, fences = read.record, known.fences
        mine = record.holder == node.name and record.state is LeaseState.HELD and record.incarnation != known.incarnation
        if mine and fences.armed_epoch == record.epoch and fences.armed_deadline and not has_passed(fences.armed_deadline, self.instant(node)):
            known.tenure = Tenure(
                record, read.entry.index, known.session or "", None, adopted_deadline=fences.armed_deadline, began=self.instant(node)
            )

    def beat(self, node: Node) -> None:
        known = node.knowledge
        assert known is not None
        self.look(node)
        known.beat += 1
        self.request(node, (Operation(Verb.SET, lease.member_key(GROUP, node.name), value=encode(known.member_value())),), lambda _: None)
        self.agent_after(node, self.group.renew_s, lambda: self.beat(node))

    def look(self, node: Node) -> bool:
        """Facts of the own service and of the leader's; True when the others should hear of it."""
        known, service = node.knowledge, node.service
        assert known is not None
        record = None if known.reading is None else known.reading.lease.record
        if record is not None and record.holder != node.name:
            writable = self.nodes[record.holder].service.state is ServiceState.PRIMARY
            if node.seen_since_s[0] is not writable:
                node.seen_since_s = (writable, self.now_s)
            ago_s = self.now_s - node.seen_since_s[1]
            known.observation = Observation(record.holder, writable, self.instant(node), self.instant(node).after(-ago_s), "")
        facts = ServiceView(
            state=service.state,
            initialised=True,
            position=Position(service.timeline, len(service.log)),
            history=service.history,
            system_identifier="1",
            upstream=service.upstream,
            receiving=service.receiving,
            sealed=True,
            sync_names=service.sync_names,
            sync_effective_lsn=service.effective_lsn,
            replicas=tuple(self.replicas_of(node)),
        )
        return known.take_service(facts, self.instant(node))

    def replicas_of(self, node: Node) -> Iterator[Replica]:
        for other in self.nodes.values():
            if other.service.receiving and other.service.upstream == node.name:
                yield Replica(other.name, True, len(other.service.log), other.name in node.service.sync_names)

    def turns(self) -> None:
        for node in self.nodes.values():
            if node.knowledge is not None and self.now_s >= node.wake_at_s and self.now_s >= node.frozen_until_s:
                self.turn(node)

    def turn(self, node: Node) -> None:
        known, now = node.knowledge, self.instant(node)
        assert known is not None
        if self.look(node):
            value = encode(known.member_value())
            self.request(node, (Operation(Verb.SET, lease.member_key(GROUP, node.name), value=value),), lambda _: None)
        decision = decide(node.memory, known.view(now), now)
        node.memory = decision.memory
        node.wake_at_s = self.now_s + max(0.001, remaining_s(decision.wake_up, now))
        for command in decision.commands:
            Hand(self, node, command).start()

    # -------------------------------------------------------------- what happens by itself

    def physics(self) -> None:
        for node in self.nodes.values():
            self.watch_over(node)
            self.stream(node)
        for node in self.nodes.values():
            if node.service.state is ServiceState.PRIMARY:
                self.count += 1
                node.service.log.append(self.count)
                self.acknowledge(node)

    def watch_over(self, node: Node) -> None:
        """The watchdog: expires deadlines, and kills what is writable without one."""
        now = watch.Moment(*(self.instant(node).boot_ns,) * 2)
        node.guard = watch.expire(node.guard, now)
        writable = node.service.state is ServiceState.PRIMARY
        if (watch.must_hold(node.guard, now) and writable) or node.guard.latched:
            node.service.kill()
            node.guard = watch.prove_fenced(node.guard)
            self.say(node, "watchdog fenced")
            self.agent_after(node, 0.005, lambda: None)

    def stream(self, node: Node) -> None:
        service = node.service
        source = self.nodes[service.upstream].service if service.upstream is not None and service.state is ServiceState.STANDBY else None
        if source is None or source.state not in (ServiceState.PRIMARY, ServiceState.STANDBY) or not _lets_in(source, service):
            service.receiving = False
            return
        if not service.is_prefix_of(source):
            raise Broken(f"{self.now_s:.2f}: {node.name} follows {service.upstream}, whose history is another one")
        service.receiving = True
        if self.rng.random() < 0.8:
            service.log, service.timeline, service.history = list(source.log), source.timeline, source.history

    def acknowledge(self, node: Node) -> None:
        """A commit is acknowledged when all that it waits for have flushed it; the client hears of the newest one."""
        replicas = {r.name: r.flushed_lsn for r in self.replicas_of(node)}
        if all(name in replicas for name in node.service.sync_names):
            flushed = min([len(node.service.log), *(replicas[name] for name in node.service.sync_names)])
            self.acknowledged.update(node.service.log[:flushed])

    def say(self, node: Node, what: str) -> None:
        self.trace.append(f"{self.now_s:7.3f} {node.name} {what}")

    def check(self) -> None:
        writable = [n.name for n in self.nodes.values() if n.service.state is ServiceState.PRIMARY]
        if len(writable) > 1:
            raise Broken(f"{self.now_s:.2f}: {writable} take writes at once")
        if self.group.durability.value == "sync" and writable:
            missing = self.acknowledged - set(self.nodes[writable[0]].service.log)
            if missing:
                raise Broken(f"{self.now_s:.2f}: {writable[0]} takes writes and lacks {len(missing)} acknowledged ones")


def _lets_in(source: Service, service: Service) -> bool:
    """Whether a walsender would send: the same timeline number, or an older one that is not past where it ended. It does not see more."""
    if service.timeline == source.timeline:
        return len(service.log) <= len(source.log)
    return any(b.timeline == service.timeline and len(service.log) <= b.switch_lsn for b in source.history)


# ------------------------------------------------------------------ the executor of one command


class Hand:
    """Runs one command, as execution/ does: the attempt is noted before it leaves, the lease guards what is irreversible."""

    def __init__(self, world: World, node: Node, command: c.Command) -> None:
        assert node.knowledge is not None
        self.world, self.node, self.command, self.known = world, node, command, node.knowledge
        world.count += 1
        self.number = world.count

    def start(self) -> None:
        if isinstance(self.command, c.FenceService):
            for number, flight in list(self.known.in_flight.items()):
                if flight.command.resource is c.Resource.SERVICE:
                    del self.known.in_flight[number]
                    self.known.note_outcome(flight.command, ok=False, ended=self.now, sentence="a fence goes first")
        self.known.in_flight[self.number] = InFlight(self.command, self.now)
        if not isinstance(self.command, c.RenewLease | c.CastVote):
            self.world.say(self.node, f"{self.command!r}"[:150])
        match self.command:
            case c.FormGroup() | c.RenewLease() | c.VacateLease() | c.TakeLease():
                self.write_lease(self.command)
            case c.CastVote(epoch=epoch, down=down, over_index=index):
                self.write(Operation(Verb.CAS, lease.vote_key(GROUP, self.node.name), index, value=encode(VoteValue(epoch, down))))
            case c.GiveWord():
                word = WordValue(self.known.incarnation, self.known.service.position, "1")
                self.write(Operation(Verb.SET, lease.formation_key(GROUP, self.node.name), value=encode(word)))
            case _:
                self.world.after(self.length_s(), self.work)

    @property
    def now(self) -> Instant:
        return self.world.instant(self.node)

    def length_s(self) -> float:
        return 0.02 if isinstance(self.command, c.FenceService) else self.world.rng.uniform(0.05, 0.3)

    def end(self, ok: bool) -> None:
        if self.known.in_flight.pop(self.number, None) is not None:
            self.world.look(self.node)
            self.known.note_outcome(self.command, ok, self.now, "")

    # -------------------------------------------------------------- keys

    def write(self, operation: Operation) -> None:
        self.world.request(self.node, (operation,), lambda result: self.end(isinstance(result, Committed)))

    def write_lease(self, order: c.FormGroup | c.RenewLease | c.VacateLease | c.TakeLease) -> None:
        record = replace(order.record, nonce=f"n{self.number}")
        known, sent, session = self.known, self.now, self.known.session or ""
        if known.tenure is not None and not isinstance(order, c.TakeLease):
            known.tenure = lease.with_attempt(known.tenure, Attempt(record, sent))
        index = 0 if known.tenure is None else known.tenure.index
        match order:
            case c.FormGroup(words=words):
                transaction = lease.formation(record, session, words)
            case c.RenewLease(relock_over=entry) if entry is not None and entry.index == index:
                transaction = lease.relock(record, session, entry)
            case c.RenewLease():
                transaction = lease.renewal(record, session, index)
            case c.VacateLease():
                transaction = lease.vacating(record, session, index)
            case c.TakeLease(over=entry, votes=votes):
                transaction = lease.takeover(record, session, entry, votes)
        self.world.request(self.node, transaction, lambda result: self.judge(order, record, sent, result))

    def judge(self, order: c.Command, record: LeaseRecord, sent: Instant, result: Committed | Refused | None) -> None:
        known = self.known
        if isinstance(result, Refused) and known.tenure is not None:
            known.tenure = lease.without_attempt(known.tenure, record.nonce)
        if isinstance(result, Committed):
            known.committed_index = max(known.committed_index, result.index)
            if isinstance(order, c.VacateLease):
                known.tenure = None
            else:
                self.hold(record, result.index, sent)
        self.end(isinstance(result, Committed))

    def hold(self, record: LeaseRecord, index: int, sent: Instant) -> None:
        known = self.known
        if known.tenure is not None and known.tenure.epoch == record.epoch:
            known.tenure = lease.settle(known.tenure, record, index)
        elif not known.high.is_above(record.epoch, record.sequence):
            known.tenure = Tenure(record, index, known.session or "", dated=sent, began=self.now)
        known.high = HighWater(*max((known.high.epoch, known.high.sequence), (record.epoch, record.sequence)))
        self.hand_over()

    def hand_over(self) -> None:
        tenure, node = self.known.tenure, self.node
        if tenure is None or tenure.deadline is None:
            return
        new = watch.Deadline(tenure.epoch, watch.Moment(tenure.deadline.boot_ns, tenure.deadline.raw_ns), tenure.record.nonce)
        proven = node.service.state in (ServiceState.DOWN, ServiceState.STANDBY) and not self.is_promoting()
        now = watch.Moment(self.now.boot_ns, self.now.raw_ns)
        state = watch.hand_over(node.guard, new, now, proven_not_writable=proven)
        if isinstance(state, watch.Refusal):
            self.known.fences = replace(self.known.fences, refused=state.value)
            return
        node.guard = state
        self.known.fences = replace(self.known.fences, armed_epoch=tenure.epoch, armed_deadline=tenure.deadline, refused="")

    def is_promoting(self) -> bool:
        return any(isinstance(f.command, c.PromoteService) for f in self.known.in_flight.values())

    # -------------------------------------------------------------- the service

    def permits(self) -> bool:
        known, fences = self.known, self.known.fences
        tenure = known.tenure
        if tenure is None or tenure.epoch != self.command.epoch or known.high.epoch > self.command.epoch or tenure.deadline is None:
            return False
        if fences.armed_epoch != tenure.epoch or fences.armed_deadline is None:
            return False
        return not has_passed(tenure.deadline.earlier(fences.armed_deadline), self.now)

    def work(self) -> None:
        """The effect comes whatever has become of the agent; whether it is told of it is another matter."""
        if self.number not in self.known.in_flight:
            return  # a fence went first
        alive = self.node.knowledge is self.known
        ok = (alive or isinstance(self.command, c.StartService | c.StopService)) and self.effect(self.node.service)
        if alive:
            self.world.agent_after(self.node, 0.0, lambda: self.end(ok))

    def effect(self, service: Service) -> bool:
        match self.command:
            case c.FenceService():
                service.kill()
            case c.StopService():
                return self.stop(service)
            case c.StartService():
                if service.state is ServiceState.DOWN:
                    service.state, service.upstream = ServiceState.STANDBY, None
            case c.StopReceiving(epoch=epoch):
                service.upstream, service.receiving, self.known.stopped_for_epoch = None, False, epoch
                return service.state is ServiceState.STANDBY
            case c.FollowLeader(leader=leader):
                service.upstream, self.known.stopped_for_epoch = leader, None
            case c.RejoinService(leader=leader, mode=mode):
                return self.rejoin(service, self.world.nodes[leader].service, leader, mode)
            case c.PromoteService():
                return self.promote(service, self.command)
            case c.SetSyncNames(names=names):
                if not self.permits() or service.state is not ServiceState.PRIMARY:
                    return False
                service.sync_names, service.effective_lsn = names, len(service.log)
        return True

    def stop(self, service: Service) -> bool:
        """A clean stop waits until every standby that receives has everything."""
        if service.state is not ServiceState.DOWN:
            for other in self.world.nodes.values():
                if other.service.receiving and other.service.upstream == self.node.name:
                    other.service.log, other.service.timeline = list(service.log), service.timeline
                    other.service.history = service.history
            service.kill()
        return True

    def rejoin(self, service: Service, source: Service, leader: str, mode: c.RejoinMode) -> bool:
        if source.state is not ServiceState.PRIMARY:
            return False
        if mode is c.RejoinMode.COPY or source.timeline != service.timeline:  # else pg_rewind says that no rewind is required
            service.log, service.timeline, service.history = list(source.log), source.timeline, source.history
        service.state, service.upstream, self.known.stopped_for_epoch = ServiceState.STANDBY, leader, None
        return True

    def promote(self, service: Service, order: c.PromoteService) -> bool:
        if not self.permits() or service.state is not ServiceState.STANDBY:
            return False
        if order.sync_names is not None:
            service.sync_names = order.sync_names
        new = max([service.timeline, *(p.timeline for p in order.known_promotions)]) + 1
        service.history = (*service.history, Branch(service.timeline, len(service.log)))
        service.timeline, service.state = new, ServiceState.PRIMARY
        service.effective_lsn, service.upstream, service.receiving = len(service.log), None, False
        self.node.own_timelines = self.known.own_timelines = (*self.node.own_timelines, (order.epoch, new))
        self.world.promotions += 1
        return True


def leads(world: World) -> Any:
    """The node that takes writes and whose agent holds the lease; None: there is none."""
    found = [n for n in world.nodes.values() if n.service.state is ServiceState.PRIMARY and n.knowledge and n.knowledge.tenure]
    return found[0] if found else None
