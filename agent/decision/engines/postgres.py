"""Postgres: how a member's history relates to the leader's. Pure arithmetic on timelines and LSNs.

Facts: a timeline's children begin at a switch LSN of their parent; a standby may follow a leader on a later timeline only if it has
replayed nothing beyond the switch point. Two promotions can take the same timeline number; pg_rewind then says that no rewind is
required and both keep their rows (tried on 15). So a node that itself promoted to a number that the record gives to somebody else gets a
base copy.
"""

from __future__ import annotations

from agent.coordination.lease import LeaseRecord, Promotion
from agent.decision.engines.base import Rejoin
from agent.decision.view import Branch, MemberView, ServiceState, ServiceView


class PostgresEngine:
    """The engine `postgres`."""

    def rejoin(self, own: ServiceView, leader: MemberView, record: LeaseRecord, node: str) -> Rejoin:
        """FOLLOW when the own history is a beginning of the leader's; COPY when a timeline number was taken twice; else REWIND."""
        if own.system_identifier is not None and leader.system_identifier not in (None, own.system_identifier):
            return Rejoin.WAIT
        if not own.initialised:
            return Rejoin.COPY if leader.state is ServiceState.PRIMARY else Rejoin.WAIT
        if own.position is None or leader.position is None:
            return Rejoin.WAIT
        if _took_a_number_twice(own, record, node) or _is_another_of_its_number(own, leader):
            return Rejoin.COPY if leader.state is ServiceState.PRIMARY else Rejoin.WAIT
        if leader.state is ServiceState.STANDBY:
            behind = own.position.timeline == leader.position.timeline and own.position.lsn <= leader.position.lsn
            return Rejoin.FOLLOW if behind else Rejoin.WAIT
        if leader.state is not ServiceState.PRIMARY:
            return Rejoin.WAIT
        if own.position.timeline == leader.position.timeline:
            return Rejoin.FOLLOW
        switch = next((b.switch_lsn for b in leader.history if b.timeline == own.position.timeline), None)
        return Rejoin.FOLLOW if switch is not None and own.position.lsn <= switch else Rejoin.REWIND

    def divergence(self, member: MemberView, record: LeaseRecord) -> str:
        """A member is a part of the group's history when it is on the newest timeline, or on an ancestor before its end."""
        if record.system_identifier is not None and member.system_identifier != record.system_identifier:
            return f"its system identifier {member.system_identifier} is not the group's {record.system_identifier}"
        if member.position is None:
            return "its position is not known"
        newest = newest_promotion(record)
        if newest is None:
            return ""
        if member.position.timeline == newest.timeline:
            return _of_another_branch(member, newest)
        if _is_unrecorded(member, record, newest):
            return ""
        switch = _end_of(member.position.timeline, record)
        if switch is None:
            return f"timeline {member.position.timeline} is no ancestor of the group's timeline {newest.timeline}"
        if member.position.lsn > switch:
            return f"it went on after timeline {member.position.timeline} ended"
        return ""


def newest_promotion(record: LeaseRecord) -> Promotion | None:
    """The last promotion that the record knows to have happened."""
    return max((p for p in record.promotions if not p.is_reserved), key=lambda p: (p.epoch, p.timeline), default=None)


def _of_another_branch(member: MemberView, newest: Promotion) -> str:
    """A timeline of the group's number that began elsewhere is another one: somebody promoted by hand."""
    if not member.history or member.history[-1] == Branch(newest.parent_timeline, newest.switch_lsn):
        return ""
    return f"its timeline {newest.timeline} began elsewhere than the group's"


def _is_unrecorded(member: MemberView, record: LeaseRecord, newest: Promotion) -> bool:
    """Whether it followed a holder that promoted itself to the number reserved for it and died before it could record that."""
    if member.position is None or not member.history:
        return False
    later = {p.timeline for p in record.promotions if p.is_reserved and (p.epoch, p.timeline) > (newest.epoch, newest.timeline)}
    branch = member.history[-1]
    end = _end_of(branch.timeline, record)
    in_line = branch.timeline == newest.timeline or (end is not None and branch.switch_lsn <= end)
    return member.position.timeline in later and in_line


def _end_of(timeline: int, record: LeaseRecord) -> int | None:
    """Where `timeline` ended in the newest leader's line of ancestors; None when it is no part of that line."""
    by_timeline = {p.timeline: p for p in sorted(record.promotions, key=lambda p: p.epoch) if not p.is_reserved}
    newest = newest_promotion(record)
    seen: set[int] = set()
    end: int | None = None
    while newest is not None and newest.timeline not in seen:
        seen.add(newest.timeline)
        end = newest.switch_lsn if end is None else min(end, newest.switch_lsn)
        if newest.parent_timeline == timeline:
            return end
        newest = by_timeline.get(newest.parent_timeline)
    return None


def _took_a_number_twice(own: ServiceView, record: LeaseRecord, node: str) -> bool:
    """Whether a timeline that this node made by its own promotion is, in the group's record, somebody else's."""
    theirs = {(p.timeline, p.epoch, p.node) for p in record.promotions}
    numbers = {p.timeline for p in record.promotions}
    current = own.position.timeline if own.position is not None else None
    return any(
        timeline == current and timeline in numbers and (timeline, epoch, node) not in theirs for epoch, timeline in own.own_timelines
    )


def _is_another_of_its_number(own: ServiceView, leader: MemberView) -> bool:
    """Whether both are on a timeline of one number that branched off at different places: this one followed a promotion that was lost."""
    if own.position is None or leader.position is None or not own.history or not leader.history:
        return False
    return own.position.timeline == leader.position.timeline and own.history != leader.history
