"""When the rows of the table hold, where that takes more than a few words. Pure functions of a context."""

from __future__ import annotations

import math

from agent.decision import records, safeguards
from agent.decision.command import (
    FollowLeader,
    FormGroup,
    GiveWord,
    PromoteService,
    RejoinService,
    RenewLease,
    Resource,
    SealService,
    SetSyncNames,
    StartService,
    StopReceiving,
    StopService,
    TakeLease,
)
from agent.decision.context import BACKOFF_S, Context
from agent.decision.engines.base import Rejoin
from agent.decision.situation import Situation
from agent.decision.succession import chosen, first_to_form
from agent.decision.view import FenceLayer, IntentKind, ServiceState
from agent.instant import has_passed, holder_elapsed_s, observer_elapsed_s

ASK_AFTER_PERIODS = 1.5
"""Renew periods after the SENT of the last commit: the next renewal is late by half a period, and most of the ttl is left."""
FAILSAFE_AFTER_PERIODS = 2.0
"""Renew periods by which promises carry the lease beyond the last commit before it is called failsafe: more than the first round does."""
RECEIVER_PATIENCE_S = 2.0
"""How long a standby may follow without receiving before it is told again."""


def epoch(ctx: Context) -> int:
    """The epoch a command is decided in: the own one, else that of the record, else 0."""
    if ctx.tenure is not None:
        return ctx.tenure.epoch
    return 0 if ctx.record is None else ctx.record.epoch


def key_is_lost(ctx: Context) -> bool:
    gone = not ctx.view.lease.exists and not ctx.is_blind and not ctx.view.coordination.lags
    return ctx.is_live and gone and ctx.may_try(FormGroup)


def may_form(ctx: Context) -> bool:
    """The own word, too, must still be true at this moment."""
    ready = ctx.never_formed and ctx.view.coordination.session is not None and not ctx.may_be_writable
    return ready and first_to_form(ctx) and ctx.may_try(FormGroup) and not safeguards.missing_before_promotion(ctx)


def must_relock(ctx: Context) -> bool:
    """The key is no longer locked by this node's session, though the record is still its own."""
    entry, tenure = ctx.view.lease.entry, ctx.tenure
    return entry is not None and tenure is not None and entry.index >= tenure.index and entry.session != ctx.view.coordination.session


def renewal_is_due(ctx: Context) -> bool:
    if ctx.tenure is None or ctx.is_late or ctx.view.coordination.session is None:
        return False
    sent = ctx.tenure.last_sent
    if ctx.tenure.index == 0:
        return False  # known from the disk alone: nothing to build upon before the lease is read
    due = sent is None or holder_elapsed_s(sent, ctx.now) >= ctx.group.renew_s
    changed = records.wanted_record(ctx) != ctx.tenure.record and not ctx.tenure.attempts
    return (due and not _was_just_refused(ctx)) or (changed and ctx.may_try(RenewLease))


def renewal_is_late(ctx: Context) -> bool:
    """Nothing is known to have committed for longer than a healthy coordinator ever takes."""
    tenure = ctx.tenure
    return tenure is not None and (tenure.dated is None or holder_elapsed_s(tenure.dated, ctx.now) >= ASK_AFTER_PERIODS * ctx.group.renew_s)


def commits_nothing(ctx: Context) -> bool:
    """Whether the lease stands by promises, and not by one late renewal.

    On a busy host each renewal may be late by half a period, so that a round of promises dates the lease farther than it almost always:
    that alone is no failsafe, and a give-up would commit. It begins when a second round is out with nothing committed since the first; it
    ends when a renewal dates the lease farther than all promises do.
    """
    tenure = ctx.tenure
    if tenure is None or tenure.promised is None or not tenure.is_by_promises:
        return False
    late_s = math.inf if tenure.dated is None else holder_elapsed_s(tenure.dated, tenure.promised)
    return late_s >= FAILSAFE_AFTER_PERIODS * ctx.group.renew_s or ctx.memory.situation is Situation.FAILSAFE


def must_ask(ctx: Context) -> bool:
    """The lease is this node's and alive, nothing commits, and a round is due. Not for a service that nobody can use for too long."""
    tenure = ctx.tenure
    if tenure is None or not ctx.group.failsafe or not ctx.has_time or ctx.is_suspended or tenure.vacating:
        return False
    if ctx.view.coordination.went_back or safeguards.cannot_lead(ctx):
        return False
    due = tenure.asked is None or holder_elapsed_s(tenure.asked, ctx.now) >= ctx.group.renew_s
    return due and renewal_is_late(ctx)


def _was_just_refused(ctx: Context) -> bool:
    """A refused attempt is forgotten, so the next is due at once: a short pause, never the growing one, which could outlast the lease."""
    last = ctx.view.outcomes.get(RenewLease.__name__)
    return last is not None and not last.ok and observer_elapsed_s(last.ended, ctx.now) < BACKOFF_S


def may_retake(ctx: Context) -> bool:
    """The record is this node's own, but no deadline of it is alive here: a new epoch, by check-index alone."""
    if not ctx.is_holder_by_record or ctx.is_live or not ctx.is_member or not ctx.may_try(TakeLease):
        return False
    crashed = ctx.tenure is not None and ctx.state is ServiceState.DOWN
    if crashed and not ctx.fenced_since_crash:
        return False  # once that is proven, giving up may be better
    if not _is_of_this_boot(ctx) and not ctx.has_stood_still:
        return False  # another host may bear this name (a clone, a copied file): its service is not the one that is seen here
    return not safeguards.forbids_takeover(ctx)


def _is_of_this_boot(ctx: Context) -> bool:
    """Whether the record was written on this machine since it started: an incarnation begins with the name of its boot."""
    record = ctx.record
    return record is not None and record.incarnation.partition("-")[0] == ctx.view.incarnation.partition("-")[0]


def may_take(ctx: Context) -> bool:
    return ctx.is_vacancy and ctx.may_try(TakeLease) and not safeguards.forbids_takeover(ctx) and chosen(ctx)


def is_stray(ctx: Context) -> bool:
    """Writable, or about to be, without a lease whose time is known.

    A deadline that a live watchdog still holds covers an agent that has not read the record yet.
    """
    writable = ctx.state is ServiceState.PRIMARY or ctx.in_flight(PromoteService)
    if not writable or ctx.deadline is not None or ctx.is_live or (paused(ctx) and ctx.is_holder_by_record):
        return False
    return not is_covered_restart(ctx)


def is_covered_restart(ctx: Context) -> bool:
    """A restarted agent has not read the record yet, and its watchdog still holds the deadline of the life before."""
    return ctx.is_blind and ctx.tenure is None and _is_covered(ctx)


def _is_covered(ctx: Context) -> bool:
    deadline = ctx.view.fences.armed_deadline
    return ctx.view.fences.watchdog_alive and deadline is not None and not has_passed(deadline, ctx.now)


def is_unformed_stray(ctx: Context) -> bool:
    return is_stray(ctx) and ctx.never_formed and not ctx.is_busy(StopService.resource) and ctx.may_try(StopService)


def is_crashed(ctx: Context) -> bool:
    """The first process is gone, others are left. In its own pause the operator's hands are on it."""
    starting = ctx.in_flight(StartService)
    return ctx.state is ServiceState.CRASHED and not starting and not (paused(ctx) and ctx.is_holder_by_record)


def must_prove_down(ctx: Context) -> bool:
    return ctx.tenure is not None and ctx.state is ServiceState.DOWN and not ctx.fenced_since_crash and not paused(ctx)


def is_hung(ctx: Context) -> bool:
    since = ctx.view.service.since
    limit_s = ctx.group.terms.ttl_s if ctx.tenure is not None else ctx.group.patience_s
    hung = ctx.state is ServiceState.HUNG and since is not None and observer_elapsed_s(since, ctx.now) >= limit_s
    return hung and not paused(ctx)


def lets_another_try(ctx: Context) -> bool:
    leads = ctx.is_live and ctx.record is not None and not paused(ctx) and bool(ctx.prospects.order)
    if ctx.state is ServiceState.STANDBY:
        return leads and bool(safeguards.cannot_lead(ctx))
    return leads and _is_not_seen_to_lead(ctx) and safeguards.took_no_writes_for_too_long(ctx)


def _is_not_seen_to_lead(ctx: Context) -> bool:
    """It is on its way and does not arrive; or nobody may ask it, and it did not take writes in this epoch before."""
    return ctx.state is ServiceState.STARTING or (ctx.state is ServiceState.UNKNOWN and not safeguards.has_led(ctx))


def is_unfenced(ctx: Context) -> bool:
    leads = ctx.tenure is not None and ctx.state is ServiceState.PRIMARY and not paused(ctx)
    return leads and bool(safeguards.missing_before_promotion(ctx))


def steps_down(ctx: Context) -> bool:
    return is_unfenced(ctx) and ctx.may_try(StopService)


def paused(ctx: Context) -> bool:
    return ctx.record is not None and ctx.record.paused


def switches_over(ctx: Context) -> bool:
    """Only when the lease can be given up afterwards: the lock is held and coordination is what it was."""
    leads = ctx.is_live and ctx.state is ServiceState.PRIMARY and not ctx.view.coordination.went_back and not must_relock(ctx)
    return leads and not commits_nothing(ctx) and safeguards.switchover_target(ctx) is not None and ctx.may_try(StopService)


def restarts_in_place(ctx: Context) -> bool:
    down = ctx.is_live and ctx.state is ServiceState.DOWN and ctx.fenced_since_crash and not paused(ctx)
    return down and not safeguards.gives_up(ctx) and not vacate_may_commit(ctx) and ctx.may_try(StartService)


def vacate_may_commit(ctx: Context) -> bool:
    return ctx.tenure is not None and ctx.tenure.vacating


def may_promote(ctx: Context) -> bool:
    return ctx.may_try(PromoteService) and not safeguards.forbids_promotion(ctx) and not paused_intent(ctx)


def paused_intent(ctx: Context) -> bool:
    return ctx.intent(IntentKind.PAUSE) is not None


def lacks_seal(ctx: Context) -> bool:
    sealed_by_rule = ctx.must_stand(FenceLayer.SEAL)
    return sealed_by_rule and ctx.is_live and ctx.state is ServiceState.PRIMARY and not ctx.view.service.sealed and ctx.may_try(SealService)


def must_stop_receiving(ctx: Context) -> bool:
    if ctx.state is not ServiceState.STANDBY or not ctx.may_try(StopReceiving):
        return False
    if ctx.tenure is not None:
        return ctx.view.service.upstream is not None or ctx.view.service.receiving
    return ctx.is_vacancy and ctx.record is not None and ctx.view.service.stopped_for_epoch != ctx.record.epoch


def may_start(ctx: Context) -> bool:
    down = ctx.is_member and ctx.state is ServiceState.DOWN and ctx.view.service.initialised and ctx.tenure is None
    return down and not paused(ctx) and not ctx.view.coordination.went_back and ctx.may_try(StartService)


def must_follow(ctx: Context) -> bool:
    if not _has_a_leader(ctx) or ctx.state is not ServiceState.STANDBY or ctx.rejoin is not Rejoin.FOLLOW or not ctx.may_try(FollowLeader):
        return False
    return ctx.record is not None and (ctx.view.service.upstream != ctx.record.holder or receives_nothing(ctx))


def _has_a_leader(ctx: Context) -> bool:
    """Another member leads, as far as anybody can trust what is read."""
    return ctx.is_led_by_other and ctx.is_member and not ctx.is_vacancy and not ctx.view.coordination.went_back


def receives_nothing(ctx: Context) -> bool:
    last = ctx.view.outcomes.get("FollowLeader")
    waited = last is None or observer_elapsed_s(last.ended, ctx.now) >= RECEIVER_PATIENCE_S
    leads = ctx.leader is not None and ctx.leader.state is ServiceState.PRIMARY
    return not ctx.view.service.receiving and waited and leads


def must_rejoin(ctx: Context) -> bool:
    ready = ctx.state is ServiceState.STANDBY or (ctx.state is ServiceState.DOWN and not ctx.view.service.initialised)
    differs = _has_a_leader(ctx) and ready and ctx.rejoin in (Rejoin.REWIND, Rejoin.COPY)
    return differs and not paused(ctx) and ctx.may_try(RejoinService)


def sync_names_differ(ctx: Context) -> bool:
    led = ctx.is_live and ctx.record is not None and ctx.state is ServiceState.PRIMARY
    settled = led and not ctx.is_busy(Resource.SERVICE)  # a promotion sets its own names, and knows only at its end that they are in force
    return settled and records.wanted_names(ctx) is not None and ctx.may_try(SetSyncNames)


def may_give_word(ctx: Context) -> bool:
    service = ctx.view.service
    ready = (
        ctx.never_formed
        and not ctx.view.coordination.went_back
        and ctx.is_member
        and (ctx.state is ServiceState.STANDBY or (ctx.state is ServiceState.DOWN and not service.initialised))
    )
    word = ctx.view.words.get(ctx.view.node)
    stale = word is None or (word.position, word.system_identifier) != (service.position, service.system_identifier)
    return ready and stale and ctx.may_try(GiveWord)
