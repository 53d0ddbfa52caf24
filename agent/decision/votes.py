"""What this node's vote should say. Pure. The holder never votes in its own epoch: it gives up."""

from __future__ import annotations

from agent.decision.context import Context
from agent.decision.quorum import FRESH_PERIODS
from agent.decision.view import Observation, VoteView
from agent.instant import observer_elapsed_s


def own_vote(ctx: Context) -> VoteView | None:
    """The own vote as stored, whatever epoch it speaks of."""
    return ctx.view.votes.get(ctx.view.node)


def _sees_down(ctx: Context) -> Observation | None:
    """A fresh look of this node's own at the holder's service that found it unusable; None: it is usable, or nobody can tell."""
    seen = ctx.view.observation
    if seen is None or seen.writable is not False or ctx.record is None or seen.node != ctx.record.holder:
        return None
    return seen if observer_elapsed_s(seen.asked, ctx.now) <= FRESH_PERIODS * ctx.group.renew_s else None


def _calls_down(ctx: Context) -> bool:
    """It is seen down, and either its lease has stood still for ttl/2 or the sight has lasted for `patience`."""
    seen = _sees_down(ctx)
    if seen is None:
        return False
    return ctx.lease_silence_s >= ctx.group.terms.ttl_s / 2 or observer_elapsed_s(seen.since, ctx.now) >= ctx.group.patience_s


def _says_down(ctx: Context) -> bool:
    vote = own_vote(ctx)
    return vote is not None and ctx.record is not None and vote.epoch == ctx.record.epoch and vote.down


def _may_vote(ctx: Context) -> bool:
    return ctx.is_led_by_other and not ctx.is_blind and not ctx.view.coordination.went_back and ctx.view.node in ctx.group.voters


def may_call_down(ctx: Context) -> bool:
    """Whether to send `down` now: written only when the vote changes, and never against an own promise in force."""
    return _may_vote(ctx) and _calls_down(ctx) and not _says_down(ctx) and not ctx.is_promised_to_holder


def wants_withdrawal(ctx: Context) -> bool:
    """Whether to take `down` back: the service is usable again, or its lease moves again and patience has not run out.

    Also when the key does not say it, but a vote that was sent may yet commit: the write that commits makes that one fail.
    """
    return _may_vote(ctx) and (_says_down(ctx) or ctx.view.vote_is_uncertain) and not _calls_down(ctx)
