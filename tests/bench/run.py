"""One run: build the scene, wait until all is well, break it once, watch until it is over or the time is, and read the figures.

The figures are the lab's: tests/lab/measures.py over what the client's host wrote down.
"""

from __future__ import annotations

import datetime as dt
import itertools
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.contenders import Contender
from tests.bench.driver import Driver
from tests.bench.faults import Fault
from tests.bench.results import Run
from tests.bench.scene import LEADER
from tests.bench.table import BOUND_S
from tests.lab import measures
from tests.lab.measures import Acknowledged, Samples
from tests.lab.network import LabFailed
from tests.lab.wire import now_ns

WATCH_S = BOUND_S + 20
"""An outage is waited for this long."""
SETTLED_S = 4.0
"""So long the writer must get its rows again before an outage counts as over."""
GAP_S = 0.3
"""A longer pause between two rows is part of an outage."""
SURELY_OVER_S = 1.0
"""A pause longer than this at the end of the watch: the outage has not ended."""
OVERLAP_SHOWN_S = 8.0
"""An overlap is watched for this long, then it `went on`."""
WRITES_BEFORE_S = 2.0
LOOK_S = 0.25

_never = threading.Event()

DriverOf = Callable[[Contender, Fault], Driver]


@dataclass(frozen=True)
class Sight:
    """What the client's host has written down up to now."""

    ledger: list[Acknowledged]
    samples: Samples
    at_ns: int

    def outage_s(self, fault_ns: int) -> float:
        return measures.outage_s(self.ledger, fault_ns, self.at_ns)

    @property
    def open_gap_s(self) -> float:
        return (self.at_ns - max((row.at_ns for row in self.ledger), default=0)) / 1e9

    def taken_lately_by(self) -> set[str]:
        """Members that took a write within the last half second."""
        return {name for name, spans in self.samples.spans.items() if spans and self.at_ns - spans[-1].last_answered_ns < 500_000_000}


def run(contender: Contender, fault: Fault, driver_of: DriverOf) -> Run:
    """Do it. LabFailed or AssertionError when the stage itself did not come to stand."""
    with driver_of(contender, fault) as driver:
        driver.start()
        _wait(WRITES_BEFORE_S + random.uniform(0, contender.settings.period_s))  # noqa: S311 (spread over the loop's phase)
        before = look(driver)
        if before.taken_lately_by() != {LEADER} or before.open_gap_s > GAP_S:
            raise LabFailed(f"before the fault {sorted(before.taken_lately_by())} took writes, the last row {before.open_gap_s:.1f} s ago")
        fault_ns = now_ns()
        driver.do(fault)
        seen = watch(driver, fault, fault_ns)
        return judge(driver, contender, fault, fault_ns, seen)


def look(driver: Driver) -> Sight:
    """Read the client's files."""
    ledger = measures.read_ledger((driver.client_folder / "ledger").read_text(encoding="ascii"))
    samples = measures.read_samples((driver.client_folder / "samples").read_text(encoding="ascii"))
    return Sight(ledger, samples, now_ns())


def watch(driver: Driver, fault: Fault, fault_ns: int) -> Sight:
    """Until it is over, at most WATCH_S and what an overlap is watched beyond."""
    is_over = _safety_is_over if fault.is_about_safety else _outage_is_over
    longest_s = WATCH_S + (OVERLAP_SHOWN_S if fault.is_about_safety else 0.0)
    deadline_ns = fault_ns + int(longest_s * 1e9)
    while not is_over(seen := look(driver), fault_ns) and seen.at_ns < deadline_ns:
        _wait(LOOK_S)
    return seen


def _outage_is_over(seen: Sight, fault_ns: int) -> bool:
    """The writer has had its rows without a gap for a while, and a while has passed since the fault."""
    since_ns = seen.at_ns - int(SETTLED_S * 1e9)
    if since_ns < fault_ns:
        return False
    late = [row.at_ns for row in seen.ledger if row.at_ns >= since_ns]
    marks = [since_ns, *late, seen.at_ns]
    return max(b - a for a, b in itertools.pairwise(marks)) / 1e9 < GAP_S


def _safety_is_over(seen: Sight, fault_ns: int) -> bool:
    """Another member has taken writes for as long as an overlap is watched."""
    begun = [
        span.first_answered_ns
        for name, spans in seen.samples.spans.items()
        for span in spans
        if name != LEADER and span.first_sent_ns > fault_ns
    ]
    return bool(begun) and seen.at_ns - min(begun) > OVERLAP_SHOWN_S * 1e9


def judge(driver: Driver, contender: Contender, fault: Fault, fault_ns: int, seen: Sight) -> Run:
    """The figures at the end of the watch."""
    present = _present(driver, seen)
    return Run(
        contender=contender.name,
        fault=fault,
        outage_s=round(seen.outage_s(fault_ns), 3),
        recovered=seen.open_gap_s < SURELY_OVER_S,
        overlap_s=round(measures.overlap_s(seen.samples), 3),
        overlap_went_on=len(seen.taken_lately_by()) > 1,
        acknowledged=len(seen.ledger),
        lost=None if present is None else len(measures.lost(seen.ledger, present)),
        blind_s=round(measures.blind_s(seen.samples), 3),
        load=round(os.getloadavg()[0], 1),
        at=dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds"),
    )


def _present(driver: Driver, seen: Sight) -> frozenset[int] | None:
    """Rows of the newest primary: the one on the highest timeline of those that take writes. None: nobody does."""
    timelines = {
        name: int(answer)
        for name in sorted(seen.taken_lately_by())
        if (answer := driver.psql(name, "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"))
    }
    if not timelines:
        return None
    newest = max(timelines, key=lambda name: timelines[name])
    answer = driver.psql(newest, "SELECT id FROM lab_ledger")
    return None if answer is None else frozenset(int(line) for line in answer.split())


def _wait(seconds: float) -> None:
    """Let real time pass; the bench is about nothing else."""
    _never.wait(seconds)
