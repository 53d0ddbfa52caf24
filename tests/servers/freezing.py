"""Stop a process so that it is stopped: SIGSTOP returns before the last of its threads has noticed."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.polling import eventually


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until every thread stands still. Its kernel goes on taking connections."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: all(_stands_still(thread) for thread in Path(f"/proc/{pid}/task").iterdir()), what=f"{pid} is stopped")


def _stands_still(thread: Path) -> bool:
    with suppress(FileNotFoundError):
        return (thread / "stat").read_text(encoding="utf-8").rpartition(") ")[2][:1] == "T"
    return True
