"""The only ways in which a test may not run: `left_out(reason, how)`, which with CI=true is a failure, and `does_not_apply(reason)`.

A skip that nobody reads is a test that nobody has. What is left out travels with the report (user property `left_out`), also from xdist's
workers; tests/run.py collects it from all tiers into its last line. tests/tidy forbids pytest.skip and its relatives everywhere else.
PYTEST_DONT_REWRITE: fixtures import this module before pytest loads it as a plugin, and it asserts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

import pytest
from _pytest.outcomes import Skipped  # = pytest.skip.Exception, by the name that a type checker can read

from tests.install import needs

PROPERTY = "left_out"
DOES_NOT_APPLY = "does not apply: "


class LeftOut(Skipped):
    """A test that this machine cannot run: why, and how to make it able to."""

    def __init__(self, reason: str, how: str) -> None:
        super().__init__(f"LEFT OUT: {reason} ({how})")
        self.reason = reason
        self.how = how


def left_out(reason: str, how: str) -> NoReturn:
    """End the running test or fixture as left out. `reason`: what is missing and what it is for; `how`: what a person does to get it."""
    if is_ci():
        pytest.fail(f"with CI=true nothing may be missing: {reason} ({how})", pytrace=False)
    raise LeftOut(reason, how)


def require_part(name: str) -> Path:
    """Where a part of tests/install/needs.py is; the test is left out when it is nowhere."""
    found = needs.find(name)
    if found is None:
        part = needs.PARTS[name]
        left_out(part.left_out, part.how)
    return found


def does_not_apply(reason: str) -> NoReturn:
    """End a test of a shared suite whose promise this kind does not give. Nothing is missing, so it is skipped, with CI=true too."""
    raise Skipped(f"{DOES_NOT_APPLY}{reason}")


def is_ci() -> bool:
    """Whether a missing part is a failure."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, LeftOut):
        report.user_properties.append((PROPERTY, [call.excinfo.value.reason, call.excinfo.value.how]))
    return report
