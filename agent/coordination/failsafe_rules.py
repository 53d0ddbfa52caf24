"""Failsafe: the lease goes on by the voters' promises while the coordinator takes no writes. Pure: no clock, no network, no randomness.

Theory (design.md, "The quorum of observers"). A takeover without a give-up needs k votes `down`, whose indexes its transaction checks. A
holder that cannot commit a renewal asks the voters directly; who answers promises to vote for no takeover of this epoch, of any kind
(a forced one, too), and to make none, until takeover_wait after its answer. With n - k + 1 promises, the own one included, no k voters are
left, so the deadline moves on, dated from the OLDEST question counted. k votes and n - k + 1 promises share a voter, and in one voter a
vote and a promise exclude each other: that alone carries it.

Which n and k? Those of the last confirmed record AND of every one sent since: a takeover is built upon one of these records, and each of
them has to yield its own n - k + 1 (holes.md A5). The holder's own promise needs no disk and binds no retake of its own: it never votes
in its own epoch, and takes its own epoch over only when its service is not writable and no deadline of it lives.
What ends a promise early is a `vacated` of that very epoch, for its holder is proven over (and a `fenced` receipt, once there are such).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from agent.coordination.lease import Attempt, LeaseRecord, LeaseState, Tenure, Terms
from agent.instant import Instant, observer_elapsed_s

# ---------------------------------------------------------------------------------------------------- what is said


@dataclass(frozen=True, slots=True)
class Question:
    """A holder asks one voter not to let anybody take its epoch. `nonce` names the round; `wait_s` is the longest wait of its records."""

    group: str
    epoch: int
    sequence: int
    nonce: str
    holder: str
    incarnation: str
    record_nonce: str
    """The last record of the holder that is known to have committed."""
    wait_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a voter says to one question. `reason`: why it does not promise; empty when it does."""

    member: str
    group: str
    epoch: int
    nonce: str
    promised: bool
    reason: str = ""

    def fits(self, question: Question, member: str) -> bool:
        """Whether it is this voter's answer to this very question."""
        said = (self.member, self.group, self.epoch, self.nonce)
        return said == (member, question.group, question.epoch, question.nonce)


# ---------------------------------------------------------------------------------------------------- the voter's side


@dataclass(frozen=True, slots=True)
class KeptPromise:
    """A promise on disk. It holds no moment: after any restart it counts anew, in full, so one write serves all answers in an epoch."""

    epoch: int
    holder: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise that this node gave, or (`epoch` None) may have given before it lost its memory. It binds for `wait_s` from `since`."""

    epoch: int | None
    holder: str
    wait_s: float
    since: Instant

    @property
    def kept(self) -> KeptPromise | None:
        """What the disk has to know of it."""
        return None if self.epoch is None else KeptPromise(self.epoch, self.holder, self.wait_s)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a voter knows at the moment a question comes in. Whatever it does not know for certain counts against a promise."""

    node: str
    leads: bool
    highest_epoch: int
    hears: bool
    """It read the coordinator lately; else `record` is an old one, and proves only what it names."""
    record: LeaseRecord | None
    went_back: bool
    takeover_is_out: bool
    vote_is_out: bool
    """A vote `down` for the question's epoch stands, or one was sent and nobody knows whether it will commit."""
    lost: bool
    """Its state folder was lost and what it may have promised, voted or sent before may still count."""
    called_unusable_since: Instant | None
    patience_s: float


def why_not_promise(question: Question, standing: Standing, now: Instant) -> str:
    """Why this voter must not promise; empty: it may. Each line has a schedule behind it (holes.md A5, A9, A16, C4, D)."""
    record = standing.record
    foreign = record is not None and record.epoch == question.epoch and record.holder != question.holder
    behind = record is not None and standing.hears and record.epoch != question.epoch
    called = standing.called_unusable_since
    reasons = (
        (question.holder == standing.node, "the question comes under this node's own name"),
        (standing.leads, "this node holds a lease itself"),
        (standing.highest_epoch > question.epoch, f"epoch {standing.highest_epoch} has begun"),
        (standing.went_back, "coordination went back in time, or is another store"),
        (foreign or behind, "the coordinator shows another holder or epoch"),
        (not foreign and record is not None and _is_given_up(record, question.epoch), "this epoch was given up"),
        (standing.lost, "this node lost its state folder, and what it said before may still count"),
        (standing.takeover_is_out, "a takeover of this node's own may yet commit"),
        (standing.vote_is_out, "a vote of this node's own against this epoch stands or may yet commit"),
        (
            called is not None and observer_elapsed_s(called, now) > standing.patience_s,
            "a quorum has called this primary unusable for longer than patience",
        ),
    )
    return next((sentence for forbids, sentence in reasons if forbids), "")


def _is_given_up(record: LeaseRecord, epoch: int) -> bool:
    return record.epoch == epoch and record.state is LeaseState.VACATED


def promise_to(question: Question, before: Promise | None, own: Terms, record: LeaseRecord | None, now: Instant) -> Promise:
    """The promise that an answer at `now` gives. It never gets shorter than one that is still in force: its terms may still be armed."""
    waits_s = [question.wait_s, own.takeover_wait_s]
    if record is not None:
        waits_s.append(longest_wait_s(record))
    if before is not None and is_in_force(before, own, None, now):
        waits_s.append(before.wait_s)
    return Promise(question.epoch, question.holder, max(waits_s), now)


def is_in_force(promise: Promise, own: Terms, record: LeaseRecord | None, now: Instant) -> bool:
    """Whether it still binds: the largest wait that anybody may count is not over, by both clocks."""
    return observer_elapsed_s(promise.since, now) < wait_s(promise, own, record)


def wait_s(promise: Promise, own: Terms, record: LeaseRecord | None) -> float:
    """How long it binds from `since`."""
    return max(promise.wait_s, own.takeover_wait_s, 0.0 if record is None else longest_wait_s(record))


def speaks_of(promise: Promise, epoch: int) -> bool:
    """Whether it forbids to vote against this epoch, or to take it over. An older epoch is only the past of the promised one."""
    return promise.epoch is None or epoch <= promise.epoch


def is_freed_by(promise: Promise, record: LeaseRecord, node: str) -> bool:
    """Whether a record that was read ends the promise early: a `vacated` of that very epoch.

    What an earlier, forgotten life may have promised to the holders of older epochs is void, for each of these was taken over with votes;
    to the holder of this one it is void when that is this node itself, or gave up.
    """
    if promise.epoch is None:
        return record.state is LeaseState.VACATED or record.holder == node
    return _is_given_up(record, promise.epoch)


def longest_wait_s(record: LeaseRecord) -> float:
    """The takeover_wait that a record asks for: its own terms' or that of longer ones before it."""
    return max(record.terms.takeover_wait_s, record.prior_wait_s)


# ---------------------------------------------------------------------------------------------------- the holder's side

VoterSet = tuple[frozenset[str], int]
"""The voters of one record, and k."""


def promises_needed(voters: int, votes_needed: int) -> int:
    """How many promises leave no k voters for a takeover: n - k + 1. Never none: the holder's own always counts."""
    return max(1, voters - votes_needed + 1)


def voter_sets(tenure: Tenure) -> tuple[VoterSet, ...]:
    """The voters and k of every record that a takeover could be built upon: the last confirmed one and all that were sent since."""
    records = (tenure.record, *(a.record for a in tenure.attempts))
    return tuple(dict.fromkeys((frozenset(r.voters), r.votes_needed) for r in records))


def voters_asked(tenure: Tenure) -> tuple[str, ...]:
    """Everybody whose promise may count, the holder left out. Sorted."""
    return tuple(sorted(frozenset[str]().union(*(voters for voters, _ in voter_sets(tenure))) - {tenure.record.holder}))


def extended_from(promises: Mapping[str, Instant], sets: Iterable[VoterSet]) -> Instant | None:
    """The moment from which promises date the lease: the oldest question counted, in the newest answers that suffice for EVERY set.

    `promises`: by voter, when the newest question that it answered was SENT. Answers of several rounds may be counted together, each
    dated by its own question (holes.md A6). None: for some set they do not suffice.
    """
    counted: list[Instant] = []
    for voters, votes_needed in sets:
        needed = promises_needed(len(voters), votes_needed)
        newest = sorted((asked for name, asked in promises.items() if name in voters), key=lambda asked: asked.boot_ns, reverse=True)
        if len(newest) < needed:
            return None
        counted += newest[:needed]
    return _oldest(counted)


def _oldest(moments: list[Instant]) -> Instant | None:
    if not moments:
        return None
    oldest = moments[0]
    for moment in moments[1:]:
        oldest = oldest.earlier(moment)
    return oldest


def count_of(tenure: Tenure) -> tuple[int, int]:
    """How many promises back the newest extension, and how many it takes, for the set of voters in which it stands worst. For people."""
    since = tenure.promised

    def counts(voters: frozenset[str]) -> int:
        return sum(name in voters and (since is None or asked.boot_ns >= since.boot_ns) for name, asked in tenure.promises)

    found = [(counts(voters), promises_needed(len(voters), k)) for voters, k in voter_sets(tenure)]
    return min(found, key=lambda pair: pair[0] - pair[1])


def with_round(tenure: Tenure, asked: Instant) -> Tenure:
    """The tenure as a round of questions is sent. The holder's own promise counts from here; a lone voter needs no other."""
    return with_promise(replace(tenure, asked=asked), tenure.record.holder, asked)


def with_promise(tenure: Tenure, voter: str, asked: Instant) -> Tenure:
    """The tenure after `voter` promised upon a question SENT at `asked`. Never backwards; nothing after a give-up was sent."""
    if tenure.vacating:
        return tenure
    promises = dict(tenure.promises)
    if voter not in promises or promises[voter].boot_ns < asked.boot_ns:
        promises[voter] = asked
    since, before = extended_from(promises, voter_sets(tenure)), tenure.promised
    if since is None or (before is not None and since.boot_ns < before.boot_ns):
        since = before
    return replace(tenure, promises=tuple(sorted(promises.items())), promised=since)


def question_of(tenure: Tenure, incarnation: str, nonce: str) -> Question:
    """What a round asks."""
    record = tenure.record
    waits_s = (longest_wait_s(record), *(longest_wait_s(a.record) for a in tenure.attempts))
    return Question(record.group, record.epoch, tenure.last_sequence, nonce, record.holder, incarnation, record.nonce, wait_s=max(waits_s))


# ---------------------------------------------------------------------------------------------------- the holder's disk


def charter(record: LeaseRecord) -> tuple[object, ...]:
    """What a restarted agent must know of a record to ask for promises. Renewals that change none of it need no disk."""
    return (record.epoch, record.voters, record.votes_needed, record.terms, record.prior_wait_s, record.paused, record.state)


def kept_with(kept: tuple[LeaseRecord, ...], record: LeaseRecord) -> tuple[LeaseRecord, ...]:
    """The records to keep before `record` is sent: those of its epoch that may be in force, and it."""
    of_epoch = tuple(r for r in kept if r.epoch == record.epoch)
    return of_epoch if any(charter(r) == charter(record) for r in of_epoch) else (*of_epoch, record)


def kept_after(kept: tuple[LeaseRecord, ...], tenure: Tenure) -> tuple[LeaseRecord, ...]:
    """The records to keep once `tenure.record` is confirmed: it and what was sent since. `kept` itself when nothing of weight differs."""
    records: tuple[LeaseRecord, ...] = (tenure.record,)
    for attempt in tenure.attempts:
        records = kept_with(records, attempt.record)
    return kept if [charter(r) for r in kept] == [charter(r) for r in records] else records


def undecided_of(kept: tuple[LeaseRecord, ...], record: LeaseRecord, deadline: Instant) -> tuple[Attempt, ...]:
    """What an earlier life sent after `record` and may yet commit, for one that adopts its `deadline`; each cuts it by its own ttl.

    When it was sent is forgotten: not before the renewal that dates the deadline.
    """
    sent = deadline.after(-record.terms.ttl_s)
    later = (r for r in kept if r.epoch == record.epoch and r.sequence > record.sequence and r.state is LeaseState.HELD)
    return tuple(Attempt(r, sent) for r in later)


def resumed(kept: tuple[LeaseRecord, ...], node: str, deadline: Instant, began: Instant) -> Tenure | None:
    """The tenure that a restarted agent has by its disk and the deadline that the watchdog holds; None: these give it none.

    It knows no index: it may ask for promises, and nothing can be renewed before the lease is read.
    """
    if not kept or any(r.holder != node or r.epoch != kept[0].epoch or r.paused or r.state is not LeaseState.HELD for r in kept):
        return None
    return Tenure(kept[0], 0, "", dated=None, adopted_deadline=deadline, attempts=undecided_of(kept, kept[0], deadline), began=began)
