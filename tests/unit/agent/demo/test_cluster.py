from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from agent.configuration.engine_section import postgres_of
from agent.configuration.group_spec import group_spec_of
from agent.configuration.loader import load
from agent.configuration.secrets import read_login
from agent.decision.view import Durability
from agent.demo.cluster import GROUP, MEMBERS, Cluster, ClusterOptions
from agent.demo.supervisor import Program, Supervisor
from agent.demo.throwaway_postgres import OS_USER, PASSWORDS, PostgresFailed, PostgresServer
from tests.polling import eventually_async


@dataclass
class StandInServer:
    """What the cluster asks of a Postgres when nothing is run."""

    directory: Path
    port: int
    signals: list[signal.Signals] = field(default_factory=list)
    closed: int = 0
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.data_dir = self.directory / "data"
        self.bin_dir = self.directory / "bin"
        self.socket_dir = self.directory / "s"
        self.config_file = self.directory / "postgresql.conf"

    def signal_all(self, number: signal.Signals) -> None:
        self.signals.append(number)

    def close(self) -> None:
        self.closed += 1
        if self.error is not None:
            raise self.error


class StandInSupervisor(Supervisor):
    """Notes what it shall run."""

    def start(self, program: Program) -> None:
        self.programs[program.name] = program


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    one = Cluster(ClusterOptions(), lambda _: None)
    yield one
    await one.close()


def serve(cluster: Cluster) -> dict[str, StandInServer]:
    servers = {name: StandInServer(cluster.folder / name, 5500 + number) for number, name in enumerate(MEMBERS)}
    cluster.servers = cast("dict[str, PostgresServer]", servers)
    return servers


# ---------------------------------------------------------------------------------------------------- the configuration


async def test_the_configuration_is_one_that_loads(cluster: Cluster) -> None:
    servers = serve(cluster)
    cluster._write_configuration()
    configuration = load(cluster.config_file, {})
    spec = group_spec_of(configuration, GROUP)
    assert (tuple(spec.members), spec.durability, spec.terms.ttl_s, spec.renew_s) == (MEMBERS, Durability.SYNC, 2.0, 0.4)
    for name in MEMBERS:
        instance = postgres_of(configuration.groups[GROUP], name)
        assert (instance.port, instance.data_dir, instance.os_user) == (servers[name].port, servers[name].data_dir, OS_USER)
        assert configuration.nodes[name].api == cluster.api[name]
        assert configuration.nodes[name].address == "127.0.0.1"
    assert {check.on for check in configuration.checks.values()} == {(name,) for name in MEMBERS}
    assert configuration.state_dir == cluster.folder / "state"
    instance = postgres_of(configuration.groups[GROUP], MEMBERS[0])
    logins = (instance.monitor, instance.replication, instance.rewind)
    assert [read_login(login) for login in logins if login is not None] == [
        (role, PASSWORDS[role]) for role in ("quorate", "replicator", "quorate_rewind")
    ]


async def test_what_a_test_wants_otherwise_is_in_it() -> None:
    options = ClusterOptions(
        durability="async", lease={"ttl": "9s"}, group={"fence": []}, addresses={"pg2": "127.0.77.1"}, environment={"X": "y"}
    )
    cluster = Cluster(options, lambda _: None)
    try:
        serve(cluster)
        cluster._write_configuration()
        configuration = load(cluster.config_file, {})
        spec = group_spec_of(configuration, GROUP)
        assert (spec.durability, spec.terms.ttl_s, spec.required_fences) == (Durability.ASYNC, 9.0, frozenset())
        assert [configuration.nodes[name].address for name in MEMBERS] == ["127.0.0.1", "127.0.77.1", "127.0.0.1"]
    finally:
        await cluster.close()


async def test_passwords_are_for_this_user_only(cluster: Cluster) -> None:
    serve(cluster)
    cluster._write_configuration()
    secrets = cluster.folder / "secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {file.name: (stat.S_IMODE(file.stat().st_mode), file.read_text()) for file in secrets.iterdir()} == {
        role: (0o600, f"{password}\n") for role, password in PASSWORDS.items()
    }
    assert not any(password in cluster.config_file.read_text() for password in PASSWORDS.values())


async def test_a_client_is_given_all_members(cluster: Cluster) -> None:
    serve(cluster)
    assert cluster.conninfo() == (
        f"host=127.0.0.1,127.0.0.1,127.0.0.1 port=5500,5501,5502 user=plain password={PASSWORDS['plain']} dbname=postgres"
        " connect_timeout=2 target_session_attrs=read-write"
    )


# ---------------------------------------------------------------------------------------------------- running it


async def test_each_member_gets_a_watchdog_and_an_agent(cluster: Cluster) -> None:
    cluster.supervisor = StandInSupervisor()
    cluster.options.environment = {"X": "y"}
    cluster.start()
    programs = cluster.supervisor.programs
    assert list(programs) == [f"{kind} {name}" for name in MEMBERS for kind in ("watchdog", "agent")]
    watchdog, agent = programs["watchdog pg2"], programs["agent pg2"]
    state = cluster.folder / "state" / "pg2"
    assert list(watchdog.command) == [sys.executable, "-m", "agent", "watchdog", "--state-dir", str(state)]
    assert list(agent.command) == [sys.executable, "-m", "agent", "agent", "--config", str(cluster.config_file), "--node", "pg2"]
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert agent.environment == watchdog.environment == {"X": "y"}
    cluster.start_watchdog("pg2")


async def test_killing_a_service_is_sigkill_to_all_of_it(cluster: Cluster) -> None:
    servers = serve(cluster)
    cluster.kill_service("pg2")
    assert {name: server.signals for name, server in servers.items()} == {"pg1": [], "pg2": [signal.SIGKILL], "pg3": []}


async def test_its_last_words_are_the_end_of_each_agents_log(cluster: Cluster) -> None:
    (cluster.folder / "pg1.agent.log").write_bytes(b"\n".join(b"line %d" % number for number in range(9)) + b"\xff" + b"x" * 500)
    (cluster.folder / "pg3.agent.log").write_text("")
    words = cluster.last_words().splitlines()
    assert words[:3] == ["pg1: line 5", "pg1: line 6", "pg1: line 7"]
    assert words[3].startswith("pg1: line 8")
    assert len(words[3]) <= 305
    assert len(words) == 4


# ---------------------------------------------------------------------------------------------------- the end


async def test_nothing_is_left_of_it(cluster: Cluster) -> None:
    servers = serve(cluster)
    servers["pg1"].error = PostgresFailed("it survives")
    cluster.supervisor.start(Program("p", ("/bin/sleep", "60"), cluster.folder / "p.log"))
    program = cluster.supervisor.programs["p"]
    pid = await eventually_async(lambda: program.pid, 5)
    await cluster.close()
    assert not cluster.folder.exists()
    assert [server.closed for server in servers.values()] == [1, 1, 1]
    assert not Path(f"/proc/{pid}").exists()
    await cluster.close()


async def test_a_watchdog_that_an_agent_started_is_found_and_no_other(cluster: Cluster) -> None:
    mine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(cluster.folder)])  # noqa: ASYNC220  # it ends below
    other = subprocess.Popen(["/bin/sleep", "60"])  # noqa: ASYNC220
    try:
        for name, pid in (("pg1", str(mine.pid)), ("pg2", str(other.pid)), ("pg3", "none")):
            (cluster.folder / "state" / name).mkdir(parents=True)
            (cluster.folder / "state" / name / "watchdog.lock").write_text(f"{pid}\n")
        await eventually_async(lambda: str(cluster.folder).encode() in Path(f"/proc/{mine.pid}/cmdline").read_bytes(), 5)
        await cluster.close()
        await eventually_async(lambda: mine.poll() is not None, 5)
        assert mine.returncode == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()


async def test_an_end_in_the_middle_of_the_making_waits_for_what_is_being_made(cluster: Cluster) -> None:
    """A thread cannot be cancelled: what it starts after the end would stay."""
    going, gone_on = threading.Event(), threading.Event()
    made: list[str] = []

    def make() -> None:
        gone_on.wait(10)
        made.append("closed" if not cluster.folder.exists() else "open")
        going.set()

    cluster._make_servers = make  # type: ignore[method-assign]
    preparing = asyncio.create_task(cluster.prepare())
    await asyncio.sleep(0)
    preparing.cancel()
    await asyncio.wait({preparing})
    assert preparing.cancelled()
    closing = asyncio.create_task(cluster.close())
    await asyncio.sleep(0)
    assert cluster.folder.exists()
    gone_on.set()
    await closing
    assert (made, going.is_set(), cluster.folder.exists()) == (["open"], True, False)


async def test_a_making_that_fails_is_told_and_taken_down(cluster: Cluster) -> None:
    def make() -> None:
        raise PostgresFailed("initdb failed (1)")

    cluster._make_servers = make  # type: ignore[method-assign]
    with pytest.raises(PostgresFailed, match="initdb failed"):
        await cluster.prepare()
    await cluster.close()
    assert not cluster.folder.exists()


async def test_a_second_end_does_not_cut_the_first_one_short(cluster: Cluster) -> None:
    gate = asyncio.Event()
    real = cluster.supervisor.close

    async def slow() -> None:
        await gate.wait()
        await real()

    cluster.supervisor.close = slow  # type: ignore[method-assign]
    down = asyncio.create_task(cluster.take_down())
    for _ in range(3):
        await asyncio.sleep(0)
        down.cancel()
    await asyncio.sleep(0)
    assert cluster.folder.exists()
    gate.set()
    await asyncio.wait({down}, timeout=5)
    assert not cluster.folder.exists()


async def test_its_ports_are_its_own(cluster: Cluster) -> None:
    assert list(cluster.api) == list(MEMBERS)
    assert len(set(cluster.api.values())) == len(MEMBERS)
    for address in cluster.api.values():
        with socket.socket() as free:
            free.bind(("127.0.0.1", int(address.partition(":")[2])))
    assert os.access(cluster.folder, os.W_OK)
    assert stat.S_IMODE(cluster.folder.stat().st_mode) == 0o755
