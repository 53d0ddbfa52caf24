from __future__ import annotations

import asyncio
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from agent.coordination.lease import Position
from agent.decision.view import Branch, ServiceState
from agent.observation import postgres_reader
from agent.observation.postgres_reader import Offline, PostgresReader, ReaderTools, parse_sync_names
from checks.network import ProbeFailed, Reason
from checks.postgres_client import Connection
from checks.postgres_facts import PostgresFacts, ReceiverFacts, ReplicaFacts

FACTS = PostgresFacts(
    server_version=160000,
    system_identifier="7",
    in_recovery=True,
    timeline=2,
    lsn=500,
    received_lsn=500,
    replayed_lsn=490,
    replay_age_s=0.1,
    receiver=ReceiverFacts("streaming", "127.0.0.1", 5433, 2, 500, 500, 0.1),
    replicas=(),
    primary_conninfo="host=127.0.0.1 port=5433 user=replicator",
    synchronous_standby_names="",
    default_read_only=False,
    sees_all=True,
)
OFFLINE = Offline(Position(2, 480), (Branch(1, 90),), "7")


@dataclass
class Server:
    """What the reader finds: a data directory, a postmaster's process, and what the server would say."""

    data_dir: Path
    answer: PostgresFacts | Exception = FACTS
    oldest_s: float | None = None
    offline: Offline = OFFLINE
    offline_asked: int = 0
    newest_timeline: int = 0
    process: subprocess.Popen[bytes] | None = None
    reader: PostgresReader = field(init=False)

    def __post_init__(self) -> None:
        nodes = {("127.0.0.1", 5433): "pg2"}
        tools = ReaderTools(
            self._connect, lambda: self.oldest_s, self._offline, lambda: self.newest_timeline, lambda t: (Branch(t - 1, 90),), nodes
        )
        self.reader = PostgresReader(self.data_dir, tools)

    async def _connect(self, timeout_s: float) -> Connection:
        assert timeout_s > 0
        if isinstance(self.answer, ProbeFailed):
            raise self.answer
        if isinstance(self.answer, TimeoutError):
            await asyncio.Event().wait()
        return cast("Connection", self)

    async def _offline(self) -> Offline:
        self.offline_asked += 1
        return self.offline

    def run(self) -> int:
        """A process that stands in the data directory and is noted as the postmaster."""
        self.stop()
        self.process = subprocess.Popen(["/bin/sleep", "60"], cwd=self.data_dir)
        (self.data_dir / "postmaster.pid").write_text(f"{self.process.pid}\n{self.data_dir}\n")
        return self.process.pid

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "PG_VERSION").write_text("16\n")
    one = Server(tmp_path)

    async def read_facts(connection: Any, _timeout_s: float) -> PostgresFacts:
        assert isinstance(connection.answer, PostgresFacts)
        return connection.answer

    monkeypatch.setattr(postgres_reader, "read_facts", read_facts)
    yield one
    one.stop()


# ---------------------------------------------------------------------------------------------------- whether it runs


async def test_the_postmaster_is_who_the_lock_file_names_and_stands_there(server: Server, tmp_path: Path) -> None:
    assert server.reader.main_pid() is None
    pid = server.run()
    assert server.reader.main_pid() == pid
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n")
    assert server.reader.main_pid() is None, "it stands elsewhere: the number is somebody else's by now"


@pytest.mark.parametrize("content", ["", "\n", "none\n", "-7\n", "999999999\n", "\udcff"])
async def test_a_lock_file_that_names_nobody(server: Server, tmp_path: Path, content: str) -> None:
    (tmp_path / "postmaster.pid").write_text(content, errors="surrogateescape")
    assert server.reader.main_pid() is None


def test_a_dead_postmaster_that_nobody_has_reaped_is_none(server: Server) -> None:
    server.run()
    assert server.process is not None
    server.process.kill()
    os.waitid(os.P_PID, server.process.pid, os.WEXITED | os.WNOWAIT)
    assert server.reader.main_pid() is None


# ---------------------------------------------------------------------------------------------------- stopped


async def test_a_stopped_server_is_read_from_its_files_once(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        seen = await server.reader.read(1.0)
        assert (seen.state, seen.position, seen.history, seen.system_identifier) == (ServiceState.DOWN, *vars_of(OFFLINE))
        assert (seen.sealed, seen.initialised) == (False, True)
    assert server.offline_asked == 1
    (tmp_path / "standby.signal").touch()
    assert (await server.reader.read(1.0)).sealed
    server.run()
    await server.reader.read(1.0)
    server.stop()
    await server.reader.read(1.0)
    assert server.offline_asked == 2, "it ran meanwhile"


def vars_of(offline: Offline) -> tuple[object, ...]:
    return offline.position, offline.history, offline.system_identifier


async def test_files_that_could_not_be_read_are_asked_again(server: Server) -> None:
    server.offline = Offline(None, (), None)
    assert (await server.reader.read(1.0)).position is None
    server.offline = OFFLINE
    assert (await server.reader.read(1.0)).position == OFFLINE.position


async def test_an_empty_folder_holds_no_data(server: Server, tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").unlink()
    seen = await server.reader.read(1.0)
    assert (seen.state, seen.initialised, seen.sentence) == (ServiceState.DOWN, False, "there is no data")
    assert server.offline_asked == 0


@pytest.mark.parametrize(("oldest_s", "state"), [(0.2, ServiceState.STARTING), (1.0, ServiceState.CRASHED), (60.0, ServiceState.CRASHED)])
async def test_processes_without_a_postmaster_are_remains_unless_they_are_young(
    server: Server, oldest_s: float, state: ServiceState
) -> None:
    server.oldest_s = oldest_s
    assert (await server.reader.read(1.0)).state is state
    assert server.offline_asked == 0


# ---------------------------------------------------------------------------------------------------- what nobody may see


@contextmanager
def as_nobody() -> Iterator[None]:
    """As root, for a moment as somebody else: root may see everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_folder_that_may_not_be_read_is_unknown(tmp_path: Path) -> None:
    inner = tmp_path / "closed"
    inner.mkdir()
    (inner / "data").mkdir()
    inner.chmod(0)
    one = Server(inner / "data")
    with as_nobody():
        seen = await one.reader.read(1.0)
        assert one.reader.main_pid() is None
    inner.chmod(0o700)
    assert (seen.state, "may not be read" in seen.sentence) == (ServiceState.UNKNOWN, True)


async def test_a_postmaster_that_may_not_be_looked_at_is_not_taken_for_none() -> None:
    """`down` would be a proof that it takes no writes; here there is none."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "PG_VERSION").write_text("16\n")
        (Path(folder) / "postmaster.pid").write_text("1\n")
        one = Server(Path(folder), ProbeFailed(Reason.REFUSED, "it refuses"))
        with as_nobody():
            seen = await one.reader.read(1.0)
    assert seen.state not in (ServiceState.DOWN, ServiceState.STANDBY)


# ---------------------------------------------------------------------------------------------------- running


async def test_a_standby_is_what_it_says(server: Server, tmp_path: Path) -> None:
    server.run()
    (tmp_path / "standby.signal").touch()
    seen = await server.reader.read(1.0)
    assert (seen.state, seen.position, seen.history) == (ServiceState.STANDBY, Position(2, 500), (Branch(1, 90),))
    assert (seen.upstream, seen.receiving, seen.sealed, seen.system_identifier) == ("pg2", True, True, "7")


@pytest.mark.parametrize(("newest", "timeline"), [(0, 2), (2, 2), (3, 3)])
async def test_a_standby_is_on_the_timeline_that_it_received_last(server: Server, newest: int, timeline: int) -> None:
    server.run()
    server.newest_timeline = newest
    assert (await server.reader.read(1.0)).position == Position(timeline, 500)
    server.answer = replace(FACTS, in_recovery=False, receiver=None)
    assert (await server.reader.read(1.0)).position == Position(2, 500), "a primary knows its own"


@pytest.mark.parametrize(
    ("conninfo", "upstream"),
    [
        ("host=127.0.0.1 port=5433", "pg2"),
        ("host=127.0.0.1 port=9", "an unknown server"),
        ("host=10.0.0.1,10.0.0.2 port=5432,5433", "an unknown server"),
        ("host=127.0.0.1 port=none", "an unknown server"),
        ("no conninfo at all", "an unknown server"),
        ("", None),
        (None, None),
    ],
)
async def test_whom_it_receives_from(server: Server, conninfo: str | None, upstream: str | None) -> None:
    server.run()
    server.answer = replace(FACTS, primary_conninfo=conninfo)
    seen = await server.reader.read(1.0)
    assert (seen.state, seen.upstream) == (ServiceState.STANDBY, upstream)


@pytest.mark.parametrize("receiver", [None, replace(cast("ReceiverFacts", FACTS.receiver), status="waiting")])
async def test_a_receiver_that_does_not_stream_receives_nothing(server: Server, receiver: ReceiverFacts | None) -> None:
    server.run()
    server.answer = replace(FACTS, receiver=receiver)
    assert not (await server.reader.read(1.0)).receiving


def replica(name: str, state: str | None, sync: str | None, flushed: int | None = 7) -> ReplicaFacts:
    return ReplicaFacts(name, state, sync, 9, flushed, 5, 4, 0.1, 100, "12:00")


async def test_a_primary_shows_its_standbys_and_whom_commits_wait_for(server: Server) -> None:
    server.run()
    server.answer = replace(
        FACTS,
        in_recovery=False,
        receiver=None,
        replicas=(
            replica("pg2", "streaming", "sync"),
            replica("pg3", "catchup", "async", None),
            replica("pg4", "streaming", "quorum"),
        ),
        synchronous_standby_names='FIRST 1 ("pg2")',
    )
    seen = await server.reader.read(1.0)
    assert seen.state is ServiceState.PRIMARY
    assert [(r.name, r.streaming, r.flushed_lsn, r.is_sync) for r in seen.replicas] == [
        ("pg2", True, 7, True),
        ("pg3", False, 0, False),
        ("pg4", True, 7, True),
    ]
    assert {(r.sender, r.reply, r.heard) for r in seen.replicas} == {(100, "12:00", None)}
    assert (seen.sync_names, seen.sync_effective_lsn) == (("pg2",), None)
    server.reader.effective = (("pg2",), 77)
    assert (await server.reader.read(1.0)).sync_effective_lsn == 77
    server.reader.effective = (("pg3",), 77)
    assert (await server.reader.read(1.0)).sync_effective_lsn is None


# ---------------------------------------------------------------------------------------------------- silent


@pytest.mark.parametrize(
    ("reason", "before", "after"),
    [
        (Reason.TIMEOUT, ServiceState.STARTING, ServiceState.HUNG),
        (Reason.FULL, ServiceState.STARTING, ServiceState.HUNG),
        (Reason.GARBAGE, ServiceState.STARTING, ServiceState.HUNG),
        (Reason.STARTING, ServiceState.STARTING, ServiceState.STARTING),
        (Reason.STOPPING, ServiceState.STARTING, ServiceState.STARTING),
        (Reason.REFUSED, ServiceState.STARTING, ServiceState.STARTING),
        (Reason.CLOSED, ServiceState.STARTING, ServiceState.STARTING),
        (Reason.LOGIN, ServiceState.UNKNOWN, ServiceState.UNKNOWN),
        (Reason.LOCAL, ServiceState.UNKNOWN, ServiceState.UNKNOWN),
        (Reason.TLS, ServiceState.UNKNOWN, ServiceState.UNKNOWN),
    ],
)
async def test_what_a_silence_means(server: Server, reason: Reason, before: ServiceState, after: ServiceState) -> None:
    """Hung is only who answered before in this very life and then falls silent without a word."""
    server.run()
    server.answer = ProbeFailed(reason, "it says so")
    seen = await server.reader.read(1.0)
    assert (seen.state, seen.sentence) == (before, "it says so")
    server.answer = FACTS
    await server.reader.read(1.0)
    server.answer = ProbeFailed(reason, "it says so")
    assert (await server.reader.read(1.0)).state is after
    server.run()
    assert (await server.reader.read(1.0)).state is before, "a new life has not answered yet"


async def test_no_answer_in_time_is_told_with_the_time(server: Server) -> None:
    server.run()
    await server.reader.read(1.0)
    server.answer = TimeoutError()
    seen = await server.reader.read(0.02)
    assert (seen.state, seen.sentence) == (ServiceState.HUNG, "Postgres gave no answer within 0.02 s")


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("", ()),
        ('FIRST 1 ("pg2")', ("pg2",)),
        ('FIRST 2 ("pg2", "pg-3")', ("pg2", "pg-3")),
        ("ANY 1 (a,b)", ("a", "b")),
        ("FIRST 1 ()", ()),
    ],
)
def test_the_names_that_commits_wait_for(setting: str, names: tuple[str, ...]) -> None:
    assert parse_sync_names(setting) == names


def test_the_setting_may_be_of_the_users_own_making() -> None:
    assert parse_sync_names("pg2") == ("pg2",)
    assert parse_sync_names('"pg2", pg3') == ("pg2", "pg3")
    assert parse_sync_names("*") == ("*",)
