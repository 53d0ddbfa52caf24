from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agent.coordination.history import HistoryReason
from agent.decision.command import PromoteService
from agent.decision.situation import Situation
from agent.decision.view import FenceLayer, RouteState
from agent.reporting.metrics import (
    METRIC_NAMES,
    TABLE,
    ActionOutcome,
    CheckKey,
    FailoverOutcome,
    Metrics,
    Request,
    RequestOutcome,
)
from agent.reporting.status import GroupStatus, MemberStatus, RouteStatus, StatusDocument, SyncWaitStatus
from checks.base import Status
from tests.plugins.left_out import require_part
from tests.unit.agent.reporting.samples import WALL_S, check_status, document

ROOT = Path(__file__).parents[4]
ALERTS, GRAFANA = ROOT / "alerts", ROOT / "grafana"

ALIVE = CheckKey("pg-alive", "postgres", "liveness")
GATEWAY = CheckKey("gateway", "tcp", "liveness")

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(metrics: Metrics, status: StatusDocument | None = None) -> Series:
    text = metrics.exposition(status or document())[0].decode()
    return {(s.name, frozenset(s.labels.items())): s.value for family in text_string_to_metric_families(text) for s in family.samples}


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.keep([ALIVE, GATEWAY], ["pg-main"])
    return made


def everything(metrics: Metrics) -> None:
    """Have each counted metric make a series."""
    metrics.check_ran(ALIVE, Status.HEALTHY, 0.002, WALL_S)
    metrics.failover_ended("pg-main", HistoryReason.CRASHED, FailoverOutcome.DONE, 0.4)
    metrics.service_fenced("pg-main", FenceLayer.WATCHDOG)
    metrics.lease_renewed("pg-main", 0.003)
    metrics.action_ended(PromoteService, ActionOutcome.DONE, 0.11)
    metrics.coordination_asked(Request.TRANSACT, RequestOutcome.ANSWERED, 0.002)


def test_every_metric_of_the_table_is_there(metrics: Metrics) -> None:
    everything(metrics)
    text = metrics.exposition(document())[0].decode()
    assert {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")} == set(METRIC_NAMES)
    assert len(METRIC_NAMES) == len(set(METRIC_NAMES)) == len(TABLE)


def test_no_label_has_a_name_that_collides() -> None:
    assert not {label for row in TABLE for label in row.labels} & {"type", "cluster", "service", "env", "zone", "instance", "job"}


def test_check_states_are_a_set(metrics: Metrics) -> None:
    labels = {"check": "pg-alive", "kind": "postgres", "level": "liveness"}
    series = read(metrics, replace(document(), checks=(check_status(status="degraded"),)))
    assert {s.value: value(series, "quorate_check_status", **labels, state=s.value) for s in Status} == {
        "healthy": 0,
        "degraded": 1,
        "unhealthy": 0,
        "unknown": 0,
    }
    assert value(series, "quorate_check_last_run_timestamp_seconds", **labels) == WALL_S - 1


def test_group_numbers_come_out_of_the_document(metrics: Metrics) -> None:
    series = read(metrics)
    group = {"group": "pg-main"}
    assert value(series, "quorate_group_is_leader", **group) == 1
    assert value(series, "quorate_group_epoch", **group) == 3
    assert value(series, "quorate_lease_remaining_seconds", **group) == 3.5
    assert value(series, "quorate_failover_possible", **group) == 1
    assert value(series, "quorate_watchdog_armed", **group) == 1
    assert [value(series, "quorate_fence_stands", **group, layer=layer) for layer in ("seal", "watchdog", "kernel")] == [1, 1, 0]
    assert value(series, "quorate_replication_lag_bytes", **group, member="pg2") == 0x48
    assert value(series, "quorate_replication_lag_bytes", **group, member="pg1") is None
    assert value(series, "quorate_group_member_healthy", **group, member="edge1") == 1
    assert [s for s in Situation if value(series, "quorate_group_situation", **group, situation=s.value)] == [Situation.LEADING]
    assert value(series, "quorate_coordination_up") == 1
    assert value(series, "quorate_build_info", version="0.1.0") == 1


def test_what_follows_the_leader_is_read_of_this_very_node(metrics: Metrics) -> None:
    def members(group: GroupStatus) -> tuple[MemberStatus, ...]:
        return tuple(
            replace(m, routes=(RouteStatus("vip a", RouteState.CONFLICT, m.name == "pg1", "x" if m.name == "pg1" else "", ""),))
            for m in group.members
        )

    well = document()
    series = read(metrics, replace(well, groups=tuple(replace(group, members=members(group)) for group in well.groups)))
    assert value(series, "quorate_route_present", group="pg-main", route="vip a") == 1
    assert value(series, "quorate_route_conflict", group="pg-main", route="vip a") == 1
    assert value(read(metrics), "quorate_route_present", group="pg-main", route="vip a") is None


def test_commits_that_wait_are_the_leaders_to_tell(metrics: Metrics) -> None:
    status = document()
    assert value(read(metrics), "quorate_sync_wait_seconds", group="pg-main") == 0
    waits = replace(status, groups=(replace(status.groups[0], sync_wait=SyncWaitStatus(("pg2",), 1.4, 1.6)),))
    assert value(read(metrics, waits), "quorate_sync_wait_seconds", group="pg-main") == 1.4
    assert value(read(metrics, replace(status, node="pg2")), "quorate_sync_wait_seconds", group="pg-main") is None


def test_a_lease_that_is_over_makes_no_leader(metrics: Metrics) -> None:
    status = document()
    over = replace(status, groups=(replace(status.groups[0], lease_remaining_s=0.0),))
    assert value(read(metrics, over), "quorate_group_is_leader", group="pg-main") == 0
    other = replace(status, node="pg2", groups=(replace(status.groups[0], lease_remaining_s=None),))
    assert value(read(metrics, other), "quorate_group_is_leader", group="pg-main") == 0
    assert value(read(metrics, other), "quorate_lease_remaining_seconds", group="pg-main") is None


def test_what_happened_is_counted(metrics: Metrics) -> None:
    everything(metrics)
    metrics.check_ran(ALIVE, Status.UNHEALTHY, 2.0, WALL_S + 5)
    metrics.check_ran(ALIVE, Status.UNKNOWN, 2.0, WALL_S + 6)
    metrics.check_ran(ALIVE, Status.DEGRADED, 2.0, WALL_S + 7)
    metrics.failover_ended("pg-main", HistoryReason.CRASHED, FailoverOutcome.FAILED, None)
    labels = {"check": "pg-alive", "kind": "postgres", "level": "liveness"}
    series = read(metrics)
    assert value(series, "quorate_check_runs_total", **labels) == 4
    assert value(series, "quorate_check_failures_total", **labels) == 2
    assert value(series, "quorate_check_last_success_timestamp_seconds", **labels) == WALL_S
    assert value(series, "quorate_check_duration_seconds_count", **labels) == 4
    assert value(series, "quorate_failovers_total", group="pg-main", reason="crashed", outcome="done") == 1
    assert value(series, "quorate_failover_duration_seconds_sum", group="pg-main") == 0.4
    assert value(series, "quorate_failover_duration_seconds_count", group="pg-main") == 1
    assert value(series, "quorate_fences_total", group="pg-main", layer="watchdog") == 1
    assert value(series, "quorate_action_duration_seconds_count", action="promote_service", outcome="done") == 1
    assert value(series, "quorate_coordination_request_duration_seconds_count", request="transact", outcome="answered") == 1


def test_counters_begin_at_zero(metrics: Metrics) -> None:
    series = read(metrics)
    assert value(series, "quorate_check_runs_total", check="gateway", kind="tcp", level="liveness") == 0
    assert value(series, "quorate_fences_total", group="pg-main", layer="seal") == 0


def test_what_was_removed_leaves_no_series(metrics: Metrics) -> None:
    everything(metrics)
    metrics.check_ran(GATEWAY, Status.HEALTHY, 0.1, WALL_S)
    metrics.keep([GATEWAY], [])
    metrics.check_ran(ALIVE, Status.HEALTHY, 0.1, WALL_S)
    metrics.lease_renewed("pg-main", 0.1)
    metrics.service_fenced("pg-main", FenceLayer.SEAL)
    metrics.failover_ended("pg-main", HistoryReason.EXPIRED, FailoverOutcome.DONE, 1.0)
    series = read(metrics, replace(document(), checks=(check_status("gateway", "tcp"),), groups=()))
    left = {dict(labels).get("check") or dict(labels).get("group") for _, labels in series}
    assert left == {"gateway", None}
    assert value(series, "quorate_check_runs_total", check="gateway", kind="tcp", level="liveness") == 1, "the others go on"


def test_a_check_that_changed_its_kind_starts_anew(metrics: Metrics) -> None:
    metrics.check_ran(ALIVE, Status.HEALTHY, 0.1, WALL_S)
    metrics.keep([CheckKey("pg-alive", "tcp", "liveness")], [])
    kinds = {dict(labels)["kind"] for name, labels in read(metrics) if name == "quorate_check_runs_total"}
    assert kinds == {"tcp"}


def test_open_metrics_when_asked_for(metrics: Metrics) -> None:
    everything(metrics)
    text, content_type = metrics.exposition(document(), "application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert metrics.exposition(document())[1].startswith("text/plain; version=0.0.4")


def test_promtool_has_nothing_to_say(metrics: Metrics) -> None:
    promtool = require_part("promtool")
    everything(metrics)
    text = metrics.exposition(document())[0]
    said = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b""), f"{said.stderr.decode()}\n{text.decode()}"


def test_promtool_would_say_something() -> None:
    promtool = require_part("promtool")
    bad = b"# TYPE quorate_bad_total gauge\nquorate_bad_total 1\n"
    said = subprocess.run([promtool, "check", "metrics"], input=bad, capture_output=True, timeout=30, check=False)
    assert said.returncode != 0


# ------------------------------------------------------------------ alerts/ and grafana/


def run_promtool(*arguments: str | Path) -> str:
    """What promtool says; it must be content."""
    done = subprocess.run([require_part("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alert_names() -> list[str]:
    rules = yaml.safe_load((ALERTS / "quorate.rules.yml").read_text())
    return [rule["alert"] for group in rules["groups"] for rule in group["rules"]]


@pytest.mark.slow
def test_the_alert_rules_are_valid_and_do_what_they_say() -> None:
    run_promtool("check", "rules", ALERTS / "quorate.rules.yml")
    run_promtool("test", "rules", *sorted((ALERTS / "tests").glob("*.test.yml")))


def test_every_alert_has_a_runbook_heading_and_a_test() -> None:
    headings = set(re.findall(r"^### (\w+)$", (ALERTS / "README.md").read_text(), re.MULTILINE))
    tested = "\n".join(path.read_text() for path in (ALERTS / "tests").glob("*.test.yml"))
    assert [name for name in alert_names() if name not in headings] == []
    assert [name for name in alert_names() if f'"{name}"' not in tested] == []
    assert {h for h in headings if h.startswith("Quorate")} == set(alert_names())


def test_the_runbook_speaks_of_situations_that_exist_only() -> None:
    told = (ALERTS / "README.md").read_text().partition("## Situations")[2]
    assert set(re.findall(r"^### (\w+)$", told, re.MULTILINE)) == {situation.value for situation in Situation}


def test_every_panel_asks_a_valid_question(tmp_path: Path) -> None:
    dashboard = json.loads((GRAFANA / "dashboards" / "quorate.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(asked) > 20
    known = [expression.replace("$__rate_interval", "1m").replace("$group", ".*") for expression in asked]
    rules = {"groups": [{"name": "panels", "rules": [{"record": f"panel:{n}", "expr": e} for n, e in enumerate(known)]}]}
    (tmp_path / "panels.yml").write_text(yaml.safe_dump(rules))
    run_promtool("check", "rules", tmp_path / "panels.yml")
