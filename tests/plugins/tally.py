"""Counts the outcome of a pytest run by tier and writes it where QUORATE_TALLY says. tests/run.py loads it and sums up.

A set-up that failed and a file that could not be collected count as failed; under xdist only the controller counts.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.plugins.left_out import DOES_NOT_APPLY, PROPERTY

VARIABLE = "QUORATE_TALLY"


class Tally:
    """What happened, as the reports say."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.counts: dict[str, Counter[str]] = {}
        self.left_out: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or report.skipped or report.when == "call":
            self._count(report.nodeid, report.outcome)
        if report.skipped:
            self.left_out |= _left_out(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._count(report.nodeid, "failed")

    def pytest_sessionfinish(self) -> None:
        self.target.write_text(json.dumps({"counts": self.counts, "left_out": self.left_out}), encoding="utf-8")

    def _count(self, nodeid: str, outcome: str) -> None:
        parts = nodeid.split("::", maxsplit=1)[0].split("/")
        tier = parts[1] if len(parts) > 1 and parts[0] == "tests" else parts[0]
        self.counts.setdefault(tier, Counter())[outcome] += 1


def _left_out(report: pytest.TestReport) -> dict[str, str]:
    """Why and how, as left_out() said; a skip by other means is told too, for it would be the only one that nobody hears of."""
    for name, value in report.user_properties:
        if name == PROPERTY and isinstance(value, (list, tuple)):
            reason, how = value
            return {str(reason): str(how)}
    said = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr).removeprefix("Skipped: ")
    return {} if said.startswith(DOES_NOT_APPLY) else {said: f"skipped without a way to get it: {report.nodeid}"}


def pytest_configure(config: pytest.Config) -> None:
    target = os.environ.get(VARIABLE)
    if target and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Tally(Path(target)), "quorate-tally")
