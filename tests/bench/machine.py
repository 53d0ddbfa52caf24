"""What the figures were measured on and with: cores, memory, kernel, versions, load. Reads the machine, changes nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from agent import __version__
from tests.bench import parts
from tests.bench.results import Run
from tests.bench.table import Circumstances
from tests.install import needs


def circumstances(runs: Sequence[Run]) -> Circumstances:
    """Words for the head of the table. The days are those of the runs."""
    days = sorted({run.at[:10] for run in runs}) or ["never"]
    date = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return Circumstances(date, f"{os.cpu_count()} cores, {_memory_gib():.0f} GiB, Linux {platform.release()}", _versions())


def _memory_gib() -> float:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("MemTotal:")).split()[1]) / 2**20


def _versions() -> str:
    found = {
        "quorate": __version__,
        "Patroni": _asked(parts.find_patroni()),
        "repmgr": _asked(parts.find_repmgr() and parts.POSTGRES_BIN / "repmgr"),
        "Consul": _asked(needs.find("Consul"), "version"),
        "Postgres": _asked(parts.POSTGRES_BIN / "postgres"),
    }
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _asked(program: Path | None, word: str = "--version") -> str:
    return "is not here" if program is None else parts.version_of([str(program), word])


def notes(runs: Sequence[Run], left_out: str) -> list[str]:
    """What a reader has to know to judge the figures."""
    loads = sorted(run.load for run in runs) or [0.0]
    told = [
        "Outages in seconds, median (min-max): the writer's longest gap after the fault; it writes each 20 ms.",
        f"Load of the machine at the ends of the runs: {loads[0]:.1f} to {loads[-1]:.1f} (median {loads[len(loads) // 2]:.1f}).",
    ]
    cores = os.cpu_count() or 1
    if loads[len(loads) // 2] > cores:
        told.append(
            f"More wanted to run than the {cores} cores could: what is well below some seconds here is mostly waiting for a core. "
            "Measure on an idle machine before quoting it."
        )
    blind = sum(run.blind_s > 1 for run in runs)
    if blind:
        told.append(f"{blind} runs are not counted: their sampler was late by over 1 s in all.")
    return [*told, left_out] if left_out else told
