"""The client's host: one process that writes, keeps a ledger of what was acknowledged, and looks who takes writes.

    python -m tests.lab.client PLAN.json        # until its standard input ends; or without one (a unit) until it is killed

One process with one loop, so that neither pytest's scheduling nor another interpreter's lock is in the figures; it says itself when it was
late (`blind`). Everything it learns is in files at once, so that killing it loses nothing. Times are CLOCK_BOOTTIME in nanoseconds.

- Writer: one attempt at a time, each with a new id, each `every_s`; 200 ms to connect, 200 ms for the statement, a new connection after any
  error. Acknowledged = the commit was answered without error and without warning. `ledger`: `ID SENT ACKNOWLEDGED` a line.
- Sampler: each `sample_s` all members side by side, on their own addresses: not in recovery, and a row of its own was written with
  synchronous_commit = local, so that who takes a write counts though no standby confirms it. No answer = not writable.
  `samples`: `took MEMBER SENT ANSWERED`, `ended MEMBER AT` when it takes no more, `late NANOSECONDS AT` for a round that began late.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TextIO

from tests.lab.wire import Stage, Wire, now_ns

SAMPLE_SQL = "SELECT lab_take()"
TOOK = b"t"
LATE_NS = 20_000_000
"""What is noted; how late is too late is for the measures to judge."""
ACKNOWLEDGED = "acknowledged"
NICE = -10


@dataclass(frozen=True)
class Plan:
    """What to do. `targets`: conninfos of the writer, tried in turn; none: no writer. `members`: conninfos of the sampler by name."""

    folder: str
    targets: Sequence[str] = ()
    members: dict[str, str] = field(default_factory=dict)
    every_s: float = 0.02
    sample_s: float = 0.02


class Writer:
    """One attempt at a time."""

    def __init__(self, plan: Plan, ledger: TextIO, notes: TextIO) -> None:
        self.wire = Wire()
        self._plan = plan
        self._ledger = ledger
        self._notes = notes
        self._target = 0
        self._id = 0
        self._next_ns = now_ns()
        self._said: set[str] = set()

    @property
    def due_ns(self) -> int:
        return self.wire.deadline_ns if self.wire.is_busy else self._next_ns

    def tick(self) -> None:
        """Begin the next attempt if it is time."""
        if self.wire.is_busy or now_ns() < self._next_ns:
            return
        began_ns = now_ns()
        self._next_ns = began_ns + int(self._plan.every_s * 1e9)
        self._id += 1
        self.wire.ask(self._plan.targets[self._target], f"INSERT INTO lab_ledger (id) VALUES ({self._id})")  # noqa: S608 (a number)
        if not self.wire.is_busy:
            self.ended()

    def ended(self) -> None:
        """Note how the attempt ended."""
        if self.wire.failure:
            self._target = (self._target + 1) % len(self._plan.targets)
            self._note(self.wire.failure)
        else:
            self._ledger.write(f"{self._id} {self.wire.sent_ns} {now_ns()}\n")
            self._note(ACKNOWLEDGED)

    def _note(self, sentence: str) -> None:
        """Each sentence once in an outage, however often two of them take turns."""
        if sentence == ACKNOWLEDGED and ACKNOWLEDGED not in self._said:
            self._said.clear()
        elif sentence != ACKNOWLEDGED:
            self._said.discard(ACKNOWLEDGED)
        if sentence not in self._said:
            self._notes.write(json.dumps({"at_ns": now_ns(), "id": self._id, "writer": sentence}) + "\n")
            self._said.add(sentence)


class Sampler:
    """Rounds at fixed times; who has not answered the last question yet is not asked another."""

    def __init__(self, plan: Plan, samples: TextIO) -> None:
        self.wires = {name: Wire() for name in plan.members}
        self._plan = plan
        self._samples = samples
        self._takes = dict.fromkeys(plan.members, False)
        self._next_ns = now_ns()

    @property
    def due_ns(self) -> int:
        return min([self._next_ns, *(wire.deadline_ns for wire in self.wires.values() if wire.is_busy)])

    def tick(self) -> None:
        """Begin a round if it is time."""
        now = now_ns()
        if now < self._next_ns:
            return
        if (late_ns := now - self._next_ns) > LATE_NS:
            self._samples.write(f"late {late_ns} {now}\n")
        self._next_ns = max(self._next_ns + int(self._plan.sample_s * 1e9), now)
        for name, wire in self.wires.items():
            if not wire.is_busy:
                wire.ask(self._plan.members[name], SAMPLE_SQL)
                if not wire.is_busy:
                    self.ended(name)

    def ended(self, name: str) -> None:
        """Note what a member answered."""
        wire = self.wires[name]
        if wire.answer == TOOK:
            self._takes[name] = True
            self._samples.write(f"took {name} {wire.sent_ns} {now_ns()}\n")
        elif self._takes[name]:
            self._takes[name] = False
            self._samples.write(f"ended {name} {now_ns()}\n")


class Client:
    """The loop over writer and sampler."""

    def __init__(self, plan: Plan) -> None:
        folder = Path(plan.folder)
        self._files = [(folder / name).open("a", encoding="utf-8") for name in ("ledger", "samples", "notes")]
        ledger, samples, notes = self._files
        self.writer = Writer(plan, ledger, notes) if plan.targets else None
        self.sampler = Sampler(plan, samples)
        self.is_over = False

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        self.is_over = True

    def run(self, hand: int | None) -> None:
        """Until `hand` (a descriptor) ends or SIGTERM comes."""
        while not self.is_over:
            self._tick()
            ready = self._wait(hand)
            if hand in ready and not os.read(hand, 4096):  # type: ignore[arg-type]
                return
            self._step(ready)
            for file in self._files:
                file.flush()

    def _tick(self) -> None:
        self.sampler.tick()
        if self.writer is not None:
            self.writer.tick()

    def _wait(self, hand: int | None) -> set[int]:
        poll = select.poll()
        if hand is not None:
            poll.register(hand, select.POLLIN)
        for wire in self._wires():
            if (interest := wire.interest()) is not None:
                poll.register(*interest)
        due_ns = min(self.sampler.due_ns, self.writer.due_ns) if self.writer is not None else self.sampler.due_ns
        return {descriptor for descriptor, _ in poll.poll(max(0, -(-(due_ns - now_ns()) // 1_000_000)))}

    def _wires(self) -> list[Wire]:
        return [*self.sampler.wires.values(), *([self.writer.wire] if self.writer is not None else [])]

    def _step(self, ready: set[int]) -> None:
        for name, wire in self.sampler.wires.items():
            if wire.step(is_due=_is_due(wire, ready)):
                self.sampler.ended(name)
        if self.writer is not None and self.writer.wire.step(is_due=_is_due(self.writer.wire, ready)):
            self.writer.ended()


def _is_due(wire: Wire, ready: set[int]) -> bool:
    interest = wire.interest()
    return wire.stage in {Stage.CONNECTING, Stage.ASKING} and interest is not None and interest[0] in ready


def main() -> int:
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    os.nice(NICE)
    client = Client(plan)
    signal.signal(signal.SIGTERM, client.stop)
    hand = None if os.readlink("/proc/self/fd/0") == "/dev/null" else 0  # noqa: PTH115 (may be a pipe's name)
    client.run(hand)
    return 0


if __name__ == "__main__":
    sys.exit(main())
