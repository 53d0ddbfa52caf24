"""Is it this node's turn? Who forms a group, who takes a vacancy and when, and whom a fresh leader's commits wait for. Pure."""

from __future__ import annotations

from agent.coordination.lease import Position
from agent.decision import candidate
from agent.decision.context import Context
from agent.decision.quorum import is_fresh
from agent.decision.records import promised
from agent.decision.view import Durability, ServiceState, WordView
from agent.instant import Instant, observer_elapsed_s


def first_to_form(ctx: Context) -> bool:
    """Every configured member has given its word, all of them are of one cluster, and this node's data is the best."""
    words = {n: ctx.view.words.get(n) for n in ctx.group.members}
    given = {n: w for n, w in words.items() if w is not None}
    if len(given) < len(words) or ctx.view.node not in given:
        return False
    with_data = {n: w for n, w in given.items() if w.position is not None}
    if len({w.system_identifier for w in with_data.values()}) > 1:
        return False
    allowed = [n for n in with_data if not ctx.group.members[n].nofailover and ctx.group.members[n].priority > 0]
    return bool(allowed) and min(allowed, key=lambda n: _formation_key(ctx, n, with_data[n])) == ctx.view.node


def _formation_key(ctx: Context, name: str, word: WordView) -> tuple[int, int, int, str]:
    position = word.position or Position(0, 0)
    return (-position.timeline, -position.lsn, -ctx.group.members[name].priority, name)


def chosen(ctx: Context) -> bool:
    """Whether this node may take the vacancy at this moment."""
    return ctx.view.node in ctx.ranking.order and turn_comes_at(ctx) is not None and _turn_has_come(ctx)


def _turn_has_come(ctx: Context) -> bool:
    turn = turn_comes_at(ctx)
    return turn is not None and observer_elapsed_s(turn, ctx.now) >= 0


def turn_comes_at(ctx: Context) -> Instant | None:
    """When this node may take the vacancy, if nobody did before: at once for the first of the order, later for lower ranks."""
    began, record = ctx.vacancy_began, ctx.record
    if began is None or record is None or not ctx.is_vacancy or ctx.view.node not in ctx.ranking.order:
        return None
    if record.heir is not None and record.is_vacant:
        if _is_ready_heir(ctx):
            return began
        first = began.after(record.terms.takeover_wait_s)
    else:
        first = began
    ranked = first.after(ctx.ranking.order.index(ctx.view.node) * candidate.RANK_STEP_S)
    if candidate.has_gathered(ctx.group, record, ctx.view.members, began, ctx.now):
        return ranked
    return ranked.after(candidate.GATHERING_S)


def _is_ready_heir(ctx: Context) -> bool:
    """The named heir, and it has everything up to where the old leader ended."""
    record, position = ctx.record, ctx.view.service.position
    if record is None or record.heir != ctx.view.node or position is None:
        return False
    return record.final_position is None or position.lsn >= record.final_position.lsn


def first_sync_names(ctx: Context) -> tuple[str, ...] | None:
    """Whom the service waits for from its very first commit; None in `async`; empty when no other standby lives.

    Who is promised in the record comes first, also when it is away: after a restart in place the promise still stands.
    """
    if ctx.group.durability is not Durability.SYNC:
        return None
    if already := promised(ctx):
        return tuple(sorted(already))
    live = [
        (-(m.position or Position(0, 0)).lsn, -ctx.group.members[n].priority, n)
        for n, m in ctx.view.members.items()
        if n in ctx.group.members
        and n != ctx.view.node
        and m.state is ServiceState.STANDBY
        and is_fresh(m, ctx.group.renew_s, ctx.now)
        and not ctx.group.members[n].nofailover
        and ctx.group.members[n].priority > 0
    ]
    return (min(live)[2],) if live else ()
