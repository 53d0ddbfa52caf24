"""The only module that reads a clock or makes a random number for the agent. Everything else is told the time.

`Clock` is the small protocol that tests and the simulator implement.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Protocol

from agent.instant import Instant


class Clock(Protocol):
    """What the agent may know about time and chance."""

    def now(self) -> Instant:
        """The moment by both lease clocks."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970, for people and logs only; no rule may depend on it."""
        ...

    def nonce(self) -> str:
        """A fresh name for an attempt: 16 hex digits that nobody used before."""
        ...

    def fraction(self) -> float:
        """A random number in [0, 1), for jitter."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> Instant:
        return Instant(time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW))

    def wall_s(self) -> float:
        return time.time()

    def nonce(self) -> str:
        return secrets.token_hex(8)

    def fraction(self) -> float:
        return secrets.randbelow(1 << 30) / (1 << 30)


def boot_id() -> str:
    """The kernel's name for this boot; another value means that every deadline of before is void."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
