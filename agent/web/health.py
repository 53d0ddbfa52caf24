"""Is it well? The answers behind /health and its parts, out of the status document. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.decision.situation import Situation
from agent.reporting.status import CheckStatus, GroupStatus, StatusDocument
from checks.base import Status


class Part(StrEnum):
    """What may be asked about. Each but ALL has a kind of check or a group to speak of; any other part answers 404."""

    ALL = "all"
    DATABASE = "database"
    REDIS = "redis"
    TRAEFIK = "traefik"
    LEADERSHIP = "leadership"


KINDS: dict[Part, frozenset[str]] = {
    Part.DATABASE: frozenset({"postgres"}),
    Part.REDIS: frozenset({"redis"}),
    Part.TRAEFIK: frozenset({"traefik"}),
    Part.LEADERSHIP: frozenset({"consul"}),
}
"""The kinds of checks that belong to a part. Who leads is agreed on through Consul: so it stands with leadership."""

_SEVERITY = {Status.HEALTHY: 0, Status.UNKNOWN: 1, Status.DEGRADED: 1, Status.UNHEALTHY: 2}

LEADERSHIP: dict[Situation, Status] = {
    Situation.LEADING: Status.HEALTHY,
    Situation.FOLLOWING: Status.HEALTHY,
    Situation.WITNESSING: Status.HEALTHY,
    Situation.UNFORMED: Status.DEGRADED,
    Situation.FAILSAFE: Status.DEGRADED,
    Situation.WAITING: Status.DEGRADED,
    Situation.PROMOTING: Status.DEGRADED,
    Situation.STEPPING_DOWN: Status.DEGRADED,
    Situation.REJOINING: Status.DEGRADED,
    Situation.SILENT: Status.DEGRADED,
    Situation.VACANT: Status.DEGRADED,
    Situation.PAUSED: Status.DEGRADED,
    Situation.UNFENCED: Status.DEGRADED,
    Situation.BLIND: Status.UNHEALTHY,
    Situation.WENT_BACK: Status.UNHEALTHY,
    Situation.UNREADABLE: Status.UNHEALTHY,
    Situation.KEY_LOST: Status.UNHEALTHY,
    Situation.STRAY_PRIMARY: Status.UNHEALTHY,
    Situation.LATE: Status.UNHEALTHY,
    Situation.CRASHED: Status.UNHEALTHY,
    Situation.HUNG: Status.UNHEALTHY,
    Situation.EXPIRED: Status.UNHEALTHY,
}
"""How well a group is led, by what this node sees of it."""


@dataclass(frozen=True, slots=True)
class HealthItem:
    """One check or one group: its status and its sentence."""

    name: str
    kind: str
    status: Status
    sentence: str


@dataclass(frozen=True, slots=True)
class Health:
    """`status`: the worst of the items; an item that cannot tell makes it degraded, never unhealthy. `timestamp`: seconds since 1970."""

    status: Status
    version: str
    node: str
    timestamp: float
    checks: tuple[HealthItem, ...]


def health_of(document: StatusDocument, part: Part) -> Health | None:
    """The health of a part; None when nothing of this part is configured on this node."""
    items = _items(document, part)
    if not items and part is not Part.ALL:
        return None
    worst = max((_SEVERITY[item.status] for item in items), default=0)
    status = (Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY)[worst]
    return Health(status, document.version, document.node, document.wall_s, items)


def _items(document: StatusDocument, part: Part) -> tuple[HealthItem, ...]:
    kinds = KINDS.get(part)
    checks = tuple(_of_check(c) for c in document.checks if part is Part.ALL or (kinds is not None and c.kind in kinds))
    groups = tuple(_of_group(g) for g in document.groups) if part in {Part.ALL, Part.LEADERSHIP} else ()
    return (*checks, *groups)


def _of_check(check: CheckStatus) -> HealthItem:
    status = Status(check.status) if check.status in set(Status) else Status.UNKNOWN
    return HealthItem(check.name, check.kind, status, check.sentence)


def _of_group(group: GroupStatus) -> HealthItem:
    """A group that could not fail over now is degraded at best."""
    status = LEADERSHIP[Situation(group.situation)] if group.situation in set(Situation) else Status.UNKNOWN
    sentence = f"{group.situation}: {group.sentence}"
    if status is Status.HEALTHY and not group.failover_possible:
        return HealthItem(group.name, "group", Status.DEGRADED, f"{sentence} No failover now: {'; '.join(group.blocking)}.")
    return HealthItem(group.name, "group", status, sentence)
