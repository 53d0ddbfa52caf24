"""Runs to the table of the README: medians with their range, and what could not be measured said as such. Pure: values in, text out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.bench.contenders import Contender
from tests.bench.faults import Fault
from tests.bench.results import Cells, Run

BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"
BOUND_S = 60.0
"""An outage without an end was watched for longer than this."""
LATE_S = 1.0
"""A run whose sampler was blind for longer is not counted."""
NOT_MEASURED = "-"
DOES_NOT_APPLY = "uses no Consul"


@dataclass(frozen=True)
class Circumstances:
    """What the figures were measured on and with, in words."""

    date: str
    machine: str
    versions: str


@dataclass(frozen=True)
class Row:
    """One contender's cells, in the order of the columns."""

    label: str
    cells: Sequence[str]


def outage_cell(runs: Sequence[Run]) -> str:
    """`median (min-max)` of the outages in seconds; `> 60` for those that had no end."""
    if not runs:
        return NOT_MEASURED
    outages = sorted(_outage(run) for run in runs)
    middle, least, most = statistics.median(outages), outages[0], outages[-1]
    return f"{_seconds(middle)} ({_seconds(least)}-{_seconds(most)})" if least != most else _seconds(middle)


def safety_cell(runs: Sequence[Run]) -> str:
    """The worst overlap and the worst loss: of safety a median says nothing."""
    if not runs:
        return NOT_MEASURED
    worst = max(runs, key=lambda run: (run.overlap_s, run.overlap_went_on))
    more = " and more" if worst.overlap_went_on else ""
    overlap = f"**{worst.overlap_s:.{1 if worst.overlap_s >= 0.1 else 2}f}{more}**" if worst.overlap_s > 0 else "0"
    return f"{overlap}; lost {_losses([run.lost for run in runs])}"


def _losses(counts: Sequence[int | None]) -> str:
    known = [count for count in counts if count is not None]
    told = [f"**{max(known)}**" if any(known) else "0"] if any(known) or len(known) == len(counts) else []
    return " and ".join(told + ["unknown"] * (len(known) < len(counts)))


def _outage(run: Run) -> float:
    return run.outage_s if run.recovered else math.inf


def _seconds(value: float) -> str:
    return f"> {BOUND_S:.0f}" if value == math.inf else f"{value:.1f}"


def rows(contenders: Iterable[Contender], faults: Sequence[Fault], cells: Cells) -> list[Row]:
    """A row for each contender that was measured at all."""
    found = []
    for contender in contenders:
        of_it = {fault: [run for run in cells.get((contender.name, fault), ()) if run.blind_s <= LATE_S] for fault in faults}
        if not any(of_it.values()):
            continue
        shown = [_cell(contender, fault, of_it[fault]) for fault in faults]
        others = [run for fault in faults if not fault.is_about_safety for run in of_it[fault]]
        found.append(Row(contender.label, [*shown, safety_cell(others), _count([len(runs) for runs in of_it.values() if runs])]))
    return found


def _cell(contender: Contender, fault: Fault, runs: Sequence[Run]) -> str:
    if fault.needs_consul and not contender.uses_consul:
        return DOES_NOT_APPLY
    show: Callable[[Sequence[Run]], str] = safety_cell if fault.is_about_safety else outage_cell
    return show(runs)


def _count(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)}-{max(counts)}"


def markdown(found: Sequence[Row], faults: Sequence[Fault]) -> str:
    """The table."""
    safety = [f"overlap in s; rows lost: {fault.heading}" for fault in faults if fault.is_about_safety]
    outages = [fault.heading for fault in faults if not fault.is_about_safety]
    headings = ["settings", *outages, *safety, "the same: the first four faults", "runs a cell"]
    lines = [_line(headings), _line(["---"] * len(headings)), *(_line([row.label, *row.cells]) for row in found)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def section(found: Sequence[Row], faults: Sequence[Fault], circumstances: Circumstances, notes: Sequence[str]) -> str:
    """Everything between the marks of the README."""
    told = "".join(f"- {note}\n" for note in notes)
    return (
        f"{BEGIN}\n"
        f"Measured {circumstances.date} on {circumstances.machine}.\n"
        f"{circumstances.versions}.\n\n"
        f"{markdown(found, faults)}\n\n"
        f"{told}{END}"
    )


def replace_section(text: str, new: str) -> str:
    """The README with its measured part renewed. ValueError when its marks are gone."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks {BEGIN} and {END} are missing")
    return before + new + after
