"""What can be read of an instance that is down: pg_controldata, and the WAL record that a clean shutdown ended with.

For a server that crashed, or a standby, this is a LOWER bound of its position: only replay to the end of its WAL finds the true one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from actions.base import ActionError
from actions.postgres_commands import run
from actions.postgres_files import is_initialised
from actions.postgres_instance import PostgresInstance, parse_lsn
from actions.postgres_keep import rewind_is_unfinished

CONTROLDATA_S = 10.0


class ControlState(StrEnum):
    """pg_control's "Database cluster state", in its own words."""

    ABSENT = "absent"
    """No cluster here that could be started: none at all, or one that a rewind or a copy left half-done."""
    STARTING_UP = "starting up"
    SHUT_DOWN = "shut down"
    SHUT_DOWN_IN_RECOVERY = "shut down in recovery"
    SHUTTING_DOWN = "shutting down"
    IN_CRASH_RECOVERY = "in crash recovery"
    IN_ARCHIVE_RECOVERY = "in archive recovery"
    IN_PRODUCTION = "in production"


@dataclass(frozen=True, slots=True)
class OfflineFacts:
    """pg_control's word. `at_least_lsn`: it has at least this; exact, and the END of the shutdown record, when `state` is SHUT_DOWN."""

    state: ControlState
    system_identifier: str = ""
    timeline: int = 0
    checkpoint_lsn: int = 0
    at_least_lsn: int = 0

    @property
    def initialised(self) -> bool:
        return self.state is not ControlState.ABSENT

    @property
    def clean(self) -> bool:
        """Whether it was shut down in order, so that nothing needs replay before pg_rewind."""
        return self.state in (ControlState.SHUT_DOWN, ControlState.SHUT_DOWN_IN_RECOVERY)


async def read_offline(instance: PostgresInstance) -> OfflineFacts:
    """The facts of an instance whose server is down. Raises ActionError."""
    if not is_initialised(instance.data_dir) or rewind_is_unfinished(instance.data_dir):
        return OfflineFacts(ControlState.ABSENT)
    done = await run(instance, "pg_controldata", "-D", str(instance.data_dir), timeout_s=CONTROLDATA_S)
    if done.code != 0:
        raise ActionError(f"pg_controldata failed: {done.last_words}")
    return parse_controldata(done.said, instance.data_dir)


def parse_controldata(text: str, data_dir: Path) -> OfflineFacts:
    """The facts in pg_controldata's English output. Raises ActionError."""
    fields = {key.strip(): value.strip() for key, separator, value in (line.partition(":") for line in text.splitlines()) if separator}
    try:
        state = ControlState(fields["Database cluster state"])
        checkpoint = parse_lsn(fields["Latest checkpoint location"])
        timelines = (int(fields["Latest checkpoint's TimeLineID"]), int(fields["Min recovery ending loc's timeline"]))
        recovered = parse_lsn(fields["Minimum recovery ending location"])
        segment_bytes, page_bytes = int(fields["Bytes per WAL segment"]), int(fields["WAL block size"])
        system = fields["Database system identifier"]
    except (KeyError, ValueError) as error:
        raise ActionError(f"pg_controldata says nothing understood: {error}") from None
    end = checkpoint
    if state is ControlState.SHUT_DOWN:
        end = record_end(data_dir, timelines[0], checkpoint, segment_bytes, page_bytes)
    return OfflineFacts(state, system, max(timelines), checkpoint, max(end, recovered))


def record_end(data_dir: Path, timeline: int, lsn: int, segment_bytes: int, page_bytes: int) -> int:
    """Where the WAL record that begins at `lsn` ends; what a standby has replayed that has replayed it. Raises ActionError.

    A record begins with its length (4 bytes, never across pages) and goes on after the header of each further page.
    """
    length = int.from_bytes(_wal_bytes(data_dir, timeline, lsn, segment_bytes, 4), "little")
    if not 24 <= length <= 1 << 20:
        raise ActionError(f"the WAL record at {lsn:#x} has an impossible length of {length} bytes")
    position = lsn
    while length > (room := page_bytes - position % page_bytes):
        length -= room
        position += room
        position += 40 if position % segment_bytes == 0 else 24
    return (position + length + 7) & ~7


def _wal_bytes(data_dir: Path, timeline: int, lsn: int, segment_bytes: int, count: int) -> bytes:
    number = lsn // segment_bytes
    per_log = (1 << 32) // segment_bytes
    path = data_dir / "pg_wal" / f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise ActionError(f"the WAL that the clean shutdown ended with cannot be read: {error.strerror} ({path})") from None
    try:
        return os.pread(handle, count, lsn % segment_bytes)
    finally:
        os.close(handle)
