"""Nothing is half there: every command has an executor; every situation a scenario and a runbook heading; every metric a reader."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator

from agent.decision import command
from agent.decision.command import Command, Resource
from agent.decision.situation import Situation
from agent.execution.executor import EXECUTORS
from tests.tidy import code

METRICS = "agent/reporting/metrics.py"
RUNBOOK = "alerts/README.md"
METRIC_NAME = re.compile(r"quorate_[a-z][a-z0-9_]*[a-z0-9]")


def commands() -> set[type[Command]]:
    """Every command there is."""
    found = (value for value in vars(command).values() if isinstance(value, type) and issubclass(value, Command))
    return {each for each in found if each is not Command}


def metrics() -> set[str]:
    """The names in the table of metrics: whole strings, so that a search for one finds it."""
    nodes = ast.walk(code.module(METRICS).tree)
    return {
        node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str) and METRIC_NAME.fullmatch(node.value)
    }


def texts(*folders: str) -> Iterator[str]:
    return (code.text_of(path) for path in code.files() if path.startswith(folders))


def test_every_command_has_an_executor() -> None:
    code.want_none(
        f"{each.__name__}: no entry in EXECUTORS" for each in sorted(commands() - set(EXECUTORS), key=lambda each: each.__name__)
    )
    assert set(EXECUTORS) == commands()


def test_every_command_is_a_frozen_value_with_a_resource() -> None:
    for each in commands():
        assert dataclasses.is_dataclass(each), each
        assert each.__dataclass_params__.frozen, each  # type: ignore[attr-defined]  # dataclass's own record of how it was made
        assert isinstance(each.resource, Resource), each


def test_every_situation_has_a_runbook_heading() -> None:
    headings = re.findall(r"^#+ .*$", code.existing_text(RUNBOOK), re.MULTILINE)
    said = {word for heading in headings for word in re.findall(r"\w+", heading)}
    code.want_none(f"{RUNBOOK}: no heading with `{each.value}`" for each in Situation if each.value not in said)


def test_every_situation_has_a_scenario() -> None:
    told = "\n".join(texts("tests/scenarios/"))
    named = {each for each in Situation if re.search(rf"\b{each.value}\b|\bSituation\.{each.name}\b", told)}
    code.want_none(f"tests/scenarios: none with the situation `{each.value}`" for each in Situation if each not in named)


def test_every_metric_is_read_by_an_alert_or_a_panel() -> None:
    assert metrics(), f"{METRICS} names no metric as a whole string"
    read = "\n".join(texts("alerts/", "grafana/"))
    code.want_none(f"{name}: no alert and no panel reads it" for name in sorted(metrics()) if not re.search(rf"\b{name}", read))


def test_alerts_and_panels_read_only_metrics_that_exist() -> None:
    read = {name for text in texts("alerts/", "grafana/") for name in METRIC_NAME.findall(text)}
    known = {f"{name}{suffix}" for name in metrics() for suffix in ("", "_total", "_bucket", "_sum", "_count", "_created")}
    code.want_none(f"{name}: read by an alert or a panel, and nobody writes it" for name in sorted(read - known))
