"""When the same view would lead to another decision by time alone. Pure.

A moment too early costs a turn; a moment too late costs outage. So every bound that a rule compares with the time is listed here, each
as its rule counts it: a holder's time is over by the clock that ran faster, everybody else's by the slower one. A test steps through
time over random views and finds what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from agent.coordination.failsafe_rules import wait_s
from agent.decision.candidate import GATHERING_S
from agent.decision.command import FenceService
from agent.decision.conditions import ASK_AFTER_PERIODS, RECEIVER_PATIENCE_S
from agent.decision.context import BACKOFF_S, BLIND_PERIODS, Context
from agent.decision.intents import INTENT_TIMEOUT_S
from agent.decision.quorum import FRESH_PERIODS
from agent.decision.routes import PROBE_FRESH_S, PROBE_HELD_S, RIVAL_PAUSE_S
from agent.decision.succession import turn_comes_at
from agent.instant import NANOSECONDS, Instant

LONGEST_NS = NANOSECONDS
"""A turn at least this often, whatever happens."""
SLACK_NS = 2
"""Rules compare seconds as floats: a wake-up exactly at a bound could come a nanosecond before it, and the bound would be missed."""

Bound = tuple[Instant | None, float]
"""So many seconds after a moment; None: there is no such moment."""


def wake_up(ctx: Context) -> Instant:
    """The next moment at which to decide again, unless something happens before. Always in the future, by both clocks."""
    held = [min(left) for left in _left_ns(ctx, _holder_bounds(ctx))]
    seen = [max(left) for left in _left_ns(ctx, _observer_bounds(ctx))]
    pause_ns = min([LONGEST_NS, *(left for left in (*held, *seen) if left > 0)])
    return Instant(ctx.now.boot_ns + pause_ns, ctx.now.raw_ns + pause_ns)


def _left_ns(ctx: Context, bounds: Iterator[Bound]) -> Iterator[tuple[int, int]]:
    """What is left until each bound, by either clock."""
    for moment, seconds in bounds:
        if moment is not None:
            length_ns = math.ceil(seconds * NANOSECONDS) + SLACK_NS
            yield moment.boot_ns + length_ns - ctx.now.boot_ns, moment.raw_ns + length_ns - ctx.now.raw_ns


def _holder_bounds(ctx: Context) -> Iterator[Bound]:
    group, tenure = ctx.group, ctx.tenure
    yield ctx.deadline, 0
    yield ctx.deadline, -group.terms.fence_budget_s
    yield ctx.view.fences.armed_deadline, 0
    yield None if tenure is None else tenure.last_sent, group.renew_s
    yield None if tenure is None else tenure.dated, ASK_AFTER_PERIODS * group.renew_s
    yield None if tenure is None else tenure.asked, group.renew_s
    for flight in ctx.view.in_flight:
        yield flight.since if isinstance(flight.command, FenceService) else None, group.terms.fence_budget_s


def _observer_bounds(ctx: Context) -> Iterator[Bound]:
    yield from _lease_bounds(ctx)
    yield from _witness_bounds(ctx)
    yield from _service_bounds(ctx)
    yield from _route_bounds(ctx)
    for outcome in ctx.view.outcomes.values():
        yield ctx.retry_at(type(outcome.command)), 0
        yield outcome.ended, BACKOFF_S
    for intent in ctx.view.intents:
        yield intent.seen, INTENT_TIMEOUT_S


def _lease_bounds(ctx: Context) -> Iterator[Bound]:
    sight, terms, tenure = ctx.view.lease.sight, ctx.group.terms, ctx.tenure
    if sight is not None:
        yield sight.since, terms.ttl_s / 2
        yield sight.since, max(sight.wait_s, terms.takeover_wait_s)
    if ctx.view.promise is not None:
        yield ctx.view.promise.since, wait_s(ctx.view.promise, terms, ctx.record)
    yield turn_comes_at(ctx), 0
    yield ctx.vacancy_began, GATHERING_S
    if tenure is not None and tenure.record.debt is not None:
        yield tenure.began, tenure.record.debt.wait_s


def _witness_bounds(ctx: Context) -> Iterator[Bound]:
    """How long what was seen and heard counts."""
    seen, renew_s = ctx.view.observation, ctx.group.renew_s
    yield ctx.view.coordination.answered, BLIND_PERIODS * renew_s
    for member in ctx.view.members.values():
        yield member.moved, FRESH_PERIODS * renew_s
    if seen is not None:
        yield seen.asked, FRESH_PERIODS * renew_s
        yield seen.since, ctx.group.patience_s


def _service_bounds(ctx: Context) -> Iterator[Bound]:
    follow, since = ctx.view.outcomes.get("FollowLeader"), ctx.view.service.since
    yield None if follow is None else follow.ended, RECEIVER_PATIENCE_S
    yield since, ctx.group.terms.ttl_s
    yield since, ctx.group.patience_s
    yield ctx.memory.unwritable_since, ctx.group.restart_timeout_s


def _route_bounds(ctx: Context) -> Iterator[Bound]:
    proof, budget_s = ctx.view.outcomes.get(FenceService.__name__), ctx.group.terms.fence_budget_s
    yield None if proof is None else proof.ended, budget_s
    for route in ctx.view.routes:
        for seconds in (PROBE_FRESH_S, PROBE_HELD_S, RIVAL_PAUSE_S):
            yield route.asked, seconds
