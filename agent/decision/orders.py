"""What the rows of the table order: each function builds a row's commands from a context for which the row holds. Pure."""

from __future__ import annotations

from collections.abc import Callable

from agent.coordination.lease import CountedVote
from agent.decision import conditions, records, safeguards
from agent.decision.command import (
    CastVote,
    Command,
    DropRoutes,
    FenceService,
    FinishIntent,
    FollowLeader,
    FormGroup,
    PromoteService,
    RejoinMode,
    RejoinService,
    RenewLease,
    RunHooks,
    SetSyncNames,
    StopService,
    TakeLease,
    VacateLease,
)
from agent.decision.context import Context
from agent.decision.engines.base import Rejoin
from agent.decision.intents import finished
from agent.decision.routes import occasion
from agent.decision.succession import first_sync_names
from agent.decision.votes import own_vote


def nothing(_: Context) -> tuple[Command, ...]:
    return ()


def recreate(ctx: Context) -> tuple[Command, ...]:
    return (FormGroup(conditions.epoch(ctx), records.renewed_record(ctx), words=()),)


def form(ctx: Context) -> tuple[Command, ...]:
    words = tuple(CountedVote(w.node, w.index) for _, w in sorted(ctx.view.words.items()) if w.node in ctx.group.members)
    return (FormGroup(0, records.first_record(ctx), words),)


def vacate(ctx: Context) -> tuple[Command, ...]:
    return (VacateLease(conditions.epoch(ctx), records.vacated_record(ctx, safeguards.gives_up(ctx))),)


def renew(ctx: Context) -> tuple[Command, ...]:
    relock_over = ctx.view.lease.entry if conditions.must_relock(ctx) else None
    return (RenewLease(conditions.epoch(ctx), records.renewed_record(ctx), relock_over),)


def take(ctx: Context, cause: str, votes: tuple[CountedVote, ...]) -> tuple[Command, ...]:
    assert ctx.view.lease.entry is not None
    return (TakeLease(conditions.epoch(ctx), records.taken_record(ctx, cause), ctx.view.lease.entry, votes),)


def retake(ctx: Context) -> tuple[Command, ...]:
    return take(ctx, "the holder came back to its own unchanged lease, not writable", ())


def take_vacancy(ctx: Context) -> tuple[Command, ...]:
    assert ctx.record is not None
    if ctx.was_given_up:
        return take(ctx, f"{ctx.record.holder} gave up: {ctx.record.cause}", ())
    return take(ctx, f"the lease of {ctx.record.holder} ran out; {len(ctx.votes)} voters call it down", ctx.votes)


def fence(cause: str) -> Callable[[Context], tuple[Command, ...]]:
    return lambda ctx: () if ctx.in_flight(FenceService) else (FenceService(conditions.epoch(ctx), cause),)


def stop(cause: str) -> Callable[[Context], tuple[Command, ...]]:
    return lambda ctx: (StopService(conditions.epoch(ctx), cause),)


def promote(ctx: Context) -> tuple[Command, ...]:
    """The service takes the number above all that it is told of: the reserved one."""
    assert ctx.tenure is not None
    reserved = safeguards.reserved_timeline(ctx)
    known = tuple(p for p in ctx.tenure.record.promotions if p.timeline != reserved)
    return (PromoteService(ctx.tenure.epoch, first_sync_names(ctx), known),)


def follow(ctx: Context) -> tuple[Command, ...]:
    assert ctx.record is not None
    return (FollowLeader(conditions.epoch(ctx), ctx.record.holder),)


def rejoin(ctx: Context) -> tuple[Command, ...]:
    assert ctx.record is not None
    failed = ctx.view.outcomes.get("RejoinService")
    rewound_in_vain = failed is not None and not failed.ok
    mode = RejoinMode.COPY if ctx.rejoin is Rejoin.COPY or rewound_in_vain else RejoinMode.REWIND
    return (RejoinService(conditions.epoch(ctx), ctx.record.holder, mode),)


def set_sync_names(ctx: Context) -> tuple[Command, ...]:
    return (SetSyncNames(conditions.epoch(ctx), records.wanted_names(ctx) or ()),)


def vote(down: bool) -> Callable[[Context], tuple[Command, ...]]:
    def commands(ctx: Context) -> tuple[Command, ...]:
        vote, seen = own_vote(ctx), ctx.view.observation
        return (CastVote(conditions.epoch(ctx), down, 0 if vote is None else vote.index, "" if seen is None else seen.sentence),)

    return commands


def finish(ctx: Context) -> tuple[Command, ...]:
    ended = finished(ctx)
    assert ended is not None
    intent, outcome, sentence = ended
    return (FinishIntent(conditions.epoch(ctx), intent.identity, intent.index, outcome, sentence),)


def drop_routes(ctx: Context) -> tuple[Command, ...]:
    return () if ctx.in_flight(DropRoutes) else (DropRoutes(conditions.epoch(ctx)),)


def run_hooks(ctx: Context) -> tuple[Command, ...]:
    wanted = occasion(ctx)
    assert wanted is not None
    role, epoch = wanted
    return (RunHooks(epoch, role),)
