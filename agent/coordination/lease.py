"""The lease: its record, its time limits and its transactions, all as values. Pure: no clock, no network, no randomness.

Theory (design.md, "The lease"). A holder's time runs from the moment its renewal was SENT; everybody else's from the moment the change
was SEEN. Sent <= committed <= seen, so with clocks whose RATES differ by at most RATE_ERROR the holder has stopped before anyone else
may start. Nothing here compares two machines' clocks.

House rules: whatever touches the record's meaning is in this file; it does not know Postgres; it never reads a clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import cast

from agent.coordination.coordinator import Entry, Operation, Transaction, Verb
from agent.instant import Instant, observer_elapsed_s

RATE_ERROR = 0.01
"""The largest error of a clock's rate that safety is promised for."""

RECORD_VERSION = 1
RESERVED = 0
"""The switch LSN of a promotion that is not known to have happened; no timeline ends at 0."""
MAX_SECONDS = 1e6
"""The longest time that a record may name; anything else is no record."""


class LeaseState(StrEnum):
    """What the record says of its holder."""

    HELD = "held"
    VACATED = "vacated"
    """Given up on purpose, after its service was fenced. The only proof that needs no clock."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The time limits that one renewal carries. `ttl_s`: how long it lasts for its holder; `fence_budget_s`: how long fencing may take."""

    ttl_s: float
    fence_budget_s: float

    @property
    def takeover_wait_s(self) -> float:
        """How long everybody else waits after the last change they saw. One function for expiry, promises and forced waits alike."""
        return (self.ttl_s + self.fence_budget_s) * (1 + RATE_ERROR) / (1 - RATE_ERROR)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the service's history: for Postgres a timeline and the greater of flushed-received and replayed LSN (bytes)."""

    timeline: int
    lsn: int


@dataclass(frozen=True, slots=True)
class Promotion:
    """One promotion: in which epoch, by whom, to which timeline, branching where from which parent.

    The number is reserved in the record before it is used (`switch_lsn` is RESERVED), so that no two promotions ever share one.
    """

    epoch: int
    node: str
    timeline: int
    parent_timeline: int
    switch_lsn: int

    @property
    def is_reserved(self) -> bool:
        """Whether it is not known to have happened."""
        return self.switch_lsn == RESERVED


@dataclass(frozen=True, slots=True)
class Debt:
    """A predecessor not yet proven over: its epoch, its name and the longest wait that any of its terms asks for."""

    epoch: int
    node: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """The value of the lease key. What belongs together changes in one compare-and-set."""

    group: str
    holder: str
    incarnation: str
    """Names one life of one agent (boot id and start), so that a clone or a second agent is seen."""
    epoch: int
    sequence: int
    nonce: str
    """Names the attempt that wrote this record: the attempt's SENT time dates the lease."""
    terms: Terms
    state: LeaseState
    voters: tuple[str, ...]
    votes_needed: int
    sync_set: tuple[str, ...] | None = None
    """Members that ALL must acknowledge a commit (`sync`); empty: only the holder is eligible; None: durability is async."""
    promotions: tuple[Promotion, ...] = ()
    paused: bool = False
    heir: str | None = None
    """For a switchover: only this member may take the vacated lease for takeover_wait."""
    final_position: Position | None = None
    """Where the service ended when it was shut down cleanly; what an heir must have replayed."""
    debt: Debt | None = None
    system_identifier: str | None = None
    prior_wait_s: float = 0.0
    """After the terms became shorter: the takeover_wait of the longer ones, while the holder's watchdog may still be armed by them."""
    cause: str = ""
    """Why this epoch began or ended, for people and history: one sentence."""
    protocol: int = RECORD_VERSION

    @property
    def is_vacant(self) -> bool:
        """Free to take without a clock. Not unlocked, not absent, not unreadable: only this."""
        return self.state is LeaseState.VACATED and self.debt is None


class UnreadableRecord(ValueError):
    """The lease key holds something that is no record. It counts as a change, never as a vacancy."""


def encode_record(record: LeaseRecord) -> bytes:
    """The record as JSON."""
    value = {
        "protocol": record.protocol,
        "group": record.group,
        "holder": record.holder,
        "incarnation": record.incarnation,
        "epoch": record.epoch,
        "sequence": record.sequence,
        "nonce": record.nonce,
        "ttl_s": record.terms.ttl_s,
        "fence_budget_s": record.terms.fence_budget_s,
        "state": record.state.value,
        "voters": list(record.voters),
        "votes_needed": record.votes_needed,
        "sync_set": None if record.sync_set is None else list(record.sync_set),
        "promotions": [[p.epoch, p.node, p.timeline, p.parent_timeline, p.switch_lsn] for p in record.promotions],
        "paused": record.paused,
        "heir": record.heir,
        "final_position": None if record.final_position is None else [record.final_position.timeline, record.final_position.lsn],
        "debt": None if record.debt is None else [record.debt.epoch, record.debt.node, record.debt.wait_s],
        "system_identifier": record.system_identifier,
        "prior_wait_s": record.prior_wait_s,
        "cause": record.cause,
    }
    return json.dumps(value, separators=(",", ":")).encode()


def decode_record(value: bytes) -> LeaseRecord:
    """The record in a stored value. Raises `UnreadableRecord`."""
    try:
        raw = cast("dict[str, object]", json.loads(value))
        if raw["protocol"] != RECORD_VERSION:
            raise UnreadableRecord(f"the lease record has protocol {raw['protocol']!r}; this agent speaks {RECORD_VERSION}")
        return _record_of(raw)
    except UnreadableRecord:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnreadableRecord(f"the lease key holds no record: {error!r}") from error


def _record_of(raw: dict[str, object]) -> LeaseRecord:
    sync_set, final, debt = raw["sync_set"], raw["final_position"], raw["debt"]
    return LeaseRecord(
        group=_text(raw["group"]),
        holder=_text(raw["holder"]),
        incarnation=_text(raw["incarnation"]),
        epoch=_whole(raw["epoch"]),
        sequence=_whole(raw["sequence"]),
        nonce=_text(raw["nonce"]),
        terms=Terms(_seconds(raw["ttl_s"]), _seconds(raw["fence_budget_s"])),
        state=LeaseState(_text(raw["state"])),
        voters=tuple(_text(v) for v in _list(raw["voters"])),
        votes_needed=_whole(raw["votes_needed"]),
        sync_set=None if sync_set is None else tuple(_text(v) for v in _list(sync_set)),
        promotions=tuple(_promotion_of(_list(p)) for p in _list(raw["promotions"])),
        paused=_flag(raw["paused"]),
        heir=None if raw["heir"] is None else _text(raw["heir"]),
        final_position=None if final is None else _position_of(_list(final)),
        debt=None if debt is None else _debt_of(_list(debt)),
        system_identifier=None if raw["system_identifier"] is None else _text(raw["system_identifier"]),
        prior_wait_s=_seconds(raw["prior_wait_s"]),
        cause=_text(raw["cause"]),
    )


def _promotion_of(raw: list[object]) -> Promotion:
    epoch, node, timeline, parent, switch_lsn = raw
    return Promotion(_whole(epoch), _text(node), _whole(timeline), _whole(parent), _whole(switch_lsn))


def _position_of(raw: list[object]) -> Position:
    timeline, lsn = raw
    return Position(_whole(timeline), _whole(lsn))


def _debt_of(raw: list[object]) -> Debt:
    epoch, node, wait_s = raw
    return Debt(_whole(epoch), _text(node), _seconds(wait_s))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    if not 0 <= value <= MAX_SECONDS:  # also refuses NaN, with which nothing would ever expire
        raise ValueError(f"{value!r} is no length of time")
    return float(value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value


# ---------------------------------------------------------------------------------------------------- keys


def group_folder(group: str) -> str:
    """The folder that holds everything of one group."""
    return f"{group}/"


def lease_key(group: str) -> str:
    """The one key whose lock and record say who may be primary."""
    return f"{group}/lease"


def vote_key(group: str, node: str) -> str:
    """What this voter says of the service; written only when the vote changes."""
    return f"{group}/votes/{node}"


def member_key(group: str, node: str) -> str:
    """This node's heartbeat and facts."""
    return f"{group}/members/{node}"


def formation_key(group: str, node: str) -> str:
    """This member's word, before the first lease: not writable, and it promises to stay so without a lease."""
    return f"{group}/formation/{node}"


def receipt_key(group: str, node: str) -> str:
    """The `fenced` receipt of a holder that was forced out."""
    return f"{group}/receipts/{node}"


def intent_key(group: str, identity: str) -> str:
    """One operator's intent."""
    return f"{group}/intents/{identity}"


def history_key(group: str, epoch: int) -> str:
    """How one epoch began and ended, for people. Beside the group's folder, which every turn reads; no group's name begins with `_`."""
    return f"_history/{group}/{epoch:010d}"


# ---------------------------------------------------------------------------------------------------- the holder's side


@dataclass(frozen=True, slots=True)
class Attempt:
    """A lease write that was sent and is not yet known to have failed."""

    record: LeaseRecord
    sent: Instant


@dataclass(frozen=True, slots=True)
class Tenure:
    """What a node knows of its own lease: the last write known to have committed, what may yet commit, and how long it may act.

    `dated` is when the confirmed attempt was SENT; None for a lease adopted after a restart, whose only truth is `adopted_deadline`.
    """

    record: LeaseRecord
    index: int
    session: str
    dated: Instant | None
    adopted_deadline: Instant | None = None
    attempts: tuple[Attempt, ...] = ()
    began: Instant | None = None
    """When the answer arrived that this epoch is ours: a predecessor's debt is waited for from here."""
    promises: tuple[tuple[str, Instant], ...] = ()
    """Voters that promised in this epoch, each with when the newest question that it answered was SENT (failsafe_rules)."""
    promised: Instant | None = None
    """From when promises of every voter set date the lease, as a renewal's SENT does; None: there are too few."""
    asked: Instant | None = None
    """When the newest round of questions was sent."""

    @property
    def epoch(self) -> int:
        return self.record.epoch

    @property
    def deadline(self) -> Instant | None:
        """Until when the holder may act: by its renewal or by promises. A shorter ttl cuts both when it is SENT; None: not at all yet."""
        ttl_s = min([self.record.terms.ttl_s, *(a.record.terms.ttl_s for a in self.attempts)])
        committed = self._adopted_cut() if self.dated is None else self.dated.after(ttl_s)
        if self.promised is None:
            return committed
        promised = self.promised.after(ttl_s)
        return promised if committed is None or committed.boot_ns < promised.boot_ns else committed

    @property
    def is_by_promises(self) -> bool:
        """Whether promises carry it farther than the last renewal that is known to have committed."""
        return self.promised is not None and (self.dated is None or self.dated.boot_ns < self.promised.boot_ns)

    def _adopted_cut(self) -> Instant | None:
        """What is left of an adopted deadline: when its renewal was sent is unknown, but what was sent since binds from its own sending."""
        deadline = self.adopted_deadline
        for attempt in self.attempts:
            deadline = None if deadline is None else deadline.earlier(attempt.sent.after(attempt.record.terms.ttl_s))
        return deadline

    @property
    def last_sequence(self) -> int:
        """The highest sequence that is confirmed or was sent."""
        return max([self.record.sequence, *(a.record.sequence for a in self.attempts)])

    @property
    def last_sent(self) -> Instant | None:
        """When the newest attempt was sent."""
        return self.attempts[-1].sent if self.attempts else self.dated

    @property
    def vacating(self) -> bool:
        """A give-up was sent and may commit: the service stays down in this epoch until a later renewal has committed."""
        return self.record.state is LeaseState.VACATED or any(a.record.state is LeaseState.VACATED for a in self.attempts)


MAX_ATTEMPTS = 64
"""Undecided attempts that a tenure remembers. Beyond it the holder sends nothing new until it has read back."""


def with_attempt(tenure: Tenure, attempt: Attempt) -> Tenure:
    """The tenure after `attempt` was sent. Call it BEFORE the request leaves."""
    if len(tenure.attempts) >= MAX_ATTEMPTS:
        raise ValueError("too many undecided attempts: read back first")
    if attempt.record.state is LeaseState.VACATED:
        tenure = replace(tenure, promises=(), promised=None)
    return replace(tenure, attempts=(*tenure.attempts, attempt))


def settle(tenure: Tenure, record: LeaseRecord, index: int) -> Tenure | None:
    """The tenure after the record in the coordinator was read with certainty; None when it is no longer ours.

    The lease is dated by the attempt that the record names. Attempts up to it are decided; later ones may yet commit only if they were
    built on this very record, so they stay. (An error reply is no proof of failure.)
    """
    if record.holder != tenure.record.holder or record.epoch != tenure.epoch:
        return None
    if record.nonce == tenure.record.nonce:
        return replace(tenure, index=index)
    named = next((i for i, a in enumerate(tenure.attempts) if a.record.nonce == record.nonce), None)
    if named is None:
        return None
    attempt = tenure.attempts[named]
    return replace(tenure, record=record, index=index, dated=attempt.sent, adopted_deadline=None, attempts=tenure.attempts[named + 1 :])


def without_attempt(tenure: Tenure, nonce: str) -> Tenure:
    """The tenure after the coordinator REFUSED this attempt for certain: nothing was done by it."""
    return replace(tenure, attempts=tuple(a for a in tenure.attempts if a.record.nonce != nonce))


# ---------------------------------------------------------------------------------------------------- everybody else's side


@dataclass(frozen=True, slots=True)
class Sight:
    """What an observer knows of the lease's liveness: the last (epoch, sequence) and when that change was SEEN."""

    epoch: int
    sequence: int
    index: int
    since: Instant
    record_wait_s: float
    """The takeover_wait that this record asks for."""
    wait_s: float
    """The longest takeover_wait of this record and the one before it: its writer may not know yet which of the two holds."""
    nonce: str = ""
    """Names the write that was seen."""


def look(sight: Sight | None, record: LeaseRecord, index: int, seen: Instant, after_gap: bool) -> Sight:
    """The sight after reading `record` at `seen` (the arrival of the answer).

    Time starts anew on a change, on the first sight, when the index went back, and after a gap in reading in which the holder wrote. Its
    nonce names each of its writes: the same one means that it has not renewed, however long nobody looked. So an election of the
    coordinator costs its own time, and not the whole wait once more.
    """
    wait_s = max(record.terms.takeover_wait_s, record.prior_wait_s)
    if sight is None:
        return Sight(record.epoch, record.sequence, index, seen, wait_s, wait_s, record.nonce)
    if (record.epoch, record.sequence) == (sight.epoch, sight.sequence) and index >= sight.index:
        # a higher index alone is no life of the holder: its session ended and the lock fell off
        return replace(sight, index=index, since=seen if after_gap and record.nonce != sight.nonce else sight.since, nonce=record.nonce)
    return Sight(record.epoch, record.sequence, index, seen, wait_s, max(wait_s, sight.record_wait_s), record.nonce)


def is_expired(sight: Sight, own: Terms, now: Instant) -> bool:
    """Whether the holder must have stopped: unchanged for the largest takeover_wait that anybody may count, by both clocks."""
    return observer_elapsed_s(sight.since, now) >= max(sight.wait_s, own.takeover_wait_s)


# ---------------------------------------------------------------------------------------------------- transactions


@dataclass(frozen=True, slots=True)
class CountedVote:
    """A vote that a takeover counts: whose, and the index under which it was read. The coordinator itself checks it again."""

    voter: str
    index: int


def formation(record: LeaseRecord, session: str, words: tuple[CountedVote, ...]) -> Transaction:
    """The first lease of a group: only if there is none, and only while every member's word stands unchanged."""
    checks = tuple(Operation(Verb.CHECK_INDEX, formation_key(record.group, w.voter), index=w.index) for w in words)
    return (Operation(Verb.CHECK_NOT_EXISTS, lease_key(record.group)), *checks, _lock(record, session))


def renewal(record: LeaseRecord, session: str, index: int) -> Transaction:
    """Renew, or change the record: only by the session that locks the key and only over what it wrote last."""
    key = lease_key(record.group)
    return (
        Operation(Verb.CHECK_SESSION, key, session=session),
        Operation(Verb.CAS, key, index=index, value=encode_record(record)),
    )


def relock(record: LeaseRecord, session: str, entry: Entry) -> Transaction:
    """The holder's own renewal under a new session, because the old one ended: only over the very record it wrote last."""
    return (*_release(record.group, entry), _lock(record, session))


def vacating(record: LeaseRecord, session: str, index: int) -> Transaction:
    """Give up: write `vacated` and unlock in one step, only over what this session wrote last."""
    key = lease_key(record.group)
    return (
        Operation(Verb.CHECK_INDEX, key, index=index),
        Operation(Verb.CHECK_SESSION, key, session=session),
        Operation(Verb.UNLOCK, key, session=session, value=encode_record(record)),
    )


def takeover(record: LeaseRecord, session: str, entry: Entry, votes: tuple[CountedVote, ...]) -> Transaction:
    """Take the lease as last seen, with the votes counted. A late renewal, a withdrawn vote or a second challenger makes it fail."""
    checks = tuple(Operation(Verb.CHECK_INDEX, vote_key(record.group, v.voter), index=v.index) for v in votes)
    return (*checks, *_release(record.group, entry), _lock(record, session))


def _release(group: str, entry: Entry) -> Transaction:
    key = lease_key(group)
    check = Operation(Verb.CHECK_INDEX, key, index=entry.index)
    if entry.session is None:
        return (check,)
    return (check, Operation(Verb.UNLOCK, key, session=entry.session))


def _lock(record: LeaseRecord, session: str) -> Operation:
    return Operation(Verb.LOCK, lease_key(record.group), session=session, value=encode_record(record))
