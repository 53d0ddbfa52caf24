"""The executor of one command in the toy world: the order of things is that of execution/, everything it touches is a toy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.coordination import lease
from agent.coordination.coordinator import Committed, Operation, Refused, Verb
from agent.coordination.lease import Attempt, LeaseRecord, Tenure
from agent.coordination.values import VoteValue, WordValue, encode
from agent.decision import command as c
from agent.decision.view import Branch, InFlight, ServiceState
from agent.instant import Instant, has_passed
from agent.knowledge import HighWater
from agent.watchdog import deadline as watch
from tests.scenarios.toy_parts import GROUP, Node, Service

if TYPE_CHECKING:
    from tests.scenarios.toy_world import World


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
            case c.FinishIntent(identity=identity, index=index):
                self.write(Operation(Verb.DELETE_CAS, lease.intent_key(GROUP, identity), index))
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
                self.begin(service)
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
                return self.set_sync_names(service, names)
        return True

    def set_sync_names(self, service: Service, names: tuple[str, ...]) -> bool:
        if not self.permits() or service.state is not ServiceState.PRIMARY:
            return False
        service.sync_names, service.effective_lsn = names, len(service.log)
        return True

    def begin(self, service: Service) -> None:
        if service.state is ServiceState.DOWN:
            service.state, service.upstream = ServiceState.STANDBY, None

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
