"""Notices the death of a process at once, by the kernel's word (pidfd), not at the next check.

A pid alone may be somebody else's by now: with a start time the watch is on that very process, and a pid that was given anew counts as
dead. The process need not be a child. One file descriptor a watch, closed when it fires or is given up.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

_START_TIME_FIELD = 22 - 3
"""Of /proc/PID/stat, counted from the state, which follows the name in brackets (and the name may hold anything)."""


def process_start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None: there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[_START_TIME_FIELD])


class ProcessWatch:
    """Watches processes from one event loop."""

    def __init__(self) -> None:
        self._watches: dict[int, tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = {}

    def watch(self, pid: int, callback: Callable[[], None], start_time_ticks: int | None = None) -> Callable[[], None]:
        """Call `callback` once, from the loop, when the process ends; soon if it has ended already. Returns what gives the watch up.

        `start_time_ticks`: the process that is meant; without it, whichever has the pid now. Raises OSError when the kernel grants no
        watch (no file descriptors left).
        """
        loop = asyncio.get_running_loop()
        try:
            # First the descriptor, then the look: so the start time that is compared is of the process that the descriptor holds, or later.
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return loop.call_soon(callback).cancel
        if start_time_ticks is not None and process_start_time(pid) != start_time_ticks:
            os.close(descriptor)
            return loop.call_soon(callback).cancel
        self._watches[descriptor] = (loop, callback)
        loop.add_reader(descriptor, self._ended, descriptor)
        watched = self._watches[descriptor]
        return lambda: self._give_up(descriptor) if self._watches.get(descriptor) is watched else None

    def close(self) -> None:
        """Give up all watches; their callbacks are not called."""
        for descriptor in tuple(self._watches):
            self._give_up(descriptor)

    def _ended(self, descriptor: int) -> None:
        _, callback = self._watches[descriptor]
        self._give_up(descriptor)
        callback()

    def _give_up(self, descriptor: int) -> None:
        loop, _ = self._watches.pop(descriptor)
        if not loop.is_closed():
            loop.remove_reader(descriptor)
        os.close(descriptor)
