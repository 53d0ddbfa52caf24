"""All metrics, in one table. Most are read out of the status document when Prometheus asks; the rest count what happened.

What is read from the document cannot go stale: a check or a group that left it is gone from the next answer. What is counted is kept for
the checks and groups that `keep` named, and for nobody else: a late result of a removed check makes no series. Every label value is one of
the configuration's names or of an enum; no text of a person or a server ever becomes one. A metric that is not in TABLE does not exist;
tests/tidy wants each of them in alerts/ or grafana/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import product
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.coordination.history import HistoryReason
from agent.coordination.measured import Request, RequestOutcome
from agent.decision.command import Command
from agent.decision.situation import Situation
from agent.decision.view import FenceLayer
from agent.reporting.status import CheckStatus, GroupStatus, Role, RouteStatus, StatusDocument
from checks.base import Status


class FailoverOutcome(StrEnum):
    """How a change of leader ended on the node that took over."""

    DONE = "done"
    FAILED = "failed"


class ActionOutcome(StrEnum):
    """How a command ended."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    TOO_LATE = "too_late"


@dataclass(frozen=True, slots=True)
class CheckKey:
    """The labels of a check."""

    check: str
    kind: str
    level: str


# ------------------------------------------------------------------ read out of the document

Reading = tuple[tuple[str, ...], float]
_CHECK = ("check", "kind", "level")
_GROUP = ("group",)
_MEMBER = ("group", "member")


def _by_check(value: Callable[[CheckStatus], float | None], document: StatusDocument) -> Iterator[Reading]:
    for check in document.checks:
        number = value(check)
        if number is not None:
            yield (check.name, check.kind, check.level), number


def _by_group(value: Callable[[GroupStatus, StatusDocument], float | None], document: StatusDocument) -> Iterator[Reading]:
    for group in document.groups:
        number = value(group, document)
        if number is not None:
            yield (group.name,), number


def _check_states(document: StatusDocument) -> Iterator[Reading]:
    for check in document.checks:
        for state in Status:
            yield (check.name, check.kind, check.level, state.value), check.status == state


def _situations(document: StatusDocument) -> Iterator[Reading]:
    for group in document.groups:
        for situation in Situation:
            yield (group.name, situation.value), group.situation == situation


def _votes(document: StatusDocument) -> Iterator[Reading]:
    for group in document.groups:
        down = sum(vote.counts for vote in group.votes)
        yield (group.name, "down"), down
        yield (group.name, "up"), sum(not vote.down for vote in group.votes)


def _fences(document: StatusDocument) -> Iterator[Reading]:
    for group in document.groups:
        for layer in FenceLayer:
            yield (group.name, layer.value), layer in group.fences.standing


def _healthy_members(document: StatusDocument) -> Iterator[Reading]:
    for group in document.groups:
        for member in group.members:
            yield (group.name, member.name), member.healthy


def _lags(document: StatusDocument) -> Iterator[Reading]:
    for group in document.groups:
        for member in group.members:
            if member.role is Role.STANDBY and member.lag_bytes is not None:
                yield (group.name, member.name), member.lag_bytes


def _routes(value: Callable[[RouteStatus], float], document: StatusDocument) -> Iterator[Reading]:
    """What follows the leader, as it is on this very node."""
    for group in document.groups:
        for member in group.members:
            if member.name == document.node:
                for route in member.routes:
                    yield (group.name, route.name), value(route)


def _is_leader(group: GroupStatus, document: StatusDocument) -> float:
    return group.leader == document.node and bool(group.lease_remaining_s)


def _sync_wait_s(group: GroupStatus, document: StatusDocument) -> float | None:
    if group.sync_wait is not None:
        return group.sync_wait.silent_s
    return 0.0 if _is_leader(group, document) else None


@dataclass(frozen=True, slots=True)
class Shown:
    """A gauge that is read out of the document when somebody asks."""

    name: str
    sentence: str
    labels: tuple[str, ...]
    read: Callable[[StatusDocument], Iterable[Reading]]


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter, histogram or gauge that changes when something happens. `bounds`: the buckets of a histogram, in seconds."""

    name: str
    sentence: str
    labels: tuple[str, ...]
    of: type[MetricWrapperBase]
    bounds: tuple[float, ...] = ()


_SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)

TABLE: tuple[Shown | Counted, ...] = (
    Shown("quorate_build_info", "Version of this agent; always 1.", ("version",), lambda d: [((d.version,), 1)]),
    # -------- checks
    Shown("quorate_check_status", "1 for the state that the check is in, 0 for the others.", (*_CHECK, "state"), _check_states),
    Shown(
        "quorate_check_last_run_timestamp_seconds",
        "When the check last ended.",
        _CHECK,
        partial(_by_check, lambda check: check.last_run_wall_s),
    ),
    Counted("quorate_check_last_success_timestamp_seconds", "When the check last was healthy.", _CHECK, Gauge),
    Counted("quorate_check_runs_total", "Runs of the check.", _CHECK, Counter),
    Counted("quorate_check_failures_total", "Runs of the check that were unhealthy or could not ask.", _CHECK, Counter),
    Counted("quorate_check_duration_seconds", "How long a run of the check took.", _CHECK, Histogram, _SHORT_S),
    # -------- groups
    Shown("quorate_group_is_leader", "1 if this node leads the group under a lease that lasts.", _GROUP, partial(_by_group, _is_leader)),
    Shown("quorate_group_epoch", "The epoch of the group's lease.", _GROUP, partial(_by_group, lambda g, _: g.epoch)),
    Shown("quorate_group_situation", "1 for the situation that this node is in, 0 for the others.", (*_GROUP, "situation"), _situations),
    Shown(
        "quorate_lease_remaining_seconds",
        "What is left of this node's own lease; no series on other nodes.",
        _GROUP,
        partial(_by_group, lambda g, _: g.lease_remaining_s),
    ),
    Counted("quorate_lease_renewal_seconds", "From sending a renewal of the lease to its commit.", _GROUP, Histogram, _SHORT_S),
    Shown("quorate_observer_votes", "Votes on the leader's service: down ones that count, and up ones.", (*_GROUP, "vote"), _votes),
    Shown(
        "quorate_failover_possible",
        "1 if a failover could be done right now, as this node sees it.",
        _GROUP,
        partial(_by_group, lambda g, _: g.failover_possible),
    ),
    Shown(
        "quorate_watchdog_armed",
        "1 if this node's watchdog is alive and holds a deadline for the group.",
        _GROUP,
        partial(_by_group, lambda g, _: g.fences.watchdog_alive and g.fences.armed_epoch is not None),
    ),
    Shown(
        "quorate_sync_wait_seconds",
        "How long a standby that commits wait for has been silent; 0: none is. No series on other nodes.",
        _GROUP,
        partial(_by_group, _sync_wait_s),
    ),
    Shown(
        "quorate_failsafe_active",
        "1 if this node's lease stands by the voters' promises because the coordinator commits nothing.",
        _GROUP,
        partial(_by_group, lambda g, _: g.failsafe.active),
    ),
    Shown(
        "quorate_failsafe_promises",
        "Promises that carry this node's lease; no series before anybody was asked.",
        _GROUP,
        partial(_by_group, lambda g, _: g.failsafe.promises if g.failsafe.active else None),
    ),
    Shown("quorate_fence_stands", "1 if this layer fences the group's service on this node, 0 if not.", (*_GROUP, "layer"), _fences),
    Shown(
        "quorate_route_present",
        "1 if what follows the leader points to this node, 0 if not.",
        (*_GROUP, "route"),
        partial(_routes, lambda route: bool(route.present)),
    ),
    Shown(
        "quorate_route_conflict",
        "1 if somebody else answers for what this node raised or wants to raise.",
        (*_GROUP, "route"),
        partial(_routes, lambda route: bool(route.rival)),
    ),
    Shown("quorate_group_member_healthy", "1 if the node is what it should be in the group.", _MEMBER, _healthy_members),
    Shown("quorate_replication_lag_bytes", "Bytes that the standby is behind what the leader published last.", _MEMBER, _lags),
    Counted(
        "quorate_failovers_total", "Changes of leader that this node took part in as the new one.", (*_GROUP, "reason", "outcome"), Counter
    ),
    Counted("quorate_failover_duration_seconds", "How long nobody led.", _GROUP, Histogram, _LONG_S),
    Counted("quorate_fences_total", "Fences of the local service.", (*_GROUP, "layer"), Counter),
    # -------- the agent itself
    Counted("quorate_action_duration_seconds", "How long a command took.", ("action", "outcome"), Histogram, _LONG_S),
    Counted(
        "quorate_coordination_request_duration_seconds",
        "How long the coordinator took to answer.",
        ("request", "outcome"),
        Histogram,
        _SHORT_S,
    ),
    Shown("quorate_coordination_up", "1 if the coordinator answers this node.", (), lambda d: [((), d.coordination.up)]),
)

METRIC_NAMES: tuple[str, ...] = tuple(row.name for row in TABLE)


class _DocumentCollector(Collector):
    """Reads the `Shown` rows of the table out of the newest document."""

    def __init__(self) -> None:
        self.document: StatusDocument | None = None

    def collect(self) -> Iterator[Metric]:
        if self.document is None:
            return
        for row in TABLE:
            if isinstance(row, Shown):
                family = GaugeMetricFamily(row.name, row.sentence, labels=row.labels)
                for labels, value in row.read(self.document):
                    family.add_metric(labels, float(value))
                yield family


class Metrics:
    """The agent's metrics, in a registry of their own. Not for several threads."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._shown = _DocumentCollector()
        self._registry.register(self._shown)
        self._counted = {row.name: _make(row, self._registry) for row in TABLE if isinstance(row, Counted)}
        self._checks: frozenset[CheckKey] = frozenset()
        self._groups: frozenset[str] = frozenset()

    def exposition(self, document: StatusDocument, accept: str = "") -> tuple[bytes, str]:
        """The answer to a scrape, and its content type, in the format that the Accept header asks for."""
        self._shown.document = document
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def keep(self, checks: Iterable[CheckKey], groups: Iterable[str]) -> None:
        """Count for these checks and groups, from zero where they are new; forget all others. Call it after each (re)load."""
        self._checks, self._groups = self._checks & frozenset(checks), self._groups & frozenset(groups)
        self._forget_others()
        self._checks, self._groups = frozenset(checks), frozenset(groups)
        for key in self._checks:
            for name in ("quorate_check_runs_total", "quorate_check_failures_total"):
                self._counter(name, key.check, key.kind, key.level)
        for group in self._groups:
            for layer in FenceLayer:
                self._counter("quorate_fences_total", group, layer.value)
            for reason, outcome in product(HistoryReason, FailoverOutcome):  # without a zero before it, the first failover is no increase
                self._counter("quorate_failovers_total", group, reason.value, outcome.value)

    def _forget_others(self) -> None:
        checks = {(key.check, key.kind, key.level) for key in self._checks}
        for row in TABLE:
            if isinstance(row, Counted) and row.labels[0] in {"check", "group"}:
                for labels in _series(self._counted[row.name]):
                    if not (labels[:3] in checks if row.labels[0] == "check" else labels[0] in self._groups):
                        self._counted[row.name].remove(*labels)

    # -------------------------------------------------------------- what happened

    def check_ran(self, key: CheckKey, status: Status, latency_s: float, wall_s: float) -> None:
        """A check ended at `wall_s` (seconds since 1970). UNKNOWN counts as a failure of the check."""
        if key not in self._checks:
            return
        labels = (key.check, key.kind, key.level)
        self._counter("quorate_check_runs_total", *labels).inc()
        if status in (Status.UNHEALTHY, Status.UNKNOWN):
            self._counter("quorate_check_failures_total", *labels).inc()
        elif status is Status.HEALTHY:
            self._gauge("quorate_check_last_success_timestamp_seconds", *labels).set(wall_s)
        self._histogram("quorate_check_duration_seconds", *labels).observe(latency_s)

    def failover_ended(self, group: str, reason: HistoryReason, outcome: FailoverOutcome, duration_s: float | None) -> None:
        """This node became the group's leader, or failed to. `duration_s`: how long nobody led; None: not known."""
        if group not in self._groups:
            return
        self._counter("quorate_failovers_total", group, reason.value, outcome.value).inc()
        if duration_s is not None:
            self._histogram("quorate_failover_duration_seconds", group).observe(duration_s)

    def service_fenced(self, group: str, layer: FenceLayer) -> None:
        """The local service was fenced by this layer."""
        if group in self._groups:
            self._counter("quorate_fences_total", group, layer.value).inc()

    def lease_renewed(self, group: str, duration_s: float) -> None:
        """A renewal was committed so long after it was sent."""
        if group in self._groups:
            self._histogram("quorate_lease_renewal_seconds", group).observe(duration_s)

    def action_ended(self, command: type[Command], outcome: ActionOutcome, duration_s: float) -> None:
        """A command ended."""
        self._histogram("quorate_action_duration_seconds", _snake(command.__name__), outcome.value).observe(duration_s)

    def coordination_asked(self, request: Request, outcome: RequestOutcome, duration_s: float) -> None:
        """The coordinator answered, or did not within its deadline."""
        self._histogram("quorate_coordination_request_duration_seconds", request.value, outcome.value).observe(duration_s)

    def _counter(self, name: str, *labels: str) -> Counter:
        return _child(Counter, self._counted[name], labels)

    def _gauge(self, name: str, *labels: str) -> Gauge:
        return _child(Gauge, self._counted[name], labels)

    def _histogram(self, name: str, *labels: str) -> Histogram:
        return _child(Histogram, self._counted[name], labels)


C = TypeVar("C", bound=MetricWrapperBase)


def _make(row: Counted, registry: CollectorRegistry) -> MetricWrapperBase:
    if row.of is Histogram:
        return Histogram(row.name, row.sentence, row.labels, registry=registry, buckets=row.bounds)
    return row.of(row.name, row.sentence, row.labels, registry=registry)


def _child(kind: type[C], parent: MetricWrapperBase, labels: tuple[str, ...]) -> C:
    child = parent.labels(*labels)
    assert isinstance(child, kind)
    return child


def _series(metric: MetricWrapperBase) -> list[tuple[str, ...]]:
    """The label values of all series that the metric has now, each in the order of its labels."""
    names = metric._labelnames  # noqa: SLF001 the library has no other way to list them
    return list(dict.fromkeys(tuple(s.labels[n] for n in names) for family in metric.collect() for s in family.samples))


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
