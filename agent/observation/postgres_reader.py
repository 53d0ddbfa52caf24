"""The facts of the local Postgres as the core wants them: one question over a connection that stays open, processes, and files.

Who is asked what: /proc says whether it runs; the server itself says what it is; pg_control and the history files say where it stood when
it does not run. A server that answered once and answers no more is HUNG; one that never answered is STARTING. What nobody may see (a
wrong password) is UNKNOWN, and never a reason to act.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

from agent.coordination.lease import Position
from agent.decision.view import Branch, Replica, ServiceState, ServiceView
from agent.observation.process_watch import process_start_time
from checks.network import OURS, ProbeFailed, Reason
from checks.postgres_client import Connection
from checks.postgres_facts import PostgresFacts, read_facts

QUIET = frozenset({Reason.STARTING, Reason.STOPPING, Reason.REFUSED, Reason.CLOSED})
"""A server that comes or goes says these; none of them makes it HUNG."""


YOUNG_S = 1.0
STRANGER = "an unknown server"


@dataclass(frozen=True, slots=True)
class Offline:
    """What the files of a stopped server say."""

    position: Position | None
    history: tuple[Branch, ...]
    system_identifier: str | None


@dataclass(frozen=True, slots=True)
class ReaderTools:
    """What the reader is lent by whoever builds it."""

    connect: Callable[[float], Awaitable[Connection]]
    oldest_s: Callable[[], float | None]
    """The age of the oldest process of the service; None: there is none. Found by the data directory, not by a pid."""
    offline: Callable[[], Awaitable[Offline]]
    newest_timeline: Callable[[], int]
    """The timeline that was written or received last, by the names of the WAL segments."""
    history: Callable[[int], tuple[Branch, ...]]
    """The ancestors of a timeline, from the history files."""
    nodes: Mapping[tuple[str, int], str]
    """Which member has which address."""


class PostgresReader:
    """Reads one local instance."""

    def __init__(self, data_dir: Path, tools: ReaderTools) -> None:
        self._data_dir = data_dir
        self._tools = tools
        self._answered: tuple[int, int] | None = None
        """The postmaster (pid, start time) that has answered."""
        self._offline: Offline | None = None
        self.effective: tuple[tuple[str, ...], int] | None = None
        """The sync names that are in force, and an LSN read after they were."""

    def main_pid(self) -> int | None:
        """The living postmaster's pid, by its lock file and by where it stands."""
        try:
            return self._find_postmaster()
        except PermissionError:
            return None

    def _find_postmaster(self) -> int | None:
        """Raises PermissionError when the lock file may not be read; a process that may not be looked at counts as the one it names."""
        try:
            pid = int((self._data_dir / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
        except PermissionError:
            raise
        except (OSError, ValueError):
            return None
        try:
            return pid if Path(f"/proc/{pid}/cwd").samefile(self._data_dir) else None
        except PermissionError:
            return pid
        except OSError:
            return None

    async def read(self, timeout_s: float) -> ServiceView:
        """The facts of this moment."""
        try:
            return await self._read(timeout_s)
        except PermissionError as error:
            return ServiceView(ServiceState.UNKNOWN, sentence=f"{error.filename} may not be read by the agent's user")

    async def _read(self, timeout_s: float) -> ServiceView:
        pid = self._find_postmaster()
        if pid is None:
            return await self._read_stopped()
        self._offline = None
        life = (pid, process_start_time(pid) or 0)
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._tools.connect(timeout_s)
                facts = await read_facts(connection, timeout_s)
        except ProbeFailed as failed:
            return self._silent(life, failed.failure.reason, failed.failure.sentence)
        except TimeoutError:
            return self._silent(life, Reason.TIMEOUT, f"Postgres gave no answer within {timeout_s:g} s")
        self._answered = life
        return self._view_of(facts)

    async def _read_stopped(self) -> ServiceView:
        """Nothing runs, or only what a dead postmaster left."""
        if not (self._data_dir / "PG_VERSION").exists():
            return ServiceView(ServiceState.DOWN, sentence="there is no data", initialised=False)
        oldest_s = await asyncio.to_thread(self._tools.oldest_s)
        if oldest_s is not None:
            # A server in its first instants has no lock file yet: it is no remains of a crash.
            if oldest_s < YOUNG_S:
                return ServiceView(ServiceState.STARTING, sentence="a process of it has just been started")
            return ServiceView(ServiceState.CRASHED, sentence="its postmaster is gone; other processes of it are left")
        if self._offline is None or self._offline.position is None:
            self._offline = await self._tools.offline()
        return ServiceView(
            ServiceState.DOWN,
            sentence="no process of it runs",
            position=self._offline.position,
            history=self._offline.history,
            system_identifier=self._offline.system_identifier,
            sealed=self._is_sealed(),
        )

    def _silent(self, life: tuple[int, int], reason: Reason, sentence: str) -> ServiceView:
        if reason in OURS and reason not in QUIET:
            return ServiceView(ServiceState.UNKNOWN, sentence=sentence)
        hung = self._answered == life and reason not in QUIET
        return ServiceView(ServiceState.HUNG if hung else ServiceState.STARTING, sentence=sentence)

    def _view_of(self, facts: PostgresFacts) -> ServiceView:
        names = parse_sync_names(facts.synchronous_standby_names)
        effective = self.effective[1] if self.effective is not None and self.effective[0] == names else None
        # Without a receiver, a standby's own functions go on naming the timeline of its last restartpoint.
        timeline = max(facts.timeline, self._tools.newest_timeline()) if facts.in_recovery else facts.timeline
        return ServiceView(
            state=ServiceState.STANDBY if facts.in_recovery else ServiceState.PRIMARY,
            sentence="answers; takes no writes" if facts.in_recovery else "takes writes",
            position=Position(timeline, facts.lsn),
            history=self._tools.history(timeline),
            system_identifier=facts.system_identifier,
            upstream=self._upstream_of(facts),
            receiving=facts.receiver is not None and facts.receiver.is_streaming,
            sealed=self._is_sealed(),
            sync_names=names,
            sync_effective_lsn=effective,
            replicas=tuple(
                Replica(
                    r.application_name, r.is_streaming, r.flushed_lsn or 0, r.sync_state in ("sync", "quorum"), r.pid, r.reply_time or ""
                )
                for r in facts.replicas
            ),
        )

    def _upstream_of(self, facts: PostgresFacts) -> str | None:
        """The member it is set to receive from. The setting may be a user's: several hosts, or nothing that can be read."""
        try:
            address = facts.upstream
        except (ValueError, psycopg.Error):
            return STRANGER
        return None if address is None else self._tools.nodes.get(address, STRANGER)

    def _is_sealed(self) -> bool:
        return (self._data_dir / "standby.signal").exists()


def parse_sync_names(setting: str) -> tuple[str, ...]:
    """The names in `FIRST n ("a", "b")`, which is the form that quorate writes, or in a user's plain list; empty for an empty setting."""
    inside = setting.partition("(")[2].rpartition(")")[0] if "(" in setting else setting
    return tuple(part.strip().strip('"') for part in inside.split(",") if part.strip())
