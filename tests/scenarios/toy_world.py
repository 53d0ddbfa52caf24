"""A toy world for the core: a perfect coordinator as a dict, services as lists of writes, and the watchdog's own rules of a deadline.

Everything runs from one seed, in steps of 50 ms; messages take their time, get lost in either direction and overtake each other. What
is real: `decide`, `Knowledge`, the transactions of lease.py, the readings, the watchdog's deadline. What is a toy: all that they touch.
It must never grow into the simulator: no clock rates, no disks, no failsafe.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from random import Random

from agent.coordination import lease
from agent.coordination.coordinator import Committed, Operation, Refused, Snapshot, Transaction, Verb
from agent.coordination.lease import LeaseState, Position, Tenure
from agent.coordination.values import encode
from agent.decision.engine import decide
from agent.decision.memory import Memory
from agent.decision.view import FenceLayer, FenceView, GroupSpec, Observation, Replica, ServiceState, ServiceView
from agent.instant import NANOSECONDS, Instant, has_passed, remaining_s
from agent.knowledge import HighWater, Knowledge
from agent.watchdog import deadline as watch
from tests.scenarios.toy_hand import Hand
from tests.scenarios.toy_parts import GROUP, Node, Service, Store

STEP_S = 0.05


class Broken(AssertionError):
    """An invariant does not hold."""


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
        known.fences = FenceView(
            frozenset({FenceLayer.SEAL, FenceLayer.WATCHDOG}), watchdog_alive=True, armed_epoch=armed, armed_deadline=at
        )
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
        if (
            mine
            and fences.armed_epoch == record.epoch
            and fences.armed_deadline
            and not has_passed(fences.armed_deadline, self.instant(node))
        ):
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
            holder = self.nodes[record.holder]
            writable = holder.service.state is ServiceState.PRIMARY and self.is_linked(node, holder)
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
                is_sync = other.name in node.service.sync_names
                answer = str(self.now_s)
                yield Replica(other.name, streaming=True, flushed_lsn=len(other.service.log), is_sync=is_sync, sender=1, reply=answer)

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
        linked = service.upstream is not None and self.is_linked(node, self.nodes[service.upstream])
        alive = source is not None and source.state in (ServiceState.PRIMARY, ServiceState.STANDBY)
        if source is None or not alive or not linked or not _lets_in(source, service):
            service.receiving = False
            return
        if not service.is_prefix_of(source):
            raise Broken(f"{self.now_s:.2f}: {node.name} follows {service.upstream}, whose history is another one")
        service.receiving = True
        if self.rng.random() < 0.6:
            service.log, service.timeline, service.history = list(source.log), source.timeline, source.history

    def is_linked(self, one: Node, other: Node) -> bool:
        """A host that is cut off is cut off from everybody."""
        return self.now_s >= max(one.cut_until_s, other.cut_until_s)

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


def leads(world: World) -> Node | None:
    """The node that takes writes and whose agent holds the lease; None: there is none."""
    found = [n for n in world.nodes.values() if n.service.state is ServiceState.PRIMARY and n.knowledge and n.knowledge.tenure]
    return found[0] if found else None
