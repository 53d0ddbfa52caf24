"""What one node must remember across restarts, in its state folder: two files a group, and a lock that makes this agent the only one.

What the safety of others rests on (a vote, a takeover, an own promotion) is saved durably BEFORE it is sent. The mere height of
(epoch, sequence) goes without fsync into a file of its own: a power cut may cost the last of it, and nothing else.
A file that is absent or damaged gives a state that says `lost`: then a vote counts as out until a withdrawal has committed, and the
caller, who alone knows that, clears it. Never a crash, never a guess. Which boot, machine and incarnation wrote a state is kept with it.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, replace
from pathlib import Path

from agent.codec import CodecError, dumps, loads
from agent.coordination.failsafe_rules import KeptPromise
from agent.coordination.lease import LeaseRecord
from agent.decision.view import Told
from agent.disk import StorageError, failed, private_folder, replace_file
from agent.errors import AlreadyRunning
from agent.worker import LateAnswer, Ticket, Worker

MAX_PROMOTIONS = 1000
SAVE_TIMEOUT_S = 5.0
HEIGHT_TIMEOUT_S = 0.2
"""For the mere height: each renewal stops for it before its deadline goes to the watchdog, and a disk may hang."""


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """How far the lease's record had come: the highest (epoch, sequence) that this node saw or wrote."""

    epoch: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class SentVote:
    """The last vote that was sent, or may have been. `over_index`: the index of the own vote key that it was built upon."""

    epoch: int
    down: bool
    over_index: int
    settled: bool = False
    """It is known to stand, and nothing that was sent before it can commit any more."""


@dataclass(frozen=True, slots=True)
class TakeoverIntent:
    """A takeover that was sent, or may have been, and is not yet known to have failed."""

    epoch: int
    over_index: int


@dataclass(frozen=True, slots=True)
class OwnPromotion:
    """A promotion of the local service by this node."""

    epoch: int
    timeline: int


@dataclass(frozen=True, slots=True)
class Writer:
    """Who wrote a state: another boot voids every moment in it, another machine means that the folder was copied."""

    boot: str
    machine: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class GroupState:
    """What a node remembers of one group."""

    highest: Mark = Mark()
    coordinator: str | None = None
    """Identity of the store in which `highest` was seen."""
    vote: SentVote | None = None
    takeover: TakeoverIntent | None = None
    own_promotions: tuple[OwnPromotion, ...] = ()
    session: str | None = None
    lost: bool = False
    """What was remembered is gone: a vote and a takeover count as out until the caller knows better and clears this."""
    promise: KeptPromise | None = None
    """What was promised to a holder. It counts anew, in full, from each start of the agent."""
    kept_records: tuple[LeaseRecord, ...] = ()
    """For a holder: its confirmed record, and those sent since whose voters or terms differ, as far as promises rest on them."""
    told: Told | None = None
    """What this node's hooks were told last."""
    writer: Writer | None = None
    """Who wrote it; None: nobody yet."""


def machine_id() -> str:
    """The name of this installation; empty when the machine has none. A clone has the same one."""
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


class StateFolder:
    """The state folder of one node, held by this process alone. Made by `open`."""

    def __init__(self, path: Path, writer: Writer, lock: int) -> None:
        self.path = path
        self.writer = writer
        self._lock = lock
        self._worker = Worker("quorate-state")

    @classmethod
    def open(cls, path: Path, writer: Writer) -> StateFolder:
        """Take the folder, making it when absent (mode 0700). Blocks; for the start. Raises `AlreadyRunning`, `StorageError`."""
        private_folder(path)
        lock = _take_lock(path / "agent.lock")
        try:
            private_folder(path / "groups")
        except StorageError:
            os.close(lock)
            raise
        return cls(path, writer, lock)

    def load(self, group: str) -> GroupState:
        """What is remembered of the group. Blocks; for the start. A folder copied from another machine counts as lost."""
        height = self._read_height(group)
        try:
            state = loads(GroupState, self._file(group).read_bytes())
        except (OSError, CodecError):
            return GroupState(highest=height, lost=True)
        state = replace(state, highest=max(state.highest, height))
        if state.writer is None or state.writer.machine != self.writer.machine:
            return replace(state, lost=True, session=None)
        return state

    async def save(self, group: str, state: GroupState, durable: bool) -> bool:
        """Durable: remember `state`, or raise `StorageError`. Else: note its `highest` alone; whether that was written."""
        if durable:
            state = replace(state, writer=self.writer, own_promotions=state.own_promotions[-MAX_PROMOTIONS:])
            await self._write(self._file(group), dumps(state), durable)
            return True
        try:
            await self._write(self._height_file(group), dumps(state.highest), durable)
        except StorageError:
            return False
        return True

    async def _write(self, file: Path, content: bytes, durable: bool) -> None:
        timeout_s = SAVE_TIMEOUT_S if durable else HEIGHT_TIMEOUT_S

        def write(ticket: Ticket) -> None:
            ticket.claim()
            replace_file(file, content, durable)

        try:
            await self._worker.run(write, timeout_s)
        except LateAnswer:
            raise StorageError(f"{file} was not written within {timeout_s:g} s") from None

    def _read_height(self, group: str) -> Mark:
        try:
            return loads(Mark, self._height_file(group).read_bytes())
        except (OSError, CodecError):
            return Mark()

    def close(self) -> None:
        """Let the folder go."""
        self._worker.stop()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _file(self, group: str) -> Path:
        return self.path / "groups" / f"{group}.json"

    def _height_file(self, group: str) -> Path:
        return self.path / "groups" / f"{group}.height.json"


def _take_lock(path: Path) -> int:
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise failed(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        os.close(lock)
        who = f"pid {holder}" if holder else "its pid is not known yet"
        raise AlreadyRunning(f"another agent ({who}) uses the state folder {path.parent}") from None
    except OSError as error:
        os.close(lock)
        raise failed(path, error) from error
    return lock
