"""When the same view would lead to another decision by time alone. Pure.

A moment too early costs a turn; a moment too late costs outage. So every bound that a rule compares with the time is listed here.
"""

from __future__ import annotations

from agent.coordination.lease import Terms
from agent.decision.command import Command
from agent.decision.conditions import RECEIVER_PATIENCE_S
from agent.decision.context import Context
from agent.decision.safeguards import debt_is_over
from agent.decision.succession import turn_comes_at
from agent.instant import Instant, observer_elapsed_s

LONGEST_S = 1.0
"""A turn at least this often, whatever happens."""


def wake_up(ctx: Context) -> Instant:
    """The next moment at which to decide again, unless something happens before."""
    latest = ctx.now.after(LONGEST_S)
    coming = [moment for moment in _moments(ctx) if moment is not None and observer_elapsed_s(moment, ctx.now) < 0]
    for moment in coming:
        latest = latest.earlier(moment)
    return latest


def _moments(ctx: Context) -> list[Instant | None]:
    return [*_lease_moments(ctx), *_retry_moments(ctx), *_service_moments(ctx)]


def _lease_moments(ctx: Context) -> list[Instant | None]:
    sight, terms = ctx.view.lease.sight, ctx.group.terms
    moments: list[Instant | None] = [ctx.deadline, turn_comes_at(ctx)]
    if ctx.tenure is not None and ctx.tenure.last_sent is not None:
        moments.append(ctx.tenure.last_sent.after(ctx.group.renew_s))
    if ctx.tenure is not None and ctx.tenure.began is not None and not debt_is_over(ctx) and ctx.tenure.record.debt is not None:
        moments.append(ctx.tenure.began.after(ctx.tenure.record.debt.wait_s))
    if sight is not None and ctx.tenure is None:
        moments += [sight.since.after(terms.ttl_s / 2), sight.since.after(_longest_wait_s(sight.wait_s, terms))]
    return moments


def _longest_wait_s(seen_s: float, own: Terms) -> float:
    return max(seen_s, own.takeover_wait_s)


def _retry_moments(ctx: Context) -> list[Instant | None]:
    kinds: set[type[Command]] = {type(o.command) for o in ctx.view.outcomes.values()}
    return [ctx.retry_at(kind) for kind in kinds]


def _service_moments(ctx: Context) -> list[Instant | None]:
    follow, missing = ctx.view.outcomes.get("FollowLeader"), ctx.memory.sync_missing_since
    since = ctx.view.service.since
    return [
        None if follow is None else follow.ended.after(RECEIVER_PATIENCE_S),
        None if missing is None else missing.after(ctx.group.sync_timeout_s),
        None if since is None else since.after(ctx.group.terms.ttl_s),
        None if since is None else since.after(ctx.group.patience_s),
        None if ctx.memory.situation_since is None else ctx.memory.situation_since.after(ctx.group.restart_timeout_s),
    ]
