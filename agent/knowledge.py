"""What the agent knows of one group right now: the only mutable state between turns, and how it becomes a View.

Readings, facts and outcomes come in from several tasks of one event loop; `view()` freezes them. No decision is made here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agent.coordination import failsafe_rules
from agent.coordination.coordinator import Snapshot
from agent.coordination.failsafe_rules import Promise
from agent.coordination.lease import LeaseState, Tenure, settle
from agent.coordination.node_state import SentVote
from agent.coordination.reading import GroupReading, Sightings, member_view, read_group
from agent.coordination.values import MemberValue, RouteValue
from agent.decision.command import Command
from agent.decision.context import BLIND_PERIODS
from agent.decision.durability import with_signs_of_life
from agent.decision.view import (
    CoordinationView,
    FenceView,
    GroupSpec,
    InFlight,
    LeaseView,
    Observation,
    Outcome,
    RouteView,
    ServiceState,
    ServiceView,
    Told,
    View,
)
from agent.instant import Instant, observer_elapsed_s


@dataclass(slots=True)
class HighWater:
    """The highest (epoch, sequence) that this node ever saw; kept on disk by node_state."""

    epoch: int = 0
    sequence: int = 0

    def is_above(self, epoch: int, sequence: int) -> bool:
        return (self.epoch, self.sequence) > (epoch, sequence)

    def rise(self, epoch: int, sequence: int) -> None:
        """Take a record that was seen or written; a lower one changes nothing."""
        self.epoch, self.sequence = max((self.epoch, self.sequence), (epoch, sequence))


@dataclass(slots=True)
class Knowledge:
    """One group as this node knows it."""

    node: str
    incarnation: str
    group: GroupSpec
    high: HighWater
    session: str | None = None
    foreign_store: bool = False
    """The coordinator is not the store that this node knew before."""
    went_back: bool = False
    reading: GroupReading | None = None
    sightings: Sightings = field(default_factory=Sightings)
    committed_index: int = 0
    """The index of this agent's newest committed write: an older reading is stale, not the past restored."""
    tenure: Tenure | None = None
    service: ServiceView = field(default_factory=lambda: ServiceView(ServiceState.UNKNOWN))
    stopped_for_epoch: int | None = None
    fences: FenceView = field(default_factory=lambda: FenceView(frozenset()))
    observation: Observation | None = None
    in_flight: dict[int, InFlight] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    undecided_takeover_index: int | None = None
    own_vote: SentVote | None = None
    """The last vote that was sent, or is about to be; marked before it is on disk (coordination/failsafe.py says why)."""
    promise: Promise | None = None
    """What was promised to a holder, or is about to be; marked before it is on disk. It may be over by now."""
    lost_since: Instant | None = None
    """The state folder was lost, and this agent started then: what was said before may still count."""
    is_loss_seen: bool = False
    """The lease was read since: a takeover of before can only be built upon what was there then."""
    called_unusable_since: Instant | None = None
    """Since when a quorum, as read, calls the service of the holder down, which is allowed to act."""
    own_timelines: tuple[tuple[int, int], ...] = ()
    routes: tuple[RouteView, ...] = ()
    told: Told | None = None
    beat: int = 0

    # ------------------------------------------------------------------ what comes in

    def take_snapshot(self, snapshot: Snapshot, floor: int, arrived: Instant) -> bool:
        """Take a reading of the group's folder; False when it was older than what this agent already wrote.

        `floor` is `committed_index` when the question was asked: an answer below it means that the store lost writes.
        """
        if floor <= snapshot.index < self.committed_index:
            return False
        gap_s = BLIND_PERIODS * self.group.renew_s
        self.reading, self.sightings = read_group(self.group.name, snapshot, self.sightings, arrived, gap_s)
        record = self.reading.lease.record
        self.went_back = self.foreign_store or snapshot.index < floor
        if record is not None:
            self.went_back = self.went_back or self.high.is_above(record.epoch, record.sequence)
            if not self.went_back:
                self.high.rise(record.epoch, record.sequence)
        self._settle(self.reading.lease)
        self._settle_takeover(self.reading.lease)
        self._settle_promise(self.reading, arrived)
        return True

    def _settle(self, lease: LeaseView) -> None:
        """Judge the own attempts by what was read. An unreadable or missing key decides nothing: the deadline does."""
        if self.tenure is None or lease.record is None or lease.entry is None or self.went_back:
            return
        self.tenure = settle(self.tenure, lease.record, lease.entry.index)
        if self.tenure is not None and self.tenure.record.state is LeaseState.VACATED:
            self.tenure = None

    def _settle_takeover(self, lease: LeaseView) -> None:
        """A takeover was built upon one index of the lease: once that is gone it has happened, or it never will."""
        sent_over = self.undecided_takeover_index
        if sent_over is not None and lease.entry is not None and lease.entry.index > sent_over and not self.went_back:
            self.undecided_takeover_index = None

    def _settle_promise(self, reading: GroupReading, arrived: Instant) -> None:
        """What the reading says of the own vote, of the promise given and of what other voters call the holder's service."""
        lease, read, sent = reading.lease, reading.votes.get(self.node), self.own_vote
        if self.went_back:
            return
        if read is not None and (sent is None or read.index > sent.over_index):
            # What was sent over an older index has failed; what a forgotten life sent over this one may yet come.
            self.own_vote = SentVote(read.epoch, read.down, read.index, settled=sent is not None or self.lost_since is None)
        if lease.record is None or lease.entry is None:
            return
        if self.promise is not None and failsafe_rules.is_freed_by(self.promise, lease.record, self.node):
            self.promise = None
        if self.lost_since is not None and not self.is_loss_seen:
            self.is_loss_seen, self.undecided_takeover_index = (
                True,
                lease.entry.index,
            )  # one may be out, over what is there now at the latest
        down = sum(v.down and v.epoch == lease.record.epoch and name in lease.record.voters for name, v in reading.votes.items())
        is_called = lease.record.debt is None and down >= lease.record.votes_needed
        self.called_unusable_since = (self.called_unusable_since or arrived) if is_called else None

    def vote_is_out(self, epoch: int) -> bool:
        """Whether a vote of this node against `epoch` stands, or one may yet commit."""
        vote = self.own_vote
        return vote is not None and (not vote.settled or (vote.down and vote.epoch == epoch))

    @property
    def vote_is_uncertain(self) -> bool:
        """Whether only a write that commits can tell what the own vote is."""
        return self.lost_since is not None if self.own_vote is None else not self.own_vote.settled

    def loss_is_over(self, now: Instant) -> bool:
        """After a lost state folder: nothing that an earlier life promised, voted or sent to take over can count any more."""
        if self.lost_since is None or not self.is_loss_seen or self.undecided_takeover_index is not None or self.vote_is_uncertain:
            return False
        record = None if self.reading is None else self.reading.lease.record
        wait_s = 0.0 if record is None else failsafe_rules.longest_wait_s(record)
        return observer_elapsed_s(self.lost_since, now) >= max(wait_s, self.group.terms.takeover_wait_s)

    def take_service(self, seen: ServiceView, now: Instant) -> bool:
        """Take facts of the local service; True when something that others should know of at once has changed."""
        before = self.service
        if seen.state is not ServiceState.STANDBY or seen.receiving:
            self.stopped_for_epoch = None
        since = before.since if seen.state is before.state else now
        seen = with_signs_of_life(before, seen, now)
        self.service = replace(seen, seen=now, since=since, stopped_for_epoch=self.stopped_for_epoch, own_timelines=self.own_timelines)
        return _news(before) != _news(self.service)

    def note_outcome(self, command: Command, ok: bool, ended: Instant, sentence: str) -> None:
        """Remember how a command ended; failures in a row are counted."""
        name = type(command).__name__
        before = self.outcomes.get(name)
        failures = 0 if ok else 1 + (0 if before is None else before.failures)
        self.outcomes[name] = Outcome(command, ok, ended, sentence, failures)

    # ------------------------------------------------------------------ what goes out

    def member_value(self) -> MemberValue:
        """What this node publishes of itself."""
        service = self.service
        record = self.reading.lease.record if self.reading is not None else None
        return MemberValue(
            beat=self.beat,
            incarnation=self.incarnation,
            state=service.state,
            position=service.position,
            history=service.history,
            stopped_for_epoch=service.stopped_for_epoch,
            upstream=service.upstream,
            receiving=service.receiving,
            system_identifier=service.system_identifier,
            problem="",
            paused_epoch=record.epoch if record is not None and record.paused else None,
            standing=tuple(sorted(layer.value for layer in self.fences.standing)),
            routes=tuple(RouteValue(route.name, route.present, route.rival, route.sentence) for route in self.routes),
        )

    def _lags(self) -> bool:
        return self.reading is not None and self.reading.index < self.committed_index

    def view(self, now: Instant) -> View:
        """Freeze everything into the snapshot that the core decides upon. The own member is shown as it is, not as published."""
        reading = self.reading
        members = dict(reading.members) if reading is not None else {}
        members[self.node] = member_view(self.node, self.member_value(), now)
        return View(
            node=self.node,
            incarnation=self.incarnation,
            group=self.group,
            coordination=CoordinationView(self.sightings.answered, self.session, lags=self._lags(), went_back=self.went_back),
            lease=reading.lease if reading is not None else LeaseView(),
            tenure=self.tenure,
            service=self.service,
            fences=self.fences,
            observation=self.observation,
            members=members,
            votes=dict(reading.votes) if reading is not None else {},
            words=dict(reading.words) if reading is not None else {},
            intents=reading.intents if reading is not None else (),
            in_flight=tuple(self.in_flight.values()),
            outcomes=dict(self.outcomes),
            highest_epoch=self.high.epoch,
            undecided_takeover_index=self.undecided_takeover_index,
            routes=self.routes,
            told=self.told,
            promise=self.promise,
            vote_is_uncertain=self.vote_is_uncertain,
        )


def _news(service: ServiceView) -> tuple[object, ...]:
    """What the others should hear of at once; a position that only moves on can wait for the next heartbeat."""
    return (
        service.state,
        service.stopped_for_epoch,
        service.upstream,
        service.receiving,
        service.history,
        service.system_identifier,
        service.position.timeline if service.position is not None else None,
    )
