"""How operators' intents end. Pure. The leader ends them; while there is none, whoever leads next does."""

from __future__ import annotations

from agent.decision.command import IntentOutcome
from agent.decision.context import Context
from agent.decision.safeguards import switchover_target
from agent.decision.view import FenceLayer, Intent, IntentKind, ServiceState
from agent.instant import observer_elapsed_s

INTENT_TIMEOUT_S = 60.0
"""An intent that nobody could carry out ends after this time."""

Ended = tuple[Intent, IntentOutcome, str]


def finished(ctx: Context) -> Ended | None:
    """The first intent that has ended, how, and the sentence for whoever asked; None: none has."""
    if ctx.tenure is None or ctx.record is None:
        return None
    return next((ended for ended in (_judge(ctx, i) for i in ctx.view.intents) if ended is not None), None)


def _judge(ctx: Context, intent: Intent) -> Ended | None:
    ended = {IntentKind.PAUSE: _judge_pause, IntentKind.RESUME: _judge_resume, IntentKind.SWITCHOVER: _judge_switchover}[intent.kind](
        ctx, intent
    )
    if ended is not None:
        return intent, *ended
    if observer_elapsed_s(intent.seen, ctx.now) >= INTENT_TIMEOUT_S:
        return intent, IntentOutcome.EXPIRED, f"nothing came of it within {INTENT_TIMEOUT_S:.0f} s; ask again"
    return None


def _judge_pause(ctx: Context, intent: Intent) -> tuple[IntentOutcome, str] | None:
    """Done when the fences are disarmed, too: only then may the agent be stopped for longer work."""
    assert ctx.record is not None
    disarmed = ctx.view.fences.suspended or not ctx.must_stand(FenceLayer.WATCHDOG)
    done = ctx.record.paused and disarmed and intent == ctx.pause_intent
    return (IntentOutcome.DONE, "paused: nobody takes over, nothing is started or stopped") if done else None


def _judge_resume(ctx: Context, intent: Intent) -> tuple[IntentOutcome, str] | None:
    """Only when its turn has come: before an older pause took effect there was nothing to resume from."""
    assert ctx.record is not None
    done = not ctx.record.paused and intent == ctx.pause_intent
    return (IntentOutcome.DONE, "resumed: failover is possible again") if done else None


def _judge_switchover(ctx: Context, intent: Intent) -> tuple[IntentOutcome, str] | None:
    assert ctx.record is not None
    if ctx.record.epoch > intent.epoch:
        return _judge_new_epoch(ctx, intent)
    if ctx.record.paused:
        return IntentOutcome.REFUSED, "the group is paused: resume it first"
    if intent.node == ctx.view.node:
        return IntentOutcome.REFUSED, f"{intent.node} leads already"
    if ctx.state is ServiceState.PRIMARY and switchover_target(ctx) is None:
        return IntentOutcome.REFUSED, _why_nobody(ctx, intent)
    return None


def _judge_new_epoch(ctx: Context, intent: Intent) -> tuple[IntentOutcome, str] | None:
    """The epoch that it spoke of is over: it is done when the wanted member leads and takes writes."""
    if ctx.state is not ServiceState.PRIMARY:
        return None
    if intent.node in (None, ctx.view.node):
        return IntentOutcome.DONE, f"{ctx.view.node} leads"
    return IntentOutcome.REFUSED, f"{ctx.view.node} leads, not {intent.node}: the epoch changed meanwhile"


def _why_nobody(ctx: Context, intent: Intent) -> str:
    if intent.node is not None:
        return f"{intent.node} cannot lead: {ctx.prospects.rejected.get(intent.node, 'it is no member of the group')}"
    reasons = "; ".join(f"{n}: {r}" for n, r in sorted(ctx.prospects.rejected.items()) if n != ctx.view.node)
    return f"no member can lead: {reasons}"
