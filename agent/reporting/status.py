"""The one status document: what the API, the page and the command line show, all from the same value.

Frozen dataclasses of plain values, so that it is JSON and back. `build_group_status` makes a group's part of it from what the core saw and
decided. It never asks anybody and never reads a clock: `now` comes in. None means unknown, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from pydantic import TypeAdapter, ValidationError

from agent.coordination.failsafe_rules import count_of, is_in_force
from agent.coordination.lease import LeaseRecord, LeaseState, Position
from agent.decision.durability import SyncWait
from agent.decision.quorum import counted_votes, is_fresh
from agent.decision.view import FenceLayer, MemberView, RouteState, ServiceState, View
from agent.errors import QuorateError
from agent.instant import Instant, observer_elapsed_s, remaining_s


class StatusUnreadable(QuorateError):
    """The text is no status document that this version can read."""


class Role(StrEnum):
    """What a node is in a group at this moment."""

    LEADER = "leader"
    STANDBY = "standby"
    WITNESS = "witness"


@dataclass(frozen=True, slots=True)
class CoordinationStatus:
    """The coordinator as this node sees it. `answered_age_s`: since its last complete answer; None: never."""

    description: str
    up: bool
    answered_age_s: float | None


@dataclass(frozen=True, slots=True)
class CheckStatus:
    """One check of the catalogue, after rise and fall. `level` and `status` are the words of checks.base."""

    name: str
    kind: str
    level: str
    status: str
    sentence: str
    since_wall_s: float | None
    latency_s: float | None
    last_run_wall_s: float | None


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """One thing that follows the leader, as it is on one node. `rival`: who else answers for it. `sentence`: what went wrong last."""

    name: str
    state: RouteState
    present: bool | None
    rival: str
    sentence: str


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A node of the group. `problem`: why it is not healthy, in one sentence; empty: it is."""

    name: str
    state: ServiceState
    role: Role
    position_text: str | None
    """Timeline and LSN, such as `2/0/3000148`."""
    lag_bytes: int | None
    receiving: bool
    upstream: str | None
    healthy: bool
    problem: str
    heartbeat_age_s: float | None
    routes: tuple[RouteStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class VoteStatus:
    """What a voter says of the leader's service. `counts`: down, of this very epoch, by a voter of the record that is alive."""

    voter: str
    down: bool
    epoch: int
    counts: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class FenceStatus:
    """The fences of this node. `required`: the layers that must stand before it may lead."""

    required: tuple[FenceLayer, ...]
    standing: tuple[FenceLayer, ...]
    watchdog_alive: bool
    armed_epoch: int | None
    refused: str
    kernel_problem: str = ""
    """Why the kernel layer does not stand; empty: it does, or is not wanted."""


@dataclass(frozen=True, slots=True)
class FailsafeStatus:
    """Promises, on both sides. `absence`: why the holder asks for none when nothing commits; empty: it does."""

    absence: str = ""
    active: bool = False
    """The deadline of this node's own lease stands by promises, not by the coordinator."""
    promises: int | None = None
    """Those that carry the own lease; None on all other nodes, and while nobody was asked in this epoch."""
    needed: int | None = None
    promised_epoch: int | None = None
    """The epoch that this node has promised not to take over, nor to vote against; None: it is bound by nothing that it knows of."""
    forgotten: bool = False
    """It lost its state folder: what it may have promised before still counts."""


@dataclass(frozen=True, slots=True)
class SyncWaitStatus:
    """Commits of this node's service wait for standbys that show no life. `left_s`: until the set may shrink."""

    standbys: tuple[str, ...]
    silent_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class IntentStatus:
    """An operator's wish that is still open."""

    identity: str
    kind: str
    node: str | None
    who: str
    why: str
    age_s: float


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """One failover group as this node sees it."""

    name: str
    engine: str
    situation: str
    sentence: str
    """What is done about it, and why."""
    rule: str
    leader: str | None
    epoch: int | None
    lease_remaining_s: float | None
    """What is left of the node's own lease; None on all others: only the holder knows."""
    lease_moved_s: float | None
    """Since this node last saw the lease move."""
    paused: bool
    durability: str
    sync_set: tuple[str, ...] | None
    failover_possible: bool
    blocking: tuple[str, ...]
    members: tuple[MemberStatus, ...]
    votes: tuple[VoteStatus, ...]
    votes_needed: int | None
    fences: FenceStatus
    intents: tuple[IntentStatus, ...]
    failsafe: FailsafeStatus = FailsafeStatus()
    sync_wait: SyncWaitStatus | None = None
    """None: commits wait for nobody in vain, or this node does not lead."""


@dataclass(frozen=True, slots=True)
class StatusDocument:
    """Everything that one node has to say."""

    version: str
    node: str
    wall_s: float
    coordination: CoordinationStatus
    checks: tuple[CheckStatus, ...] = ()
    groups: tuple[GroupStatus, ...] = ()

    def group(self, name: str) -> GroupStatus | None:
        return next((g for g in self.groups if g.name == name), None)


# ------------------------------------------------------------------ JSON


@cache
def _adapter() -> TypeAdapter[StatusDocument]:
    return TypeAdapter(StatusDocument)


def to_json(document: StatusDocument) -> bytes:
    """The document as JSON in one line."""
    return _adapter().dump_json(document)


def from_json(text: bytes | str) -> StatusDocument:
    """The document in JSON text; fields of a newer version are passed over. Raises StatusUnreadable."""
    try:
        return _adapter().validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the whole"
        raise StatusUnreadable(f"this version cannot read the status document: {place}: {first['msg']}") from None


# ------------------------------------------------------------------ building


def position_text(position: Position) -> str:
    """`2/0/3000148`: the timeline, then the LSN as Postgres writes it."""
    return f"{position.timeline}/{position.lsn >> 32:X}/{position.lsn & 0xFFFFFFFF:X}"


def build_group_status(
    view: View, diagnosis_situation: str, sentence: str, rule: str, blocking: tuple[str, ...], now: Instant
) -> GroupStatus:
    """The group's part of the document, from one turn of the core. Pure. `blocking`: each reason why there would be no failover."""
    record = view.lease.record
    sight = view.lease.sight
    return GroupStatus(
        name=view.group.name,
        engine=view.group.engine,
        situation=diagnosis_situation,
        sentence=sentence,
        rule=rule,
        leader=_leader(record),
        epoch=None if record is None else record.epoch,
        lease_remaining_s=lease_remaining_s(view, now),
        lease_moved_s=None if sight is None else max(0.0, observer_elapsed_s(sight.since, now)),
        paused=record is not None and record.paused,
        durability=view.group.durability.value,
        sync_set=None if record is None else record.sync_set,
        failover_possible=not blocking,
        blocking=blocking,
        members=tuple(_member(view, name, now) for name in _nodes(view)),
        votes=_votes(view, now),
        votes_needed=None if record is None else record.votes_needed,
        fences=_fences(view),
        intents=tuple(
            IntentStatus(i.identity, i.kind.value, i.node, i.who, i.why, max(0.0, observer_elapsed_s(i.seen, now))) for i in view.intents
        ),
        failsafe=_failsafe(view, now),
    )


def sync_wait_status(wait: SyncWait | None, now: Instant) -> SyncWaitStatus | None:
    """For whom commits wait, since when and for how long yet."""
    if wait is None:
        return None
    return SyncWaitStatus(wait.standbys, max(0.0, observer_elapsed_s(wait.since, now)), remaining_s(wait.until, now))


def _leader(record: LeaseRecord | None) -> str | None:
    return record.holder if record is not None and record.state is LeaseState.HELD else None


def lease_remaining_s(view: View, now: Instant) -> float | None:
    """What this node may still act for: its own deadline, or the one that the watchdog acknowledged when that is earlier."""
    tenure = view.tenure
    if tenure is None or tenure.deadline is None:
        return None
    left_s = remaining_s(tenure.deadline, now)
    armed = view.fences.armed_deadline
    if FenceLayer.WATCHDOG in view.group.required_fences and armed is not None and view.fences.armed_epoch == tenure.epoch:
        return min(left_s, remaining_s(armed, now))
    return left_s


def _nodes(view: View) -> tuple[str, ...]:
    """Members, then witnesses, each by name."""
    witnesses = (w for w in view.group.witnesses if w not in view.group.members)
    return (*sorted(view.group.members), *sorted(witnesses))


def _member(view: View, name: str, now: Instant) -> MemberStatus:
    seen = view.members.get(name)
    role = _role(view, name)
    problem = _problem(view, seen, role, now)
    return MemberStatus(
        name=name,
        state=ServiceState.UNKNOWN if seen is None else seen.state,
        role=role,
        position_text=None if seen is None or seen.position is None else position_text(seen.position),
        lag_bytes=lag_bytes(view, name) if role is Role.STANDBY else None,
        receiving=seen is not None and seen.receiving,
        upstream=None if seen is None else seen.upstream,
        healthy=not problem,
        problem=problem,
        heartbeat_age_s=None if seen is None else max(0.0, observer_elapsed_s(seen.moved, now)),
        routes=() if seen is None else tuple(RouteStatus(r.name, r.state, r.present, r.rival, r.sentence) for r in seen.routes),
    )


def _role(view: View, name: str) -> Role:
    if name == _leader(view.lease.record):
        return Role.LEADER
    return Role.STANDBY if name in view.group.members else Role.WITNESS


def _problem(view: View, seen: MemberView | None, role: Role, now: Instant) -> str:
    if seen is None:
        return "never heard of"
    if not is_fresh(seen, view.group.renew_s, now):
        return "its agent is not heard"
    if role is Role.WITNESS:
        return ""
    if seen.problem:
        return seen.problem
    if role is Role.LEADER and seen.state is not ServiceState.PRIMARY:
        return f"it holds the lease and its service is {seen.state.value}"
    if role is Role.LEADER:
        return next((route.sentence or f"{route.name} is not raised" for route in seen.routes if route.state is not RouteState.PRESENT), "")
    return _standby_problem(seen, _leader(view.lease.record))


def _standby_problem(seen: MemberView, leader: str | None) -> str:
    if seen.state is ServiceState.PRIMARY:
        return "it takes writes and is not the leader"
    if seen.state is not ServiceState.STANDBY:
        return f"its service is {seen.state.value}"
    held = [route.name for route in seen.routes if route.present]
    if held and leader is not None:
        return f"it has {', '.join(held)} and is not the leader"
    if leader is not None and seen.upstream != leader:
        return f"it does not follow {leader}"
    return "" if seen.receiving or leader is None else f"it receives nothing from {leader}"


def lag_bytes(view: View, name: str) -> int | None:
    """Bytes behind what the leader published last; None where the two cannot be compared: unknown, or another timeline."""
    leader, seen = view.members.get(_leader(view.lease.record) or ""), view.members.get(name)
    if leader is None or leader.position is None or seen is None or seen.position is None:
        return None
    if leader.position.timeline != seen.position.timeline:
        return None
    return max(0, leader.position.lsn - seen.position.lsn)


def _votes(view: View, now: Instant) -> tuple[VoteStatus, ...]:
    record = view.lease.record
    counted: frozenset[str] = frozenset()
    if record is not None:
        counted = frozenset(v.voter for v in counted_votes(record, view.votes, view.members, view.group.renew_s, now))
    return tuple(VoteStatus(v.voter, v.down, v.epoch, v.voter in counted, v.evidence) for _, v in sorted(view.votes.items()))


def _failsafe(view: View, now: Instant) -> FailsafeStatus:
    tenure, promise = view.tenure, view.promise
    counted = None if tenure is None or tenure.asked is None else count_of(tenure)
    bound = promise is not None and is_in_force(promise, view.group.terms, view.lease.record, now)
    return FailsafeStatus(
        absence=view.group.failsafe_absence,
        active=tenure is not None and tenure.is_by_promises,
        promises=None if counted is None else counted[0],
        needed=None if counted is None else counted[1],
        promised_epoch=promise.epoch if promise is not None and bound else None,
        forgotten=promise is not None and bound and promise.epoch is None,
    )


def _fences(view: View) -> FenceStatus:
    fences = view.fences
    return FenceStatus(
        required=tuple(sorted(view.group.required_fences)),
        standing=tuple(sorted(fences.standing)),
        watchdog_alive=fences.watchdog_alive,
        armed_epoch=fences.armed_epoch,
        refused=fences.refused,
        kernel_problem=fences.kernel_problem,
    )
