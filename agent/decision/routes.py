"""When what follows the leader is raised, taken off and asked about, and when hooks are run. Pure functions of a context.

Kill first, take off after: what the dying processes say to their clients leaves with that address. A give-up waits for a drop, so that
`vacated` means that nothing points here any more; but only so long: a drop that fails must not keep the group down, because the address
falls by its own lifetime, and the next leader raises nothing that still answers here.
"""

from __future__ import annotations

from agent.decision import conditions, safeguards
from agent.decision.command import DropRoutes, FenceService, HookRole, ProbeRoutes, PromoteService, RaiseRoutes, RunHooks, VacateLease
from agent.decision.context import Context
from agent.decision.view import RouteView, ServiceState
from agent.instant import holder_elapsed_s, observer_elapsed_s

PROBE_FRESH_S = 5.0
"""How long the link's word counts that nobody answers for an address which is about to be raised."""
PROBE_HELD_S = 10.0
"""How often the link is asked while the address stands here."""
RIVAL_PAUSE_S = 0.5
"""How often it is asked again while somebody else answers and this node waits for it: a frozen leader's address is about to fall."""
MAX_FAILED_HOOKS = 3
"""A hook that failed so often in a row for one occasion is left alone."""


def is_raised(ctx: Context) -> bool:
    """Whether anything that follows the leader stands here, or nobody can say that it does not."""
    return any(route.present is not False for route in ctx.view.routes)


def must_drop(ctx: Context) -> bool:
    """Something stands here and this node is not the one that it should point to. During a pause all is the operator's."""
    if not is_raised(ctx) or conditions.paused(ctx) or ctx.is_suspended or not ctx.may_try(DropRoutes):
        return False
    if ctx.is_live:
        return ctx.state in (ServiceState.DOWN, ServiceState.STANDBY) and not ctx.in_flight(PromoteService)
    return not conditions.is_covered_restart(ctx) and not _waits_for_a_fence(ctx)


def _waits_for_a_fence(ctx: Context) -> bool:
    """Something is being killed, or is about to be: its last words go out first."""
    if not ctx.may_be_writable or not (ctx.is_late or conditions.is_stray(ctx) or conditions.is_crashed(ctx)):
        return False
    last = ctx.view.outcomes.get(FenceService.__name__)
    began = [f.since for f in ctx.view.in_flight if isinstance(f.command, FenceService)]
    in_vain = last is not None and not last.ok
    return not in_vain and all(holder_elapsed_s(since, ctx.now) < ctx.group.terms.fence_budget_s for since in began)


def holds_up_give_up(ctx: Context) -> bool:
    """The service is proven down and something still points here: wait for its drop, for fence_budget at most after that proof."""
    proof = ctx.view.outcomes.get(FenceService.__name__)
    waited = proof is not None and observer_elapsed_s(proof.ended, ctx.now) >= ctx.group.terms.fence_budget_s
    return is_raised(ctx) and not waited


def may_give_up(ctx: Context) -> bool:
    """The service is proven down, somebody else had better lead, and nothing points here any more."""
    wanted = bool(safeguards.gives_up(ctx)) and not conditions.must_relock(ctx) and ctx.may_try(VacateLease)
    return wanted and not holds_up_give_up(ctx)


def leads(ctx: Context) -> bool:
    """This node leads, its time is not over, and its service takes writes: what follows the leader points here."""
    return _is_elected(ctx) and ctx.has_time and ctx.state is ServiceState.PRIMARY


def _is_elected(ctx: Context) -> bool:
    """Under the newest lease, which is not being given up, outside a pause."""
    tenure = ctx.tenure
    if tenure is None or tenure.vacating or conditions.paused(ctx) or ctx.is_suspended:
        return False
    return ctx.is_live and ctx.view.highest_epoch <= tenure.epoch and not ctx.view.coordination.went_back


def must_raise(ctx: Context) -> bool:
    return leads(ctx) and any(route.present is not True and _may_be_tried(ctx, route) for route in ctx.view.routes)


def _may_be_tried(ctx: Context, route: RouteView) -> bool:
    if route.rival and route.asked is not None:
        return observer_elapsed_s(route.asked, ctx.now) >= RIVAL_PAUSE_S
    return ctx.may_try(RaiseRoutes)


def must_probe(ctx: Context) -> bool:
    """Ask before anything is raised, while the service is still on its way; and now and then while it stands."""
    if not _is_elected(ctx) or not ctx.may_try(ProbeRoutes):
        return False
    return any(is_probe_due(ctx, route) for route in ctx.view.routes)


def is_probe_due(ctx: Context, route: RouteView) -> bool:
    """Whether the link's last word on one address is too old. A leader's absent address is asked for as it is raised."""
    on_its_way = ctx.state is ServiceState.STANDBY or (ctx.in_flight(PromoteService) and ctx.state is not ServiceState.PRIMARY)
    if not (ctx.state is ServiceState.PRIMARY if route.present else on_its_way):
        return False
    limit_s = PROBE_HELD_S if route.present else PROBE_FRESH_S
    return route.asked is None or observer_elapsed_s(route.asked, ctx.now) >= limit_s


# ------------------------------------------------------------------ hooks


def occasion(ctx: Context) -> tuple[HookRole, int] | None:
    """What this node has become, in which epoch, that its hooks were not told yet; None: nothing.

    Elected: its service takes writes and everything else points here. Defeated: the lease is gone and nothing points here any more.
    Only who was told that it was elected is told that it was defeated. A pause tells nobody anything.
    """
    told, tenure = ctx.view.told, ctx.tenure
    if not ctx.group.hooks or conditions.paused(ctx):
        return None
    if leads(ctx) and tenure is not None and all(route.present for route in ctx.view.routes):
        fresh = told is None or (told.epoch, told.role) != (tenure.epoch, HookRole.ELECTED)
        return (HookRole.ELECTED, tenure.epoch) if fresh else None
    gone = tenure is None and not ctx.may_be_writable and not is_raised(ctx) and not ctx.is_blind
    if gone and told is not None and told.role is HookRole.ELECTED:
        return (HookRole.DEFEATED, told.epoch)
    return None


def must_run_hooks(ctx: Context) -> bool:
    wanted, last = occasion(ctx), ctx.view.outcomes.get(RunHooks.__name__)
    if wanted is None or not ctx.may_try(RunHooks):
        return False
    if last is None or last.ok or not isinstance(last.command, RunHooks):
        return True
    return (last.command.role, last.command.epoch) != wanted or last.failures < MAX_FAILED_HOOKS
