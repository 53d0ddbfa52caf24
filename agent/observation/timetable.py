"""When each check is due: at a fixed rate that never drifts, spread at the start, with a little jitter. Pure; whoever asks brings the time.

Ticks lie on a grid that is fixed when a name is entered. A tick that comes late is done once; those that were missed meanwhile are
skipped, never made up for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.instant import NANOSECONDS, Instant

FIRST_WITHIN_S = 1.0
"""The first run comes within this, or within one interval if that is shorter."""
JITTER = 0.05
"""Each tick comes later than its place on the grid by up to this share of the interval."""


@dataclass(slots=True)
class _Row:
    every_s: float
    anchor_ns: int
    """Tick 0 of the grid."""
    due_ns: int


class Timetable:
    """The ticks of all names."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}

    def enter(self, name: str, every_s: float, now: Instant, spread: float) -> None:
        """Plan `name` anew. `spread`, in [0, 1), places its first run and its grid; a random number."""
        first_ns = now.boot_ns + _ns(min(every_s, FIRST_WITHIN_S) * spread)
        # The grid begins half an interval after the first run at the earliest, so that the two never fall together.
        self._rows[name] = _Row(every_s, first_ns + _ns(every_s * (0.5 + spread)), first_ns)

    def remove(self, name: str) -> None:
        self._rows.pop(name, None)

    def take_due(self, now: Instant, fraction: float) -> tuple[str, ...]:
        """The names whose tick has come, the longest due first; each is planned for its next tick. `fraction`: chance, for jitter."""
        due = sorted((row.due_ns, name) for name, row in self._rows.items() if row.due_ns <= now.boot_ns)
        for _, name in due:
            self._plan_next(self._rows[name], now.boot_ns, fraction)
        return tuple(name for _, name in due)

    def wait_s(self, now: Instant) -> float | None:
        """Seconds until the next tick, 0 if one is due; None: nothing is planned."""
        if not self._rows:
            return None
        return max(0.0, (min(row.due_ns for row in self._rows.values()) - now.boot_ns) / NANOSECONDS)

    @staticmethod
    def _plan_next(row: _Row, now_ns: int, fraction: float) -> None:
        every_ns = _ns(row.every_s)
        # From the tick that was due, not from now: a tick's own jitter must not push the next one off the grid.
        number = max(0, math.floor((max(now_ns, row.due_ns) - row.anchor_ns) / every_ns) + 1)
        row.due_ns = row.anchor_ns + number * every_ns + _ns(row.every_s * JITTER * fraction)


def _ns(seconds: float) -> int:
    return round(seconds * NANOSECONDS)
