"""Is it really down? The arithmetic of observers' votes. Pure; safety never rests on it alone."""

from __future__ import annotations

from collections.abc import Mapping

from agent.coordination.lease import CountedVote, LeaseRecord
from agent.decision.view import MemberView, VoteView
from agent.instant import Instant, observer_elapsed_s

FRESH_PERIODS = 3
"""A voter counts while its heartbeat moved within this many renew periods of the reader's clock."""


def votes_needed(voters: int) -> int:
    """k: a majority of the voters; one of two (with two a majority would need the dead one's vote)."""
    return 1 if voters <= 2 else voters // 2 + 1


def is_fresh(member: MemberView | None, renew_s: float, now: Instant) -> bool:
    """Whether this node's heartbeat moved lately. Nothing is concluded from a stale one, neither up nor down."""
    return member is not None and observer_elapsed_s(member.moved, now) <= FRESH_PERIODS * renew_s


def counted_votes(
    record: LeaseRecord, votes: Mapping[str, VoteView], members: Mapping[str, MemberView], renew_s: float, now: Instant
) -> tuple[CountedVote, ...]:
    """The votes `down` that speak of this very epoch, by voters of the record that are alive. Sorted by name."""
    return tuple(
        CountedVote(voter, votes[voter].index)
        for voter in sorted(record.voters)
        if voter in votes and votes[voter].down and votes[voter].epoch == record.epoch and is_fresh(members.get(voter), renew_s, now)
    )
