"""Keeps the input of each decision that was no routine, for `quorate replay` and for bug reports. Never holds up a turn."""

from __future__ import annotations

import asyncio

import agent
from agent.clock import Clock
from agent.decision.command import RenewLease
from agent.decision.engine import Decision
from agent.decision.memory import Memory
from agent.decision.view import View
from agent.execution.record import DecisionRecord, RecordRing
from agent.instant import Instant


class Recorder:
    """The recorder of one group."""

    def __init__(self, ring: RecordRing, clock: Clock) -> None:
        self._ring = ring
        self._clock = clock
        self._memory = Memory()
        self._signature: tuple[str, ...] = ()
        self._writing: set[asyncio.Task[object]] = set()

    def decided(self, view: View, decision: Decision, now: Instant) -> None:
        """A turn was taken. What it went in with is kept when what it came out with differs from the turn before."""
        memory, self._memory = self._memory, decision.memory
        commands = tuple(c for c in decision.commands if not isinstance(c, RenewLease))
        signature = (decision.situation.value, *(type(c).__name__ for c in commands))
        if signature == self._signature:
            return
        self._signature = signature
        record = DecisionRecord(
            wall_s=self._clock.wall_s(),
            now=now,
            memory=memory,
            view=view,
            rule=next((r.name for r in decision.rules if r.sentence == decision.reason), ""),
            sentence=decision.reason,
            commands=decision.commands,
            version=agent.__version__,
        )
        task = asyncio.create_task(self._ring.offer(record, signature), name="write decision record")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
