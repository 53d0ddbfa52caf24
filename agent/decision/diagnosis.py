"""First the situation gets a name; only then does a rule say what follows. Pure. The first line that fits is the name."""

from __future__ import annotations

from collections.abc import Callable

from agent.decision import conditions
from agent.decision.context import Context
from agent.decision.engines.base import Rejoin
from agent.decision.safeguards import switchover_target
from agent.decision.situation import Situation
from agent.decision.view import ServiceState

__all__ = ["Situation", "diagnose"]


def diagnose(ctx: Context) -> Situation:
    """The name of what is the case for this node at this moment."""
    return next(situation for situation, holds in _TABLE if holds(ctx))


def _leads(ctx: Context) -> bool:
    return ctx.tenure is not None


def _is_silent(ctx: Context) -> bool:
    return ctx.is_led_by_other and ctx.lease_silence_s >= ctx.group.terms.ttl_s / 2


def _follows(ctx: Context) -> bool:
    assert ctx.record is not None
    return ctx.state is ServiceState.STANDBY and ctx.rejoin is Rejoin.FOLLOW and ctx.view.service.upstream == ctx.record.holder


_TABLE: tuple[tuple[Situation, Callable[[Context], bool]], ...] = (
    (Situation.LATE, lambda c: c.is_late and c.may_be_writable),
    (Situation.WENT_BACK, lambda c: c.view.coordination.went_back),
    (Situation.STRAY_PRIMARY, conditions.is_stray),
    (Situation.BLIND, lambda c: c.is_blind and c.tenure is None),
    (Situation.CRASHED, lambda c: _leads(c) and c.state in (ServiceState.DOWN, ServiceState.CRASHED)),
    (Situation.HUNG, lambda c: _leads(c) and c.state is ServiceState.HUNG),
    (Situation.UNFENCED, conditions.is_unfenced),
    (Situation.STEPPING_DOWN, lambda c: _leads(c) and c.record is not None and switchover_target(c) is not None),
    (Situation.PROMOTING, lambda c: _leads(c) and c.state is not ServiceState.PRIMARY),
    (Situation.PAUSED, lambda c: c.record is not None and c.record.paused),
    (Situation.WAITING, lambda c: c.sync_wait is not None),
    (Situation.FAILSAFE, conditions.commits_nothing),
    (Situation.LEADING, _leads),
    (Situation.UNREADABLE, lambda c: c.view.lease.exists and c.record is None),
    (Situation.UNFORMED, lambda c: c.never_formed),
    (Situation.KEY_LOST, lambda c: not c.view.lease.exists),
    (Situation.VACANT, lambda c: c.was_given_up),
    (Situation.EXPIRED, lambda c: c.is_expired),
    (Situation.SILENT, _is_silent),
    (Situation.WITNESSING, lambda c: not c.is_member),
    (Situation.FOLLOWING, _follows),
    (Situation.REJOINING, lambda _: True),
)
