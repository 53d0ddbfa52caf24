"""Runs the tiers of tests in order and sums them up: `python -m tests.run fast` or `all`, which is what make does.

Each tier is a pytest of its own, so that one broken tier hides no other. Tests marked `alone` (they assert a duration) run at the end, one
at a time. The last lines are a table, the sum, and what was left out and how to get it. An empty tier is an error: it would look green.
Only the standard library; ends with the first tier's exit code that was not 0.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.install import needs
from tests.install.parts import Missing
from tests.plugins.left_out import is_ci

ROOT = Path(__file__).resolve().parents[1]
CORES = os.cpu_count() or 1
NO_TESTS_COLLECTED = 5
INTERRUPTED = 130
CLEAN_UP_S = 60


@dataclass(frozen=True)
class Tier:
    """One folder of tests. `workers`: how many run side by side; `optional`: may not exist yet."""

    name: str
    workers: int
    optional: bool = False

    @property
    def folder(self) -> Path:
        return ROOT / "tests" / self.name

    @property
    def exists(self) -> bool:
        return any(self.folder.rglob("test_*.py"))


FAST = (
    Tier("unit", min(CORES, 4)),
    Tier("scenarios", min(CORES, 2)),
    Tier("contract", min(CORES, 4)),
    Tier("tidy", min(CORES, 2)),
)
ALL = (
    *FAST,
    Tier("simulation", CORES, optional=True),
    Tier("integration", min(max(CORES, 2), 3)),
    Tier("lab", 2, optional=True),
    Tier("bench", 1),  # its pure parts; what measures the peers is no test: `make bench`
)


@dataclass
class Outcome:
    """What one pytest run said."""

    name: str
    exit_code: int = 0
    seconds: float = 0.0
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    complaint: str = ""

    def total(self, outcome: str) -> int:
        return sum(counts.get(outcome, 0) for counts in self.counts.values())

    @property
    def failed(self) -> int:
        """At least 1 when the run as a whole went wrong."""
        return max(self.total("failed"), int(self.exit_code != 0))


def main() -> int:
    """Run what the command line names; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.run", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("which", choices=("fast", "all"))
    which = parser.parse_args().which
    missing = needs.prepare(lambda sentence: say(f"needs: {sentence}")) if which == "all" else ()
    try:
        outcomes = [run_fast(FAST)] if which == "fast" else run(ALL)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    return report(outcomes, missing)


def say(line: str) -> None:
    """One line for the person who waits, in order with what pytest prints."""
    print(line, flush=True)


def run_fast(tiers: Sequence[Tier]) -> Outcome:
    """The same tiers in one pytest, without what is marked `slow` or `alone`: for while one works. A tier without a test is an error."""
    say(f"\n== fast: {', '.join(tier.name for tier in tiers)} ({CORES} at a time)")
    side_by_side = ["-n", str(CORES), "--dist", "worksteal"]
    outcome = _pytest("fast", ["-m", "not alone and not slow", *side_by_side, *(str(tier.folder) for tier in tiers)])
    empty = [tier.name for tier in tiers if not outcome.counts.get(tier.name)]
    if empty:
        outcome.exit_code = outcome.exit_code or 1
        outcome.complaint = f"no test was found in {', '.join(empty)}"
    return outcome


def run(tiers: Iterable[Tier]) -> list[Outcome]:
    """Each tier side by side as far as it can, then what must be alone."""
    present = [tier for tier in tiers if tier.exists or not tier.optional]
    outcomes = [run_tier(tier) for tier in present]
    alone = run_alone(present)
    for outcome in outcomes:
        judge_emptiness(outcome, alone)
    return [*outcomes, alone] if alone.counts or alone.exit_code else outcomes


def run_tier(tier: Tier) -> Outcome:
    """All of one tier but what its selection leaves out."""
    say(f"\n== {tier.name} ({tier.workers} at a time)")
    if not tier.exists:
        return Outcome(tier.name, exit_code=1, complaint="there is no test file in its folder")
    side_by_side = ["-n", str(tier.workers), "--dist", "worksteal"] if tier.workers > 1 else ["-p", "no:xdist"]
    return _pytest(tier.name, ["-m", "not alone", *side_by_side, str(tier.folder)])


def run_alone(tiers: Iterable[Tier]) -> Outcome:
    """What is marked `alone`, of these tiers, one at a time; nothing marked is no error."""
    say("\n== alone (they assert a duration: one at a time)")
    outcome = _pytest("alone", ["-m", "alone", "-p", "no:xdist", *(str(tier.folder) for tier in tiers if tier.exists)])
    if outcome.exit_code == NO_TESTS_COLLECTED:
        outcome.exit_code = 0
    return outcome


def judge_emptiness(outcome: Outcome, alone: Outcome) -> None:
    """A tier without a single test is an error, unless all of its tests ran alone."""
    if outcome.exit_code != NO_TESTS_COLLECTED:
        return
    if alone.counts.get(outcome.name):
        outcome.exit_code = 0
    else:
        outcome.complaint = "no test was found in it"


def _pytest(name: str, arguments: list[str]) -> Outcome:
    """Run pytest with the tally plugin and read what it counted."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="q-tally-") as folder:
        tally = Path(folder) / "tally.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.plugins.tally", *arguments]
        exit_code = _wait(subprocess.Popen(command, cwd=ROOT, env=os.environ | {"QUORATE_TALLY": str(tally)}))
        said = json.loads(tally.read_text(encoding="utf-8")) if tally.exists() else {"counts": {}, "left_out": {}}
    return Outcome(name, exit_code, time.monotonic() - began_s, said["counts"], said["left_out"])


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Its exit code. On Ctrl-C pytest gets it too, and the time to end the servers that it started."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            process.wait(CLEAN_UP_S)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            process.kill()
        raise


def report(outcomes: list[Outcome], missing: tuple[Missing, ...]) -> int:
    """Print the table, the sum and what was left out; the exit code."""
    say(f"\n{'tier':<14}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for outcome in outcomes:
        complaint = f"  {outcome.complaint}" if outcome.complaint else ""
        numbers = f"{outcome.total('passed'):>8}{outcome.failed:>8}{outcome.total('skipped'):>9}{outcome.seconds:>9.1f}"
        say(f"{outcome.name:<14}{numbers}{complaint}")
    unmet = [f"{each.part.name}: {each.cause}" for each in missing] if is_ci() else []
    for sentence in unmet:
        say(f"with CI=true a missing part is a failure: {sentence}")
    skipped = sum(outcome.total("skipped") for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes) + len(unmet)
    closing = f"{sum(outcome.total('passed') for outcome in outcomes)} passed, {failed} failed"
    say(f"{closing}, {skipped} skipped" if skipped else closing)
    say(left_out_line(outcomes, missing))
    return next((outcome.exit_code for outcome in outcomes if outcome.exit_code), int(bool(unmet)))


def left_out_line(outcomes: Iterable[Outcome], missing: Iterable[Missing]) -> str:
    """The last line: everything that did not run, once each, and how to get it."""
    reasons = {each.part.left_out: each.part.how for each in missing}
    for outcome in outcomes:
        reasons |= outcome.left_out
    if not reasons:
        return "Nothing was left out."
    return "LEFT OUT: " + "; ".join(f"{reason} ({how})" for reason, how in reasons.items())


if __name__ == "__main__":
    sys.exit(main())
