"""How a status document looks in a terminal: one screen, what is wrong first in each group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.decision.view import FenceLayer, RouteState
from agent.reporting.status import CheckStatus, GroupStatus, MemberStatus, Role, StatusDocument, SyncWaitStatus

COLOURS = {"healthy": "green", "degraded": "yellow", "unhealthy": "red", "unknown": "yellow"}
NONE = "-"


def render(document: StatusDocument, only: str | None = None) -> RenderableType:
    """The whole document, or one group of it."""
    groups = [g for g in document.groups if only in (None, g.name)]
    parts: list[RenderableType] = [_headline(document)]
    for group in groups:
        parts += [Text(""), *_group(group)]
    if only is None and document.checks:
        parts += [Text(""), _checks(document.checks)]
    return Group(*parts)


def _headline(document: StatusDocument) -> Text:
    coordination = document.coordination
    line = Text(f"node {document.node}, quorate {document.version}, coordination ")
    line.append("answers" if coordination.up else "DOES NOT ANSWER", "green" if coordination.up else "bold red")
    return line.append(f": {coordination.description}")


def _group(group: GroupStatus) -> Iterator[RenderableType]:
    title = Text(group.name, "bold")
    title.append(f"  {group.situation.replace('_', ' ')}", "cyan")
    yield title.append(f"  {group.sentence}", "not bold")
    for problem in _problems(group):
        yield Text(f"  ! {problem}", "red")
    yield Text("  " + ", ".join(_facts(group)))
    yield _members(group.members)
    for intent in group.intents:
        target = f" to {intent.node}" if intent.node else ""
        yield Text(f"  wanted: {intent.kind}{target} by {intent.who} for {intent.age_s:.0f} s: {intent.why or 'no reason given'}")


def _problems(group: GroupStatus) -> Iterator[str]:
    if group.paused:
        yield "paused: nobody takes over"
    yield from (f"no failover now: {reason}" for reason in group.blocking if not (group.paused and reason == "the group is paused"))
    if group.sync_wait is not None:
        yield _sync_wait(group.sync_wait)
    missing = sorted(set(group.fences.required) - set(group.fences.standing))
    if missing:
        yield f"fences that must stand and do not: {', '.join(missing)}"
    for member in group.members:
        yield from (f"{member.name}: {route.sentence}" for route in member.routes if route.state is RouteState.CONFLICT)
    if group.fences.refused:
        yield f"the watchdog refused: {group.fences.refused}"
    if group.fences.kernel_problem and FenceLayer.KERNEL in group.fences.required:
        yield f"the port is not leased to the kernel: {group.fences.kernel_problem}"


def _sync_wait(wait: SyncWaitStatus) -> str:
    end = f"in {wait.left_s:.1f} s" if wait.left_s else "as soon as the coordinator commits that"
    return f"commits wait for {', '.join(wait.standbys)}, silent for {wait.silent_s:.1f} s: the set shrinks {end}"


def _facts(group: GroupStatus) -> Iterator[str]:
    yield f"leader {group.leader or 'nobody'}"
    yield f"epoch {NONE if group.epoch is None else group.epoch}"
    yield _lease(group)
    down = sum(vote.counts for vote in group.votes)
    yield f"votes down {down} of {NONE if group.votes_needed is None else group.votes_needed} needed"
    absence = f" (no kernel lease: {group.fences.kernel_problem})" if group.fences.kernel_problem else ""
    yield f"fences {'+'.join(group.fences.standing) or 'none'}{absence}"
    if group.failsafe.absence:
        yield f"no failsafe: {group.failsafe.absence}"
    if group.failsafe.promised_epoch is not None:
        yield f"promised not to take over epoch {group.failsafe.promised_epoch}"
    yield group.durability if group.sync_set is None else f"{group.durability} ({', '.join(group.sync_set) or 'nobody'})"


def _lease(group: GroupStatus) -> str:
    if group.lease_remaining_s is not None:
        promises = f" by {group.failsafe.promises} promises of {group.failsafe.needed} needed" if group.failsafe.active else ""
        return f"lease {group.lease_remaining_s:.1f} s left{promises}"
    return "no lease seen" if group.lease_moved_s is None else f"lease moved {group.lease_moved_s:.1f} s ago"


def _members(members: Iterable[MemberStatus]) -> Table:
    table = Table(
        *("  node", "role", "state", "position", "behind", "receives from", "points here", "heard", "health"), box=None, pad_edge=False
    )
    for member in members:
        table.add_row(
            f"  {member.name}",
            Text(member.role.value, "bold" if member.role is Role.LEADER else ""),
            NONE if member.role is Role.WITNESS else member.state.value,
            member.position_text or NONE,
            NONE if member.lag_bytes is None else f"{member.lag_bytes} B",
            member.upstream if member.receiving and member.upstream else NONE,
            ", ".join(route.name for route in member.routes if route.present) or NONE,
            "never" if member.heartbeat_age_s is None else f"{member.heartbeat_age_s:.1f} s ago",
            Text("healthy", "green") if member.healthy else Text(member.problem, "red"),
        )
    return table


def _checks(checks: Iterable[CheckStatus]) -> Table:
    table = Table("check", "kind", "level", "status", "ms", "says", box=None, pad_edge=False)
    for check in checks:
        milliseconds = NONE if check.latency_s is None else f"{check.latency_s * 1000:.1f}"
        table.add_row(
            check.name, check.kind, check.level, Text(check.status, COLOURS.get(check.status, "")), milliseconds, Text(check.sentence)
        )
    return table
