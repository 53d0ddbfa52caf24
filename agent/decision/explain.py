"""What would happen if the leader died this second, and what would block it. Pure, computed every turn."""

from __future__ import annotations

from dataclasses import dataclass

from agent.decision.context import Context
from agent.decision.quorum import is_fresh


@dataclass(frozen=True, slots=True)
class Outlook:
    """`heirs` in their order; `blocking`: each reason why there would be no failover; `rejected`: why a member is no heir."""

    possible: bool
    heirs: tuple[str, ...]
    blocking: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]


def outlook(ctx: Context) -> Outlook:
    """The prospects of a failover, as this node sees them."""
    if ctx.record is None:
        return Outlook(possible=False, heirs=(), blocking=("there is no readable lease",), rejected=())
    heirs = ctx.prospects.order
    blocking = _blocking(ctx, heirs)
    return Outlook(possible=not blocking, heirs=heirs, blocking=blocking, rejected=tuple(sorted(ctx.prospects.rejected.items())))


def _blocking(ctx: Context, heirs: tuple[str, ...]) -> tuple[str, ...]:
    record = ctx.record
    assert record is not None
    voters = [v for v in record.voters if v != record.holder and is_fresh(ctx.view.members.get(v), ctx.group.renew_s, ctx.now)]
    reasons = [
        (ctx.is_blind, "the coordinator does not answer this node"),
        (ctx.view.coordination.went_back, "coordination went back in time: a person has to look"),
        (record.paused, "the group is paused"),
        (not heirs, "no member could take over"),
        (
            len(voters) < record.votes_needed,
            f"only {len(voters)} voters besides the leader are heard; {record.votes_needed} votes are needed",
        ),
    ]
    return tuple(sentence for blocks, sentence in reasons if blocks)
