"""A share of the processor for a lab: what it measures is quorate, not what else this machine does meanwhile.

Each unit of a host is a session of its own, so `nice` would not reach it (autogroup). A cgroup does: this process moves into one with a
large weight, and everything it starts is born there. Where there is none to be had the lab runs all the same. The name carries the pid;
what a killed lab left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

CONTROLLER = Path("/sys/fs/cgroup/cpu")
PREFIX = "q-lab-"
SHARES = 65_536
"""Of the processor, where everybody else has 1024."""


@contextlib.contextmanager
def share_of_the_processor() -> Iterator[bool]:
    """While it lasts, this process and all its children come first; whether they do."""
    _sweep()
    own = CONTROLLER / f"{PREFIX}{os.getpid()}"
    before = _current()
    try:
        own.mkdir()
        (own / "cpu.shares").write_text(str(SHARES), encoding="ascii")
        _move(own)
    except OSError:  # no such controller, no right, or the second version, which has none here
        _remove(own)
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            _move(CONTROLLER / before)
        _remove(own)


def _current() -> str:
    """The cgroup of this process below the controller."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            if "cpu" in controllers.split(","):
                return path.lstrip("/")
    return ""


def _move(group: Path) -> None:
    """This process with all its threads."""
    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def _remove(group: Path) -> None:
    with contextlib.suppress(OSError):  # somebody of it is still ending; the next lab tries again
        group.rmdir()


def _sweep() -> None:
    """What labs that were killed left."""
    for group in CONTROLLER.glob(f"{PREFIX}*"):
        pid = group.name.removeprefix(PREFIX)
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _remove(group)
