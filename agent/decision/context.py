"""What follows directly from a view at a moment: the words that rules are written in. Pure, computed at most once a turn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from agent.coordination import failsafe_rules
from agent.coordination.lease import CountedVote, LeaseRecord, LeaseState, Tenure, is_expired
from agent.decision import candidate, durability, quorum
from agent.decision.candidate import Ranking
from agent.decision.command import Command, PromoteService, Resource
from agent.decision.durability import SyncPlan, SyncWait
from agent.decision.engines.base import Engine, Rejoin
from agent.decision.memory import Memory
from agent.decision.view import FenceLayer, GroupSpec, Intent, IntentKind, MemberView, ServiceState, View
from agent.instant import Instant, has_passed, observer_elapsed_s

BLIND_PERIODS = 3
"""Without a complete reading for this many renew periods a node calls itself blind."""
BACKOFF_S = 0.2
"""Pause after the first failure of a command; doubled by each further one."""
BACKOFF_MAX_S = 10.0


@dataclass(frozen=True)
class Context:
    """A view, the moment, the memory and the engine, with everything that can be said of them."""

    view: View
    memory: Memory
    engine: Engine
    now: Instant

    # -------------------------------------------------------------- shorthands

    @property
    def group(self) -> GroupSpec:
        return self.view.group

    @property
    def record(self) -> LeaseRecord | None:
        return self.view.lease.record

    @property
    def state(self) -> ServiceState:
        return self.view.service.state

    @property
    def is_member(self) -> bool:
        """Whether this node runs the service (a witness does not)."""
        return self.view.node in self.group.members

    # -------------------------------------------------------------- coordination

    @cached_property
    def is_blind(self) -> bool:
        answered = self.view.coordination.answered
        return answered is None or observer_elapsed_s(answered, self.now) > BLIND_PERIODS * self.group.renew_s

    @property
    def never_formed(self) -> bool:
        """There is no lease and, as far as this node's disk knows, there never was one."""
        return not self.is_blind and not self.view.lease.exists and self.view.highest_epoch == 0

    # -------------------------------------------------------------- the own lease

    @property
    def tenure(self) -> Tenure | None:
        return self.view.tenure

    @cached_property
    def deadline(self) -> Instant | None:
        """Until when this node may act as holder: its own deadline, or the one the watchdog acknowledged when that is earlier."""
        if self.tenure is None or self.tenure.deadline is None:
            return None
        armed = self.view.fences.armed_deadline
        if self.is_suspended:  # the watchdog's clock stands still, too
            return self.tenure.deadline
        if self.must_stand(FenceLayer.WATCHDOG) and armed is not None and self.view.fences.armed_epoch == self.tenure.epoch:
            return self.tenure.deadline.earlier(armed)
        return self.tenure.deadline

    @cached_property
    def is_suspended(self) -> bool:
        """The own record is paused for certain and nothing that was sent ends that: it expires for nobody, its holder included."""
        tenure = self.tenure
        return tenure is not None and tenure.record.paused and all(a.record.paused for a in tenure.attempts)

    @cached_property
    def has_time(self) -> bool:
        """The own deadline is known and not over, by the clock alone."""
        return self.deadline is not None and not has_passed(self.deadline, self.now)

    @property
    def is_live(self) -> bool:
        """This node holds the lease and its time is not over."""
        return self.has_time or self.is_suspended

    @property
    def is_late(self) -> bool:
        """This node held the lease and its time is over."""
        return self.deadline is not None and not self.is_live

    @property
    def is_holder_by_record(self) -> bool:
        return self.record is not None and self.record.holder == self.view.node and self.record.state is LeaseState.HELD

    @property
    def is_led_by_other(self) -> bool:
        return self.record is not None and self.record.holder != self.view.node and self.record.state is LeaseState.HELD

    # -------------------------------------------------------------- promises

    @cached_property
    def is_bound(self) -> bool:
        """A promise that this node gave, or may have given, is in force."""
        promise = self.view.promise
        return promise is not None and failsafe_rules.is_in_force(promise, self.group.terms, self.record, self.now)

    @property
    def is_promised_to_holder(self) -> bool:
        """It forbids to vote against the epoch that is read, and to take it over. A give-up of that epoch has ended it already."""
        promise, record = self.view.promise, self.record
        return self.is_bound and promise is not None and record is not None and failsafe_rules.speaks_of(promise, record.epoch)

    @property
    def is_promised_to_predecessor(self) -> bool:
        """It forbids to promote in the own epoch: whoever it was given to may still take writes (holes.md A9)."""
        promise, tenure = self.view.promise, self.tenure
        return self.is_bound and promise is not None and tenure is not None and (promise.epoch is None or promise.epoch < tenure.epoch)

    # -------------------------------------------------------------- the service

    @property
    def may_be_writable(self) -> bool:
        """Whether the local service takes writes, or might: everything but a proven no. A promotion under way counts."""
        return self.in_flight(PromoteService) or self.state not in (ServiceState.DOWN, ServiceState.STANDBY)

    @property
    def fenced_since_crash(self) -> bool:
        """A fence succeeded after the service was first seen as it is now."""
        outcome, since = self.view.outcomes.get("FenceService"), self.view.service.since
        return outcome is not None and outcome.ok and since is not None and observer_elapsed_s(since, outcome.ended) >= 0

    def must_stand(self, layer: FenceLayer) -> bool:
        return layer in self.group.required_fences

    @cached_property
    def missing_fences(self) -> tuple[str, ...]:
        """The required layers that do not stand on this node right now."""
        return tuple(sorted(layer.value for layer in self.group.required_fences - self.view.fences.standing))

    @property
    def is_armed(self) -> bool:
        """The watchdog holds a deadline of this very epoch and its clock runs, or none has to."""
        if not self.must_stand(FenceLayer.WATCHDOG):
            return True
        fences = self.view.fences
        holds = fences.watchdog_alive and not fences.suspended
        return holds and self.tenure is not None and fences.armed_epoch == self.tenure.epoch

    @property
    def is_port_leased(self) -> bool:
        """The kernel lets clients in for this very epoch only, or the layer is not there and need not be."""
        if FenceLayer.KERNEL not in self.group.required_fences | self.view.fences.standing:
            return True
        return self.tenure is not None and self.view.fences.kernel_epoch == self.tenure.epoch

    # -------------------------------------------------------------- the vacancy

    @property
    def was_given_up(self) -> bool:
        return self.record is not None and self.record.state is LeaseState.VACATED

    @cached_property
    def is_expired(self) -> bool:
        """The holder must have stopped: unchanged for takeover_wait by both clocks. Never while the record says paused."""
        record = self.record
        return record is not None and not record.paused and not record.is_vacant and self.has_stood_still

    @cached_property
    def has_stood_still(self) -> bool:
        """Nobody has written the lease for takeover_wait, as this node saw it by both clocks, whatever its record says."""
        sight = self.view.lease.sight
        return sight is not None and is_expired(sight, self.group.terms, self.now)

    @cached_property
    def votes(self) -> tuple[CountedVote, ...]:
        """The votes `down` that a takeover could count now."""
        if self.record is None:
            return ()
        return quorum.counted_votes(self.record, self.view.votes, self.view.members, self.group.renew_s, self.now)

    @property
    def has_quorum(self) -> bool:
        return self.record is not None and len(self.votes) >= self.record.votes_needed

    @cached_property
    def is_vacancy(self) -> bool:
        """Somebody may take the lease now: it was given up, or it ran out and a quorum says the service is down.

        Given up with a debt: the holder is proven over, its predecessor is not. That takes its time, but no votes.
        """
        if self.record is None or self.view.coordination.went_back or self.view.coordination.lags or self.record.paused:
            return False
        return self.record.is_vacant or (self.is_expired and (self.was_given_up or self.has_quorum))

    @cached_property
    def vacancy_began(self) -> Instant | None:
        """Since when this node has seen that somebody may take the lease."""
        sight = self.view.lease.sight
        if sight is None or self.record is None:
            return None
        return sight.since if self.record.is_vacant else self.memory.vacancy_since

    @property
    def lease_silence_s(self) -> float:
        """How long the lease has not moved, as this node saw it."""
        sight = self.view.lease.sight
        return 0.0 if sight is None else observer_elapsed_s(sight.since, self.now)

    @cached_property
    def ranking(self) -> Ranking:
        assert self.record is not None
        return candidate.rank(self.group, self.record, self.view.members, self.engine, self.now)

    @cached_property
    def prospects(self) -> Ranking:
        """Who could take over if this node gave up now."""
        assert self.record is not None
        replicas = self.view.service.replicas if self.tenure is not None else ()
        return candidate.prospects(self.group, self.record, self.view.members, replicas, self.engine, self.now)

    # -------------------------------------------------------------- following

    @property
    def leader(self) -> MemberView | None:
        """The record's holder as it published itself."""
        return None if self.record is None else self.view.members.get(self.record.holder)

    @cached_property
    def rejoin(self) -> Rejoin:
        if self.record is None or self.leader is None or not quorum.is_fresh(self.leader, self.group.renew_s, self.now):
            return Rejoin.WAIT
        return self.engine.rejoin(self.view.service, self.leader, self.record, self.view.node)

    # -------------------------------------------------------------- durability, operators, commands

    @cached_property
    def sync_plan(self) -> SyncPlan:
        """For a holder. By the record that is known to have committed: the one read last may be older."""
        assert self.tenure is not None
        return durability.plan(self.group, self.tenure.record, self.view.service, self.memory.sync_missing_since)

    @cached_property
    def sync_wait(self) -> SyncWait | None:
        """For whom the commits of this holder's service wait in vain; None: for nobody."""
        if self.tenure is None or self.state is not ServiceState.PRIMARY:
            return None
        return durability.wait(self.group, self.tenure.record, self.view.service, self.memory.sync_missing_since)

    def intent(self, kind: IntentKind) -> Intent | None:
        """The oldest pending intent of this kind. Identities are random; the coordinator's index tells which was written first."""
        return min((i for i in self.view.intents if i.kind is kind), key=lambda i: i.index, default=None)

    @cached_property
    def pause_intent(self) -> Intent | None:
        """The oldest pending intent to pause or to resume: only it counts, so that the one written last has the last word."""
        wishes = [i for i in (self.intent(IntentKind.PAUSE), self.intent(IntentKind.RESUME)) if i is not None]
        return min(wishes, key=lambda i: i.index, default=None)

    def is_busy(self, resource: Resource) -> bool:
        return any(f.command.resource is resource for f in self.view.in_flight)

    def in_flight(self, kind: type[Command]) -> bool:
        return any(isinstance(f.command, kind) for f in self.view.in_flight)

    def may_try(self, kind: type[Command]) -> bool:
        """Whether enough time has gone by since the last failure of this kind of command."""
        retry = self.retry_at(kind)
        return retry is None or observer_elapsed_s(retry, self.now) >= 0

    def retry_at(self, kind: type[Command]) -> Instant | None:
        """When a command that failed may be tried again; None: at once."""
        outcome = self.view.outcomes.get(kind.__name__)
        if outcome is None or outcome.ok:
            return None
        return outcome.ended.after(min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(outcome.failures - 1, 10)))
