"""The decision records: what one turn knew, what it decided and why, in a file that `quorate replay` and a scenario test read back.

A record is written only when the decision became another one, into a bounded ring of files. Records are for people after the fact:
losing one never stops a turn, so nothing here raises for a full disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from agent.codec import CodecError, dumps, loads
from agent.decision.command import Command
from agent.decision.memory import Memory
from agent.decision.view import View
from agent.disk import StorageError, private_folder, replace_file
from agent.errors import UsageError
from agent.instant import Instant
from agent.worker import LateAnswer, Ticket, Worker

MAX_FILES = 500
MAX_BYTES = 1 << 20
WRITE_TIMEOUT_S = 2.0

_NAME = re.compile(r"(\d{8})-[a-z0-9_-]+\.json")


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One turn: its input (`view`, `memory`, `now`) and its output. `wall_s`: seconds since 1970, for people only."""

    wall_s: float
    now: Instant
    memory: Memory
    view: View
    rule: str
    sentence: str
    commands: tuple[Command, ...] = ()
    version: str = ""


def load_record(path: Path) -> DecisionRecord:
    """The record in a file. Raises `UsageError` that names the place where it is none."""
    try:
        return loads(DecisionRecord, path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except CodecError as error:
        raise UsageError(f"{path} is no decision record: {error}") from error


class RecordRing:
    """The last records of one node. Made by `open`."""

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self._folder = folder
        self._files = files
        self._last: dict[str, tuple[str, ...]] = {}
        self._worker = Worker("quorate-records")

    @classmethod
    def open(cls, state_folder: Path) -> RecordRing:
        """Go on after the records that are there. Blocks; for the start. Raises `StorageError`."""
        folder = private_folder(state_folder / "records")
        return cls(folder, sorted(file for file in folder.iterdir() if _NAME.fullmatch(file.name)))

    async def offer(self, record: DecisionRecord, signature: tuple[str, ...]) -> Path | None:
        """Write the record if `signature` (the rule, the commands that are no routine) is not the group's last. None: not written."""
        group = record.view.group.name
        if self._last.get(group) == signature:
            return None
        try:
            path = await self._worker.run(lambda ticket: self._write(record, ticket), WRITE_TIMEOUT_S)
        except (StorageError, CodecError, LateAnswer, OSError):
            return None
        self._last[group] = signature
        return path

    def close(self) -> None:
        self._worker.stop()

    def _write(self, record: DecisionRecord, ticket: Ticket) -> Path | None:
        content = dumps(record, indent=1)
        ticket.claim()
        number = int(self._files[-1].name[:8]) + 1 if self._files else 1
        path = self._folder / f"{number:08d}-{record.view.group.name}.json"
        if len(content) > MAX_BYTES:
            return None
        while len(self._files) >= MAX_FILES:
            self._files[0].unlink(missing_ok=True)
            del self._files[0]
        replace_file(path, content, durable=False)
        self._files.append(path)
        return path
