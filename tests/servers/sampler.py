"""Sees two primaries if there ever are two: asks every member, over TCP, to take a write, again and again, all members side by side.

A write counts even when no standby acknowledged it (synchronous_commit = local): whoever takes it is writable. A member's writable time
runs from the first write that it took to the last one before it refused; an overlap is time in which two members were writable.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg

from agent.clock import SystemClock
from agent.instant import NANOSECONDS

EVERY_S = 0.02
TIMEOUT_S = 0.2


@dataclass(slots=True)
class Taken:
    """Spans in which a member took every write asked of it: [first acknowledged, last acknowledged], in seconds of CLOCK_BOOTTIME."""

    spans: list[list[float]] = field(default_factory=list)
    running: bool = False

    def took(self, at_s: float) -> None:
        if self.running:
            self.spans[-1][1] = at_s
        else:
            self.spans.append([at_s, at_s])
            self.running = True

    def refused(self) -> None:
        self.running = False


class Sampler:
    """Samples until stopped. `conninfos`: by member, as a user that may write into `quorate_demo`."""

    def __init__(self, conninfos: Mapping[str, str]) -> None:
        self._conninfos = conninfos
        self._clock = SystemClock()
        self._tasks: list[asyncio.Task[None]] = []
        self.members = {name: Taken() for name in conninfos}
        self.rounds = 0

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._sample(name)) for name in self._conninfos]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _sample(self, name: str) -> None:
        connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        try:
            while True:
                self.rounds += 1
                try:
                    async with asyncio.timeout(TIMEOUT_S):
                        if connection is None:
                            options = "-c synchronous_commit=local"
                            connection = await psycopg.AsyncConnection.connect(self._conninfos[name], options=options, autocommit=True)
                        await connection.execute("UPDATE quorate_sampler SET n = n + 1")
                    self.members[name].took(self._clock.now().boot_ns / NANOSECONDS)
                except (psycopg.Error, TimeoutError, OSError):
                    self.members[name].refused()
                    if connection is not None:
                        with contextlib.suppress(psycopg.Error, OSError, TimeoutError):
                            async with asyncio.timeout(TIMEOUT_S):
                                await connection.close()
                        connection = None
                await asyncio.sleep(EVERY_S)
        finally:
            if connection is not None:
                with contextlib.suppress(psycopg.Error, OSError):
                    await connection.close()

    def overlap_s(self) -> float:
        """Seconds in which two members were writable, the longest such time."""
        worst = 0.0
        names = sorted(self.members)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                for a in self.members[first].spans:
                    for b in self.members[second].spans:
                        worst = max(worst, min(a[1], b[1]) - max(a[0], b[0]))
        return worst

    def wrote(self) -> tuple[str, ...]:
        """The members that ever took a write, in the order of their first."""
        firsts = {name: taken.spans[0][0] for name, taken in self.members.items() if taken.spans}
        return tuple(sorted(firsts, key=lambda name: firsts[name]))
