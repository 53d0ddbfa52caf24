"""The lease records that the rules write, built from the one before. Pure. Nonces are filled in by the executor, at the last moment."""

from __future__ import annotations

from dataclasses import replace

from agent.coordination.lease import RESERVED, LeaseRecord, LeaseState, Promotion
from agent.decision import quorum
from agent.decision.command import FormGroup, RenewLease, SetSyncNames, VacateLease
from agent.decision.context import Context
from agent.decision.safeguards import debt_is_over, reserved_timeline, switchover_target
from agent.decision.view import Durability, IntentKind, ServiceState

KEPT_PROMOTIONS = 32
"""Promotions that a record remembers: more than any standby that is still worth rewinding has missed."""


def first_record(ctx: Context) -> LeaseRecord:
    """The record of a group that never had one."""
    return LeaseRecord(
        group=ctx.group.name,
        holder=ctx.view.node,
        incarnation=ctx.view.incarnation,
        epoch=1,
        sequence=1,
        nonce="",
        terms=ctx.group.terms,
        state=LeaseState.HELD,
        voters=ctx.group.voters,
        votes_needed=quorum.votes_needed(len(ctx.group.voters)),
        sync_set=() if ctx.group.durability is Durability.SYNC else None,
        promotions=_with_reservation(ctx, 1, ()),
        system_identifier=ctx.view.service.system_identifier,
        cause="the group was formed",
    )


def taken_record(ctx: Context, cause: str) -> LeaseRecord:
    """The record of a new epoch over the one that is seen. Its sync set starts empty: see durability.py."""
    assert ctx.record is not None
    epoch = max(ctx.record.epoch, ctx.view.highest_epoch) + 1
    return replace(
        first_record(ctx),
        epoch=epoch,
        promotions=_with_reservation(ctx, epoch, _completed(ctx, ctx.record.promotions)),
        debt=ctx.record.debt,
        system_identifier=ctx.record.system_identifier or ctx.view.service.system_identifier,
        cause=cause,
    )


def vacated_record(ctx: Context, cause: str) -> LeaseRecord:
    """The last record of an epoch. A switchover names its heir and where the service ended."""
    assert ctx.tenure is not None
    target = switchover_target(ctx)
    return replace(
        ctx.tenure.record,
        incarnation=ctx.view.incarnation,
        sequence=ctx.tenure.last_sequence + 1,
        nonce="",
        state=LeaseState.VACATED,
        heir=None if target is None else target[1],
        final_position=None if target is None else ctx.view.service.position,
        cause=cause,
    )


def renewed_record(ctx: Context) -> LeaseRecord:
    """The record that a renewal writes: what was confirmed last, with everything that has to change by now."""
    assert ctx.tenure is not None
    return replace(
        wanted_record(ctx),
        incarnation=ctx.view.incarnation,
        sequence=ctx.tenure.last_sequence + 1,
        nonce="",
    )


def wanted_record(ctx: Context) -> LeaseRecord:
    """The confirmed record with this node's wishes in it: equal to it when a renewal has nothing to change."""
    assert ctx.tenure is not None
    record = ctx.tenure.record
    return replace(
        record,
        terms=ctx.group.terms,
        prior_wait_s=_prior_wait_s(ctx, record),
        voters=ctx.group.voters,
        votes_needed=quorum.votes_needed(len(ctx.group.voters)),
        sync_set=_sync_set(ctx, record),
        promotions=_promotions(ctx, record),
        paused=_paused(ctx, record),
        debt=None if debt_is_over(ctx) else record.debt,
        system_identifier=record.system_identifier or ctx.view.service.system_identifier,
    )


def _prior_wait_s(ctx: Context, record: LeaseRecord) -> float:
    """Shorter terms carry the longer wait with them until no deadline of the longer ones is armed any more.

    (The watchdog's deadline never moves back. If the agent dies right after it sent the shorter ttl, the service lives on until the
    longer one ends, and an observer that has just started saw no other terms than the shorter ones.)
    """
    longest_s = max(record.terms.takeover_wait_s, record.prior_wait_s)
    if longest_s <= ctx.group.terms.takeover_wait_s:
        return 0.0
    armed, own = ctx.view.fences.armed_deadline, None if ctx.tenure is None else ctx.tenure.deadline
    settled = record.terms == ctx.group.terms and own is not None and (armed is None or armed.earlier(own) == armed)
    return 0.0 if settled else longest_s


def _sync_set(ctx: Context, record: LeaseRecord) -> tuple[str, ...] | None:
    """The set the plan asks for. It never grows while the service's names are being changed: what it shows is about to be untrue."""
    plan = ctx.sync_plan
    if ctx.state is not ServiceState.PRIMARY or ctx.record is None or not plan.record_changes:
        return record.sync_set
    return record.sync_set if plan.record_set and _names_are_uncertain(ctx) else plan.record_set


def _names_are_uncertain(ctx: Context) -> bool:
    """A change of the names is under way, or the last one failed and may yet take effect."""
    last = ctx.view.outcomes.get(SetSyncNames.__name__)
    return ctx.is_busy(SetSyncNames.resource) or (last is not None and not last.ok)


def wanted_names(ctx: Context) -> tuple[str, ...] | None:
    """What the service must be told of whom its commits wait for; None: nothing. Never without somebody who is promised in a record."""
    names = ctx.sync_plan.names
    if names is None and _names_are_uncertain(ctx):
        names = ctx.view.service.sync_names
    return names if names is not None and promised(ctx) <= set(names) else None


def promised(ctx: Context) -> frozenset[str]:
    """Who has, by a record that was read, is confirmed, was sent or is being sent, every acknowledged write."""
    tenure = ctx.tenure
    records = [ctx.record, *([] if tenure is None else [tenure.record, *(a.record for a in tenure.attempts)])]
    records += [f.command.record for f in ctx.view.in_flight if isinstance(f.command, RenewLease | VacateLease | FormGroup)]
    return frozenset(name for record in records if record is not None for name in record.sync_set or ())


def _promotions(ctx: Context, record: LeaseRecord) -> tuple[Promotion, ...]:
    """What happened replaces what was reserved for it; a holder that stands by reserves its next number before it promotes."""
    service = ctx.view.service
    if service.state is ServiceState.STANDBY and not service.receiving and service.upstream is None and reserved_timeline(ctx) is None:
        return _with_reservation(ctx, record.epoch, record.promotions)
    if service.state is not ServiceState.PRIMARY or service.position is None or not service.history:
        return record.promotions
    branch = service.history[-1]
    mine = Promotion(record.epoch, ctx.view.node, service.position.timeline, branch.timeline, branch.switch_lsn)
    if mine in record.promotions:
        return record.promotions
    others = (p for p in record.promotions if (p.epoch, p.timeline) != (mine.epoch, mine.timeline))
    return (*others, mine)[-KEPT_PROMOTIONS:]


def _with_reservation(ctx: Context, epoch: int, promotions: tuple[Promotion, ...]) -> tuple[Promotion, ...]:
    """A number above all that was ever used or reserved, for this node in this epoch."""
    position = ctx.view.service.position
    if position is None:
        return promotions
    number = max([position.timeline, *(p.timeline for p in promotions)]) + 1
    return (*promotions, Promotion(epoch, ctx.view.node, number, position.timeline, RESERVED))[-KEPT_PROMOTIONS:]


def _completed(ctx: Context, promotions: tuple[Promotion, ...]) -> tuple[Promotion, ...]:
    """A predecessor died before it recorded its promotion, but this node followed it there: it knows where that branched off."""
    service = ctx.view.service
    if service.position is None or not service.history:
        return promotions
    timeline, branch = service.position.timeline, service.history[-1]
    return tuple(
        replace(p, parent_timeline=branch.timeline, switch_lsn=branch.switch_lsn) if p.is_reserved and p.timeline == timeline else p
        for p in promotions
    )


def _paused(ctx: Context, record: LeaseRecord) -> bool:
    """Pause is committed first and disarms after; resume arms first and clears after."""
    wish = ctx.pause_intent
    if wish is None:
        return record.paused
    if wish.kind is IntentKind.PAUSE:
        return True
    is_fenced = ctx.is_armed and ctx.is_port_leased
    return record.paused and not (is_fenced and ctx.has_time)  # with an old date the holder would be late at once: renew first
