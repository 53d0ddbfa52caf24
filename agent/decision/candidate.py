"""Who becomes the leader. Pure: every member computes the same order from the same published positions; the lease decides who wins.

Order: timeline, LSN, priority, name. A member that must not be chosen is named with the reason, so that `status` can say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.coordination.lease import LeaseRecord, LeaseState, Position
from agent.decision.engines.base import Engine
from agent.decision.quorum import is_fresh
from agent.decision.view import Candidacy, GroupSpec, MemberView, Replica, ServiceState
from agent.instant import Instant, observer_elapsed_s

GATHERING_S = 0.3
"""How long a choice in `async` waits for the positions of all live members."""
RANK_STEP_S = 0.5
"""How much later each lower rank tries."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order of candidates, and why the others are none."""

    order: tuple[str, ...]
    rejected: Mapping[str, str]


def rank(group: GroupSpec, record: LeaseRecord, members: Mapping[str, MemberView], engine: Engine, now: Instant) -> Ranking:
    """Order those whose final position for this epoch is known. `rejected` names every other configured member.

    Who gave up comes last: its service has just crashed, and it gave up because another member can lead.
    """
    reasons = {name: _objection(name, group, record, members, engine, now) for name in group.members}
    final = {name: reasons[name] or _not_final(members[name], record) for name in group.members}
    best = max([_last_known(record, members), *(_position(members[n]) for n in group.members if not final[n])])
    for name in group.members:
        if not final[name]:
            final[name] = _too_far_behind(_position(members[name]).lsn, best.lsn, group, record)
    gave_up = record.holder if record.state is LeaseState.VACATED else None
    able = (n for n in group.members if not final[n])
    order = sorted(able, key=lambda n: (n == gave_up, _sort_key(n, members[n], group.members[n])))
    return Ranking(tuple(order), {n: reason for n, reason in final.items() if reason})


def prospects(
    group: GroupSpec, record: LeaseRecord, members: Mapping[str, MemberView], replicas: tuple[Replica, ...], engine: Engine, now: Instant
) -> Ranking:
    """Who could take over if the holder went away this moment: like `rank`, before anybody stopped receiving. Never the holder.

    `replicas`: what the leader itself sees of its standbys; empty elsewhere. Their heartbeats may be a second behind its own position.
    """
    flushed = {replica.name: replica.flushed_lsn for replica in replicas}
    end = _last_known(record, members).lsn
    reasons = {
        name: "it is the leader" if name == record.holder else _objection(name, group, record, members, engine, now)
        for name in group.members
    }
    for name in group.members:
        if not reasons[name]:
            reasons[name] = _too_far_behind(max(_position(members[name]).lsn, flushed.get(name, 0)), end, group, record)
    order = sorted((n for n in group.members if not reasons[n]), key=lambda n: _sort_key(n, members[n], group.members[n]))
    return Ranking(tuple(order), {n: reason for n, reason in reasons.items() if reason})


def has_gathered(group: GroupSpec, record: LeaseRecord, members: Mapping[str, MemberView], since: Instant, now: Instant) -> bool:
    """Whether the choice may be made.

    In `sync` any member of the set will do; in `async` all live members have said their final position, or GATHERING_S have gone by.
    """
    if record.sync_set is not None or observer_elapsed_s(since, now) >= GATHERING_S:
        return True
    waiting = (m for n, m in members.items() if n in group.members and n != record.holder and is_fresh(m, group.renew_s, now))
    return all(m.stopped_for_epoch == record.epoch for m in waiting if m.state is ServiceState.STANDBY)


def _objection(name: str, group: GroupSpec, record: LeaseRecord, members: Mapping[str, MemberView], engine: Engine, now: Instant) -> str:
    """Why this member cannot be chosen, whatever the others' positions; empty when it can."""
    candidacy, member = group.members[name], members.get(name)
    if candidacy.nofailover or candidacy.priority == 0:
        return "it is configured never to be chosen"
    if member is None or not is_fresh(member, group.renew_s, now):
        return "its agent is not heard"
    if member.state is not ServiceState.STANDBY:
        return f"its service is {member.state.value}"
    if member.problem:
        return member.problem
    if not _durable_enough(name, record):
        return "it is not in the sync set: an acknowledged write could be missing there"
    return engine.divergence(member, record)


def _durable_enough(name: str, record: LeaseRecord) -> bool:
    """In `sync` only a member of the recorded set, or the last holder itself, has every acknowledged write."""
    return record.sync_set is None or name in record.sync_set or name == record.holder


def _not_final(member: MemberView, record: LeaseRecord) -> str:
    if member.stopped_for_epoch == record.epoch:
        return ""
    return f"its final position for epoch {record.epoch} is not known yet"


def _too_far_behind(lsn: int, best_lsn: int, group: GroupSpec, record: LeaseRecord) -> str:
    """In `async`: whether more could be lost than max_lag. An ancestor's member is judged by its LSN alike."""
    lag_bytes = best_lsn - lsn
    if record.sync_set is not None or lag_bytes <= group.max_lag_bytes:
        return ""
    return f"it is {lag_bytes} bytes behind the last known position; max_lag is {group.max_lag_bytes}"


def _last_known(record: LeaseRecord, members: Mapping[str, MemberView]) -> Position:
    """Where the holder was when it was heard last: at least so much was there to be lost."""
    holder = members.get(record.holder)
    return Position(0, 0) if holder is None else _position(holder)


def _position(member: MemberView) -> Position:
    return member.position or Position(0, 0)


def _sort_key(name: str, member: MemberView, candidacy: Candidacy) -> tuple[int, int, int, str]:
    position = _position(member)
    return (-position.timeline, -position.lsn, -candidacy.priority, name)
