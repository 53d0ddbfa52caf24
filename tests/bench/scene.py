"""The peers' stage: three hosts, a Consul server on each, the client's host with writer and sampler, and the faults. Built on tests/lab.

One scene is one run: it is made, broken once, measured and removed. Consul is the lab's (raft_multiplier 1) but for its gossip, which is
Consul's own. Postgres' settings are the lab's. Nothing of a scene outlives it: its hosts die with this process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.demo.throwaway_postgres import _SETTINGS as THROWAWAY_SETTINGS
from tests.bench.faults import Fault
from tests.lab.client import Plan
from tests.lab.network import ROOT, Host, LabFailed, Network
from tests.lab.servers.consul.consul import ConsulCluster, ConsulServer, ServerPlan, plans_of

MEMBERS: Mapping[str, int] = {"h1": 11, "h2": 12, "h3": 13}
CLIENT_NUMBER = 100
LEADER = "h1"
"""Every run begins with this one as the primary."""
PORT = 5432
POSTGRES_SETTINGS: Mapping[str, str] = {
    **THROWAWAY_SETTINGS,
    "listen_addresses": "*",
    "unix_socket_directories": "",  # the file system is one for all hosts
    "wal_log_hints": "on",
    "max_connections": "100",
}
"""Of every Postgres of the bench, whoever runs it."""
HBA = (
    "local all all trust",
    "host all all 192.0.2.0/24 trust",
    "host replication all 192.0.2.0/24 trust",
    "host all all 127.0.0.1/32 trust",
)


class HostedServer(ConsulServer):
    """A Consul server that a host's process 1 runs: it dies with the host."""

    def __init__(self, plan: ServerPlan, host: Host) -> None:
        super().__init__(plan)
        self._host = host
        self._started = False

    @property
    def running(self) -> bool:
        return self._started and self._host.is_up

    def start(self) -> None:
        self.plan.folder.mkdir(parents=True, exist_ok=True)
        file = self.plan.folder / "consul.json"
        file.write_text(json.dumps(self.plan.configuration()), encoding="utf-8")
        command = [str(self.plan.binary), "agent", f"-config-file={file}"]
        self._host.keep("consul", command, self.log, {"GOMAXPROCS": "2"})
        self._started = True


class Scene:
    """Hosts, Consul, client. Close it, or use it as a context."""

    def __init__(self, bin_dir: Path) -> None:
        self.bin_dir = bin_dir
        self.network = Network()
        self.folder = self.network.folder
        self.hosts = {name: self.network.add(name, number) for name, number in MEMBERS.items()}
        self.client = self.network.add("client", CLIENT_NUMBER)
        self.client_folder = self.folder / "measured"

    # ------------------------------------------------------------------ what runs

    def start_consul(self, binary: Path, leader: str, *, cleans_up: bool) -> ConsulCluster:
        """Three servers; the one of `leader` leads them. Returns when it takes writes. `cleans_up`: contenders.py says why it matters."""
        addresses = [host.address for host in self.hosts.values()]
        plans = plans_of(list(self.hosts), addresses, self.folder / "consul", binary)
        servers = []
        for plan, host in zip(plans, self.hosts.values(), strict=True):
            asked_from_there = dataclasses.replace(plan, prefix=tuple(host.enter([])), quick_gossip=False, cleans_up=cleans_up)
            servers.append(HostedServer(asked_from_there, host))
        cluster = ConsulCluster(servers)
        cluster.start()
        cluster.wait_leader()
        cluster.make_leader(servers[list(self.hosts).index(leader)])
        return cluster

    def start_client(self) -> None:
        """Writer and sampler: both go to the members' own addresses, the writer from one to the next until one takes its row."""
        self.client_folder.mkdir()
        members = {name: self.conninfo(name) for name in self.hosts}
        plan = Plan(
            str(self.client_folder),
            targets=list(members.values()),
            members={name: f"{conninfo} options='-c synchronous_commit=local'" for name, conninfo in members.items()},
        )
        file = self.client_folder / "plan.json"
        file.write_text(json.dumps(asdict(plan)), encoding="utf-8")
        self.client.keep(
            "client", [sys.executable, "-m", "tests.lab.client", str(file)], self.folder / "client.log", {"PYTHONPATH": str(ROOT)}
        )

    def conninfo(self, name: str) -> str:
        return f"host={self.hosts[name].address} port={PORT} user=plain dbname=postgres sslmode=disable gssencmode=disable"

    def psql(self, name: str, sql: str, timeout_s: float = 10.0) -> str | None:
        """A superuser's question on the member's own host; None: no answer."""
        host = self.hosts[name]
        if not host.is_up:
            return None
        conninfo = f"host={host.address} port={PORT} user=postgres dbname=postgres connect_timeout=2"
        done = host.run([str(self.bin_dir / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, conninfo], timeout_s)
        return done.stdout.strip() if done.returncode == 0 else None

    def streaming(self) -> int:
        """How many standbys the first primary sends to; 0 also when it does not answer."""
        answer = self.psql(LEADER, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND NOT pg_is_in_recovery()")
        return int(answer or 0)

    # ------------------------------------------------------------------ what is done to it

    def do(self, fault: Fault, agent_units: tuple[str, ...]) -> None:
        """Break the first primary's host in this way. `agent_units`: what decides there, for the fault that kills it."""
        host = self.hosts[LEADER]
        others = [name for name in self.hosts if name != LEADER]
        if fault is Fault.SERVICE_KILLED:
            kill_postgres(host)
        elif fault in {Fault.HOST_DEAD, Fault.HOST_DEAD_CONSUL_LEADER}:
            host.crash()
        elif fault is Fault.CUT_OFF:
            self.network.partition([LEADER], [*others, self.client.name])
        elif fault is Fault.CUT_FROM_MEMBERS:
            self.network.partition([LEADER], others)
        else:
            for unit in agent_units:
                host.hold(unit, signal.SIGKILL)

    def close(self) -> None:
        self.network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def kill_postgres(host: Host) -> None:
    """SIGKILL to every process of Postgres on the host; three times, for what was being forked."""
    killed = 0
    for _ in range(3):
        for pid in host.processes():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() in {"postgres", "postmaster"}:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    if not killed:
        raise LabFailed(f"{host.name} ran no Postgres to kill")


def as_postgres() -> list[str]:
    """What a command is put behind so that it is not root and yet may read and write what root made: Postgres refuses to run as root."""
    account = pwd.getpwnam("postgres")
    return ["unshare", "--user", f"--map-user={account.pw_uid}", f"--map-group={account.pw_gid}", "--"]
