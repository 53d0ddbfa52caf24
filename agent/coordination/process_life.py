"""Whether the process that once wrote down its name still lives: pid, start time and boot tell one life from all others.

A pid alone may be somebody else's by now. When the answer cannot be known (another PID namespace) the process counts as alive:
a lease never depends on this answer, only on clocks.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from agent.clock import boot_id


@dataclass(frozen=True, slots=True)
class Life:
    """One life of one process. `started`: clock ticks from the boot to its start. `namespace`: where pid and ticks have their meaning."""

    pid: int
    started: int
    boot: str
    namespace: str


def own_life() -> Life:
    """The life of this process."""
    pid = os.getpid()
    stat = _stat(pid)
    return Life(pid, stat[1] if stat else 0, boot_id(), _namespace())


def is_over(life: Life, here: Life) -> bool:
    """Whether that process is gone, as seen from the process `here`. A zombie is gone: it runs no code."""
    if life.boot != here.boot:
        return True
    if life.namespace != here.namespace:
        return False
    try:
        stat = _stat(life.pid)
    except PermissionError:
        return False
    return stat is None or stat[1] != life.started or stat[0] in {"Z", "X", "x"}


def _stat(pid: int) -> tuple[str, int] | None:
    """State and start time of a process; None: there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may itself hold spaces and parentheses
    return fields[0], int(fields[19])


def _namespace() -> str:
    names = []
    for kind in ("pid", "time"):  # ticks since boot are told differently in another time namespace
        with contextlib.suppress(OSError):
            names.append(str(Path(f"/proc/self/ns/{kind}").readlink()))
    return " ".join(names)
