"""The journal of commands: what was begun, which steps were about to be done, how it ended. Each line is on the disk before the deed.

An agent that starts reads which commands a crash left unfinished; the executor then finishes or undoes them, and never resumes a step
blindly. A line that a crash tore is dropped; a line that a full disk would not take is removed again, so that the next one is whole.
Bounded: at 1 MiB the file becomes `journal.old` (one is kept) and what is unfinished is carried over.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from agent.clock import Clock
from agent.codec import CodecError, dumps, loads
from agent.disk import StorageError, failed, private_folder, sync_folder, write_all
from agent.worker import LateAnswer, Ticket, Worker

MAX_BYTES = 1 << 20
MAX_TEXT = 500
WRITE_TIMEOUT_S = 5.0


class JournalOutcome(StrEnum):
    """How a command ended."""

    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"
    """Begun before a crash, and taken back after it."""
    DROPPED = "dropped"
    """Begun before a crash, of an epoch that is over: nothing of it was resumed."""


@dataclass(frozen=True, slots=True)
class JournalLine:
    """Base of the lines. `entry`: the id of the command's entry; `wall_s`: seconds since 1970, for people only."""

    entry: str
    wall_s: float


@dataclass(frozen=True, slots=True)
class Begun(JournalLine):
    """A command is about to run."""

    command: str
    epoch: int
    group: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Stepping(JournalLine):
    """A step of it is about to be done."""

    step: str


@dataclass(frozen=True, slots=True)
class Ended(JournalLine):
    """It ended."""

    outcome: JournalOutcome
    sentence: str


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One command that has not ended: `steps` in order, the last one perhaps not done."""

    identity: str
    command: str
    epoch: int
    group: str
    incarnation: str
    begun_wall_s: float
    steps: tuple[str, ...] = ()


class Journal:
    """The journal of one agent. Made by `open`. A line that cannot be made durable raises `StorageError`: then do not do the deed."""

    def __init__(self, path: Path, incarnation: str, clock: Clock) -> None:
        self._path = path
        self._incarnation = incarnation
        self._clock = clock
        self._worker = Worker("quorate-journal")
        self._turn = asyncio.Lock()
        self._open: dict[str, JournalEntry] = {}
        self._fd = -1
        self._size = 0

    @classmethod
    def open(cls, folder: Path, incarnation: str, clock: Clock) -> Journal:
        """Read the journal in `folder`, mend its end, and go on writing it. Blocks; for the start. Raises `StorageError`."""
        journal = cls(private_folder(folder) / "journal.jsonl", incarnation, clock)
        try:
            journal._start()
        except OSError as error:
            raise failed(journal._path, error) from error
        return journal

    def unfinished(self) -> tuple[JournalEntry, ...]:
        """Commands that have not ended, oldest first. Those of another incarnation are what a crash left."""
        return tuple(self._open.values())

    async def begin(self, command: str, epoch: int, group: str) -> str:
        """Note that a command is about to run; its entry's id."""
        entry = self._clock.nonce()
        await self._add(Begun(entry, self._clock.wall_s(), command, epoch, group, self._incarnation))
        return entry

    async def step(self, entry: str, name: str) -> None:
        """Note that a step is about to be done. An empty `entry`: what must not wait for a disk (a fence) notes no steps."""
        if entry:
            await self._add(Stepping(entry, self._clock.wall_s(), name[:MAX_TEXT]))

    async def end(self, entry: str, outcome: JournalOutcome, sentence: str) -> None:
        """Note how the command ended."""
        await self._add(Ended(entry, self._clock.wall_s(), outcome, sentence[:MAX_TEXT]))

    async def close(self) -> None:
        """Close the file."""
        self._worker.stop()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ------------------------------------------------------------------ one line

    async def _add(self, line: JournalLine) -> None:
        if not isinstance(line, Begun) and line.entry not in self._open:
            raise ValueError(f"no command {line.entry} was begun, or it has ended")
        async with self._turn:
            try:
                await self._worker.run(lambda ticket: self._append(line, ticket), WRITE_TIMEOUT_S)
            except LateAnswer:
                raise StorageError(f"{self._path} was not written within {WRITE_TIMEOUT_S:g} s") from None
            except OSError as error:
                raise failed(self._path, error) from error
            _apply(self._open, line)

    def _append(self, line: JournalLine, ticket: Ticket) -> None:
        content = dumps(line) + b"\n"
        if self._size + len(content) > MAX_BYTES:
            self._rotate()
        ticket.claim()
        try:
            write_all(self._fd, content)
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(content)

    def _rotate(self) -> None:
        carried = b"".join(dumps(line) + b"\n" for line in _lines_of(self._open.values()))
        draft = self._path.with_suffix(".new")
        fd = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, carried)
            os.fsync(fd)
            self._path.replace(self._path.with_suffix(".old"))
            draft.replace(self._path)
            sync_folder(self._path.parent)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._size = fd, len(carried)

    # ------------------------------------------------------------------ the start

    def _start(self) -> None:
        if not self._path.exists() and self._path.with_suffix(".old").exists():
            # a crash between the two renames of a rotation: the old file still holds everything
            self._path.with_suffix(".old").replace(self._path)
        self._fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            os.ftruncate(self._fd, whole)
            os.fsync(self._fd)
        sync_folder(self._path.parent)
        self._size = whole
        for text in content[:whole].splitlines():
            try:
                line = loads(JournalLine, text)
            except CodecError:
                continue  # a damaged line in the middle: what it began is unknown, what it ended shows as unfinished
            _apply(self._open, line)


def _apply(entries: dict[str, JournalEntry], line: JournalLine) -> None:
    if isinstance(line, Begun):
        entries[line.entry] = JournalEntry(line.entry, line.command, line.epoch, line.group, line.incarnation, line.wall_s)
    elif isinstance(line, Stepping) and line.entry in entries:
        entry = entries[line.entry]
        entries[line.entry] = replace(entry, steps=(*entry.steps, line.step))
    elif isinstance(line, Ended):
        entries.pop(line.entry, None)


def _lines_of(entries: Iterable[JournalEntry]) -> Iterable[JournalLine]:
    for entry in entries:
        yield Begun(entry.identity, entry.begun_wall_s, entry.command, entry.epoch, entry.group, entry.incarnation)
        for step in entry.steps:
            yield Stepping(entry.identity, entry.begun_wall_s, step)
