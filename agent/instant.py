"""A moment on the two clocks that a lease is kept by.

CLOCK_BOOTTIME goes on while a machine sleeps but is slewed by NTP; CLOCK_MONOTONIC_RAW is never slewed but stops in
suspend. A holder's time is over as soon as EITHER says so; an observer waits until BOTH do. (holes.md A21.)
This module is pure: `agent.clock` reads the clocks.
"""

from __future__ import annotations

from dataclasses import dataclass

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Instant:
    """A point in time: nanoseconds of CLOCK_BOOTTIME and of CLOCK_MONOTONIC_RAW, of one boot of one machine."""

    boot_ns: int
    raw_ns: int

    def after(self, seconds: float) -> Instant:
        """The moment `seconds` later (earlier when negative) by both clocks."""
        delta_ns = round(seconds * NANOSECONDS)
        return Instant(self.boot_ns + delta_ns, self.raw_ns + delta_ns)

    def earlier(self, other: Instant) -> Instant:
        """The earlier of the two by each clock on its own: the careful choice between two deadlines."""
        return Instant(min(self.boot_ns, other.boot_ns), min(self.raw_ns, other.raw_ns))


def holder_elapsed_s(since: Instant, now: Instant) -> float:
    """Seconds since `since` as a holder counts them: by the clock that ran faster."""
    return max(now.boot_ns - since.boot_ns, now.raw_ns - since.raw_ns) / NANOSECONDS


def observer_elapsed_s(since: Instant, now: Instant) -> float:
    """Seconds since `since` as everybody else counts them: by the clock that ran slower."""
    return min(now.boot_ns - since.boot_ns, now.raw_ns - since.raw_ns) / NANOSECONDS


def has_passed(deadline: Instant, now: Instant) -> bool:
    """Whether a holder's deadline is over: either clock is enough."""
    return now.boot_ns >= deadline.boot_ns or now.raw_ns >= deadline.raw_ns


def remaining_s(deadline: Instant, now: Instant) -> float:
    """Seconds left until the deadline by the clock that is nearer to it; never negative."""
    return max(0.0, min(deadline.boot_ns - now.boot_ns, deadline.raw_ns - now.raw_ns) / NANOSECONDS)
