"""What a run of the bench found, and where it is kept: one JSON object a line, so that an interrupted bench goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.faults import Fault

FILE = "runs.jsonl"


@dataclass(frozen=True)
class Run:
    """One fault on one contender. `outage_s`: the writer's longest gap, as it stood at the end when not `recovered`.
    `lost`: acknowledged rows that the newest primary lacks; None: there was none to ask.
    """

    contender: str
    fault: Fault
    outage_s: float
    recovered: bool
    overlap_s: float
    overlap_went_on: bool
    acknowledged: int
    lost: int | None
    blind_s: float
    load: float
    at: str


Cells = Mapping[tuple[str, Fault], Sequence[Run]]


def keep(folder: Path, run: Run) -> None:
    """Add a run; it is on disk when this returns."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**asdict(run), "fault": run.fault.value}) + "\n")


def kept(folder: Path) -> list[Run]:
    """All runs of this folder; a last line that was cut short is none."""
    file = folder / FILE
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [Run(**{**entry, "fault": Fault(entry["fault"])}) for entry in map(json.loads, lines)]


def by_cell(runs: Iterable[Run]) -> dict[tuple[str, Fault], list[Run]]:
    """Runs by contender and fault."""
    cells: dict[tuple[str, Fault], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.contender, run.fault), []).append(run)
    return cells
