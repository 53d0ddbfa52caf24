"""When single answers become a verdict: so many good ones in a row until it is up again, so many bad ones until it is down.

Pure. UNKNOWN never counts as down: it ends both rows, and shows as UNKNOWN while it lasts. The first good answer of all counts at once;
the first bad one does not: nothing is called down on less than `fall` answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from checks.base import Result, Status


@dataclass(frozen=True, slots=True)
class RiseFall:
    """The verdict so far. `status` is what counts; `is_down` is None until the first verdict."""

    rise: int
    fall: int
    status: Status = Status.UNKNOWN
    is_down: bool | None = None
    good: int = 0
    """Good answers in a row (healthy or degraded)."""
    bad: int = 0
    """Unhealthy answers in a row."""
    last_good: Status = Status.UNKNOWN
    """What shows while bad answers are too few to count."""

    def step(self, result: Result) -> RiseFall:
        """The verdict after one more answer."""
        if result.status is Status.UNKNOWN:
            return replace(self, status=Status.UNKNOWN, good=0, bad=0)
        if result.status is Status.UNHEALTHY:
            return self._worse()
        return self._better(result.status)

    def _worse(self) -> RiseFall:
        bad = min(self.bad + 1, self.fall)
        if self.is_down or bad >= self.fall:
            return replace(self, status=Status.UNHEALTHY, is_down=True, good=0, bad=bad)
        return replace(self, status=self.last_good, good=0, bad=bad)

    def _better(self, status: Status) -> RiseFall:
        good = min(self.good + 1, self.rise)
        if self.is_down and good < self.rise:
            return replace(self, status=Status.UNHEALTHY, good=good, bad=0)
        return replace(self, status=status, is_down=False, good=good, bad=0, last_good=status)
