"""What must hold before anything irreversible. Each safeguard answers with the reasons that forbid; an empty answer permits. Pure."""

from __future__ import annotations

from agent.coordination.lease import LeaseState
from agent.decision.context import Context
from agent.decision.view import FenceLayer, Intent, IntentKind, OnCrash, ServiceState
from agent.instant import observer_elapsed_s, remaining_s

MAX_FAILED_PROMOTIONS = 3
"""After so many failed promotions in a row the holder lets somebody else try."""


def forbids_promotion(ctx: Context) -> tuple[str, ...]:
    """Why the local service must not become writable now. The lease, its time, the fences, the service's own state: all must fit."""
    tenure = ctx.tenure
    if tenure is None:
        return ("this node does not hold the lease",)
    reasons = [
        (not ctx.is_live, "the lease's time is over"),
        (tenure.dated is None, "the lease was adopted after a restart and not yet renewed"),
        (tenure.vacating, "a give-up of this epoch was sent and may yet commit"),
        (tenure.record.state is not LeaseState.HELD, "the lease was given up"),
        (ctx.view.coordination.went_back, "coordination went back in time"),
        (tenure.record.paused or (ctx.record is not None and ctx.record.paused), "the group is paused"),
        (ctx.view.highest_epoch > tenure.epoch, "a higher epoch was seen"),
        (reserved_timeline(ctx) is None, "the record reserves no timeline number for it"),
        (not debt_is_over(ctx), "elected is not allowed: a predecessor is not yet proven over"),
        (ctx.is_promised_to_predecessor, "this node promised a predecessor to wait, and that is not over yet"),
        (bool(missing_before_promotion(ctx)), f"fences are missing: {', '.join(missing_before_promotion(ctx))}"),
        (not ctx.is_armed, f"the watchdog is not armed for epoch {tenure.epoch} {ctx.view.fences.refused}".strip()),
        (not ctx.is_port_leased, f"the port is not leased to the kernel for epoch {tenure.epoch} {ctx.view.fences.kernel_problem}".strip()),
        (ctx.state is not ServiceState.STANDBY, f"the service is {ctx.state.value}"),
        (ctx.view.service.receiving or ctx.view.service.upstream is not None, "the service still receives from an older epoch"),
        (ctx.is_live and remaining_left_s(ctx) <= ctx.group.terms.fence_budget_s, "too little of the lease is left: renew first"),
    ]
    return tuple(sentence for forbidden, sentence in reasons if forbidden)


def reserved_timeline(ctx: Context) -> int | None:
    """The timeline number that the confirmed record keeps for this node's next promotion; None: none, or it is used up.

    A holder can die between its promotion and the renewal that records it. Without a reservation its successor would take the same number
    again, perhaps at the same LSN, and nobody could tell the two histories apart.
    """
    tenure, position = ctx.tenure, ctx.view.service.position
    if tenure is None or position is None:
        return None
    own = (p.timeline for p in tenure.record.promotions if p.is_reserved and (p.epoch, p.node) == (tenure.epoch, ctx.view.node))
    return next((timeline for timeline in own if timeline > position.timeline), None)


def missing_before_promotion(ctx: Context) -> tuple[str, ...]:
    """Required layers that do not stand, but for the seal: that one is set by the promotion itself."""
    return tuple(layer for layer in ctx.missing_fences if layer != FenceLayer.SEAL.value)


def remaining_left_s(ctx: Context) -> float:
    """Seconds left of the own lease; 0 without one."""
    return 0.0 if ctx.deadline is None else remaining_s(ctx.deadline, ctx.now)


def debt_is_over(ctx: Context) -> bool:
    """A predecessor that was not proven over is waited for, from the moment this node saw its own takeover committed."""
    tenure = ctx.tenure
    if tenure is None or tenure.record.debt is None:
        return tenure is not None
    return tenure.began is not None and observer_elapsed_s(tenure.began, ctx.now) >= tenure.record.debt.wait_s


def forbids_takeover(ctx: Context) -> tuple[str, ...]:
    """Why this node must not send a takeover over the record it sees."""
    record = ctx.record
    if record is None:
        return ("there is no readable lease",)
    reasons = [
        (ctx.is_blind, "the coordinator does not answer"),
        (ctx.view.coordination.went_back, "coordination went back in time"),
        (ctx.view.coordination.lags, "the reading is older than this node's own last write"),
        (ctx.is_live, "this node holds the lease"),
        (ctx.view.coordination.session is None, "this node has no session"),
        (record.paused and not _resumes_own(ctx), "the group is paused"),
        (ctx.is_promised_to_holder and not ctx.is_holder_by_record, "this node promised the holder not to, and that is not over yet"),
        (ctx.may_be_writable, f"the local service is {ctx.state.value}"),
        (bool(missing_before_promotion(ctx)), f"fences are missing: {', '.join(missing_before_promotion(ctx))}"),
    ]
    return tuple(sentence for forbidden, sentence in reasons if forbidden)


def _resumes_own(ctx: Context) -> bool:
    """An operator resumes and this node is the paused holder that forgot its tenure: nobody else can ever end that pause."""
    wish = ctx.pause_intent
    return ctx.is_holder_by_record and wish is not None and wish.kind is IntentKind.RESUME


def switchover_target(ctx: Context) -> tuple[Intent, str] | None:
    """The pending switchover of this epoch and the member that shall lead; None when there is none or nobody can."""
    intent = ctx.intent(IntentKind.SWITCHOVER)
    if intent is None or ctx.record is None or intent.epoch != ctx.record.epoch or ctx.record.paused:
        return None
    order = ctx.prospects.order
    if intent.node is not None:
        return (intent, intent.node) if intent.node in order else None
    return (intent, order[0]) if order else None


def gives_up(ctx: Context) -> str:
    """Why this holder, whose service is proven down, should let another member lead; empty: it should not."""
    if ctx.tenure is None or ctx.record is None or ctx.record.paused or ctx.state is not ServiceState.DOWN or not ctx.fenced_since_crash:
        return ""
    if ctx.tenure.is_by_promises and not ctx.is_late:
        return ""  # nothing commits: a give-up that hangs would only keep the service down here, too
    if switchover_target(ctx) is not None:
        return "switchover"
    if not ctx.prospects.order:
        return ""
    if ctx.is_late:
        return "its lease ran out"
    return cannot_lead(ctx) or ("its service crashed" if ctx.group.on_crash is OnCrash.FAILOVER and has_led(ctx) else "")


def has_led(ctx: Context) -> bool:
    """Whether the service took writes in this very epoch. One that did not yet was never well here: it is started, not handed on.

    (A holder that was fenced and took its own unchanged lease back has everything that was ever acknowledged; another member may not.)
    """
    tenure = ctx.tenure
    if tenure is None or ctx.memory.led_epoch == tenure.epoch:
        return tenure is not None
    return any(p.epoch == tenure.epoch and not p.is_reserved for p in tenure.record.promotions)


def cannot_lead(ctx: Context) -> str:
    """Why this holder's service does not become writable, so that another member had better try; empty: it may yet."""
    if promotion_keeps_failing(ctx):
        return "its promotion keeps failing"
    if missing_before_promotion(ctx):
        return f"its fences are missing: {', '.join(missing_before_promotion(ctx))}"
    if took_no_writes_for_too_long(ctx):
        return f"its service took no writes for {ctx.group.restart_timeout_s:g} s"
    return ""


def took_no_writes_for_too_long(ctx: Context) -> bool:
    """Whether the holder's service has taken no writes for restart_timeout; waiting for a predecessor's debt does not count."""
    since = ctx.memory.unwritable_since
    return since is not None and debt_is_over(ctx) and observer_elapsed_s(since, ctx.now) >= ctx.group.restart_timeout_s


def promotion_keeps_failing(ctx: Context) -> bool:
    outcome = ctx.view.outcomes.get("PromoteService")
    return outcome is not None and not outcome.ok and outcome.failures >= MAX_FAILED_PROMOTIONS
