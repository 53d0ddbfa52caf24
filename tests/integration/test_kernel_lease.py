"""The kernel alone: agent and watchdog of a primary are frozen together, and clients on another host are cut off in time all the same.

A real Postgres, agent and watchdog in a network namespace; clients and a peer in namespaces of their own.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from agent.demo.throwaway_postgres import OS_USER, PASSWORDS, PostgresServer, own
from tests.lab.network import Host, Network, why_impossible
from tests.plugins.left_out import left_out
from tests.polling import eventually_async

pytestmark = pytest.mark.timeout(120)

TTL_S, FENCE_BUDGET_S = 2.0, 0.3
WRITER = Path(__file__).with_name("agents") / "steady_writer.py"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Attempt:
    """What a client met. `ended_s`: by CLOCK_MONOTONIC, which is one for all namespaces."""

    ended_s: float
    took_s: float
    outcome: str


@dataclass
class Site:
    """pg1 with its Postgres, a peer (a witness that need not run), and a host of clients."""

    network: Network
    server: PostgresServer
    pg1: Host
    peer: Host
    clients: Host
    writers: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def conninfo(self, address: str) -> str:
        return f"host={address} port={self.server.port} user=plain password={PASSWORDS['plain']} dbname=postgres"

    def write(self, host: Host, address: str, seconds: float, pause_s: float = 0.0) -> Path:
        """Begin a steady writer; the file of its attempts."""
        told = self.network.folder / f"writer-{len(self.writers)}"
        command = [sys.executable, str(WRITER), self.conninfo(address), str(seconds), str(pause_s)]
        with told.open("wb") as output:
            self.writers.append((host.popen(command, stdout=output, stderr=subprocess.STDOUT), told))
        return told

    def local_write(self) -> str:
        """Whether Postgres itself still takes writes, over its local socket."""
        return self.server.psql("INSERT INTO written VALUES (0) RETURNING 'taken'")

    def freeze(self) -> float:
        """Agent and watchdog together; when."""
        for unit in ("agent", "watchdog"):
            self.pg1.signal(unit, signal.SIGSTOP)
        return time.monotonic()

    def logs(self) -> str:
        files = [*sorted(self.network.folder.glob("*.log")), self.server.data_dir.parent / "data.quorate.log"]
        return "\n".join(f"---- {f.name}\n" + "\n".join(f.read_text(errors="replace").splitlines()[-30:]) for f in files if f.exists())


def attempts(told: Path) -> list[Attempt]:
    rows = [line.split(" ", 2) for line in told.read_text().splitlines() if line[:1].isdigit() and line.count(" ") >= 2]
    return [Attempt(float(ended), float(took), outcome) for ended, took, outcome in rows]


def last_ok_s(told: Path) -> float:
    return max((a.ended_s for a in attempts(told) if a.outcome == "ok"), default=0.0)


def _prepare(server: PostgresServer) -> None:
    server.initdb()
    server.start()
    server.psql("CREATE TABLE written (at double precision)")
    server.psql("GRANT INSERT, SELECT ON written TO plain")
    server.stop()
    with (server.config_dir / "pg_hba.conf").open("a") as hba:
        hba.write("host all all 192.0.2.0/24 scram-sha-256\nhost all all 2001:db8::/32 scram-sha-256\n")
    seal = server.data_dir / "standby.signal"
    seal.touch()
    own(seal)


def _configuration(site: Site, fence: list[str]) -> str:
    folder = site.network.folder
    server = site.server
    roles = {"monitor": "quorate", "replication": "replicator", "rewind": "quorate_rewind"}
    postgres = {
        "data_dir": str(server.data_dir),
        "config_file": str(server.config_file),
        "bin_dir": str(server.bin_dir),
        "socket_dir": str(server.socket_dir),
        "port": server.port,
        **({"os_user": OS_USER} if OS_USER else {}),
        **{role: {"user": user, "password": PASSWORDS[user]} for role, user in roles.items()},
    }
    group = {
        "engine": "postgres",
        "members": {"pg1": {}},
        "witnesses": ["peer"],
        "fence": fence,
        "postgres": postgres,
        "lease": {"ttl": f"{TTL_S:g}s", "renew": "400ms", "fence_budget": f"{FENCE_BUDGET_S * 1000:g}ms"},
    }
    whole = {
        "state_dir": str(folder / "state"),
        "coordination": {"local": {"path": str(folder / "coordination.sqlite")}},
        "nodes": {host.name: {"address": host.address, "api": f"{host.address}:8480"} for host in (site.pg1, site.peer)},
        "groups": {"main": group},
    }
    return yaml.safe_dump(whole)


@asynccontextmanager
async def running(bin_dir: Path, fence: list[str]) -> AsyncIterator[Site]:
    """A primary that takes writes from everywhere."""
    missing = why_impossible()
    if missing is not None:
        left_out(f"{missing}: whether the kernel alone cuts clients off", "run the tests as root with iproute2 and nftables")
    with Network() as network, PostgresServer(bin_dir=bin_dir, settings={"listen_addresses": "*"}) as server:
        _prepare(server)
        site = Site(network, server, network.add("pg1", 11), network.add("peer", 12), network.add("clients", 50))
        file = network.folder / "quorate.yaml"
        file.write_text(_configuration(site, fence))
        state = network.folder / "state/pg1"
        state.mkdir(parents=True)
        python = {"PYTHONPATH": str(ROOT)}
        for unit, arguments in (("watchdog", ["--state-dir", str(state)]), ("agent", ["--config", str(file), "--node", "pg1"])):
            site.pg1.keep(unit, [sys.executable, "-m", "agent", unit, *arguments], network.folder / f"{unit}.log", python)
        try:
            probe = site.write(site.clients, site.pg1.address, 60)
            await eventually_async(lambda: last_ok_s(probe) > 0, 30, "a client writes")
            _end(site)
            yield site
        except BaseException:
            sys.stderr.write(site.logs())
            raise
        finally:
            _end(site)


def _end(site: Site) -> None:
    for process, _ in site.writers:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(10)


async def test_with_agent_and_watchdog_frozen_the_kernel_cuts_clients_off(postgres_bin: Path) -> None:
    async with running(postgres_bin, ["seal", "kernel", "watchdog"]) as site:
        steady = [site.write(site.clients, address, 20) for address in (site.pg1.address, site.pg1.address6)]
        peer = site.write(site.peer, site.pg1.address, 20)
        await eventually_async(lambda: all(last_ok_s(told) > 0 for told in (*steady, peer)), 10, "all write")
        slow = site.write(site.clients, site.pg1.address, 20, TTL_S + 1.5)
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        await eventually_async(lambda: site.server.psql(sleeping) == "1", 10, "the slow statement runs")
        frozen_s = site.freeze()
        await eventually_async(lambda: all(len(_shut(told)) >= 5 for told in steady), TTL_S + 5, "clients find the port shut")
        assert site.local_write() == "taken", "Postgres itself was not fenced: only the kernel stands between it and clients"
        assert all(last_ok_s(told) <= frozen_s + TTL_S for told in steady), "nothing is acknowledged after the deadline"
        assert all(_learnt_s(told) < 0.5 for told in steady), "whoever is cut off is told at once"
        await eventually_async(lambda: time.monotonic() > frozen_s + TTL_S + 4, 10, "the slow statement has ended")
        assert last_ok_s(slow) == 0.0, "what was asked for before the deadline is not acknowledged after it"
        assert last_ok_s(peer) > frozen_s + TTL_S + 2, "replication and observers are let in"
        thawed_s = time.monotonic()
        for unit in ("watchdog", "agent"):
            site.pg1.signal(unit, signal.SIGCONT)
        fresh = site.write(site.clients, site.pg1.address, 30)
        await eventually_async(lambda: last_ok_s(fresh) > thawed_s, 20, "it leads again, fenced in between")


def _shut(told: Path) -> list[Attempt]:
    return [a for a in attempts(told) if a.outcome.startswith("shut")]


def _learnt_s(told: Path) -> float:
    """How long the attempt took in which the client lost its connection."""
    return next(a.took_s for a in attempts(told) if a.outcome.startswith("lost"))


async def test_without_the_kernel_they_write_on(postgres_bin: Path) -> None:
    """The same with the other fences only: seen to be able to fail."""
    async with running(postgres_bin, ["seal", "watchdog"]) as site:
        steady = site.write(site.clients, site.pg1.address, 20)
        await eventually_async(lambda: last_ok_s(steady) > 0, 10, "it writes")
        frozen_s = site.freeze()
        await eventually_async(lambda: last_ok_s(steady) > frozen_s + TTL_S + 1, 10, "it writes after the deadline")


async def test_a_service_that_died_is_reached_again_when_it_takes_writes_again(postgres_bin: Path) -> None:
    async with running(postgres_bin, ["seal", "kernel", "watchdog"]) as site:
        steady = site.write(site.clients, site.pg1.address, 30)
        await eventually_async(lambda: last_ok_s(steady) > 0, 10, "it writes")
        site.server.signal_all(signal.SIGKILL)
        killed_s = time.monotonic()
        await eventually_async(lambda: last_ok_s(steady) > killed_s, 20, "it writes again")
        log = (site.network.folder / "agent.log").read_text()
        assert "port.unleased" not in log, log
