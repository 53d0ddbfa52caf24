"""A client as a user would have it: one row each 20 ms through a multi-host address, and a ledger of every row that was acknowledged.

Acknowledged = COMMIT came back without error. One attempt at a time; a new connection after any error; a row is never sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from itertools import pairwise

import psycopg

from agent.clock import Clock
from agent.instant import NANOSECONDS

CONNECT_TIMEOUT_S = 0.5
STATEMENT_TIMEOUT_S = 2.0
TABLE = "quorate_demo"


@dataclass(slots=True)
class Ledger:
    """What was acknowledged, and when (seconds of CLOCK_BOOTTIME)."""

    acknowledged: dict[int, float] = field(default_factory=dict)
    refused: int = 0

    def outage_s(self, after_s: float) -> float:
        """The longest time between two acknowledged rows in a row, the second of which came after `after_s`."""
        times = sorted(self.acknowledged.values())
        gaps = [late - early for early, late in pairwise(times) if late >= after_s]
        return max(gaps, default=float("inf"))


class Writer:
    """Writes until told to stop."""

    def __init__(self, conninfo: str, every_s: float, clock: Clock) -> None:
        self._clock = clock
        self._conninfo = conninfo
        self._every_s = every_s
        self._connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        self._next = 0
        self._stopping = False
        self.ledger = Ledger()

    async def run(self) -> None:
        """One row each `every_s`, at a fixed rate; late rows are not caught up."""
        due = self.now_s()
        while not self._stopping:
            await self._write_one()
            due = max(due + self._every_s, self.now_s())
            await asyncio.sleep(max(0.0, due - self.now_s()))
        await self._drop()

    def now_s(self) -> float:
        """Seconds of CLOCK_BOOTTIME, as the agents' events have them."""
        return self._clock.now().boot_ns / NANOSECONDS

    def stop(self) -> None:
        self._stopping = True

    async def _write_one(self) -> None:
        self._next += 1
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S if self._connection is None else STATEMENT_TIMEOUT_S):
                if self._connection is None:
                    self._connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
            async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                await self._connection.execute(f"INSERT INTO {TABLE} (id) VALUES (%s)", (self._next,))  # noqa: S608 - a constant name
            self.ledger.acknowledged[self._next] = self.now_s()
        except (psycopg.Error, TimeoutError, OSError):
            self.ledger.refused += 1
            await self._drop()

    async def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await self._connection.close()
            self._connection = None

    async def missing(self) -> tuple[int, ...]:
        """Acknowledged rows that are not there, read back by id from whoever takes writes now."""
        async with asyncio.timeout(10):
            connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
            async with connection:
                cursor = await connection.execute(f"SELECT id FROM {TABLE}")  # noqa: S608 - a constant name
                there = {int(str(row[0])) for row in await cursor.fetchall()}
        return tuple(sorted(set(self.ledger.acknowledged) - there))
