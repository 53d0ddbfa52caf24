"""A throwaway group on this machine: a primary, two standbys, one agent and one watchdog each, on loopback, in one temporary folder.

Everything it starts it ends: agents and watchdogs by pid, Postgres by its data directory, the folder, the shared memory that a SIGKILL
leaves. It changes nothing outside its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from agent.demo.supervisor import Program, Supervisor
from agent.demo.throwaway_postgres import OS_USER, PASSWORDS, PostgresServer, free_port, own
from agent.errors import QuorateError

GROUP = "main"
MEMBERS = ("pg1", "pg2", "pg3")

Progress = Callable[[str], None]


@dataclass(slots=True)
class ClusterOptions:
    """What differs between a demo and the tests that use the same group."""

    bin_dir: Path | None = None
    durability: str = "sync"
    lease: Mapping[str, str] = field(default_factory=lambda: {"ttl": "2s", "renew": "400ms", "fence_budget": "300ms"})
    group: Mapping[str, object] = field(default_factory=dict)
    """Further keys of the group."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """For the agents."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Where the others reach a member's Postgres, on its own port, when not directly (a relay of a test)."""
    agent_module: str = "agent"
    """What `python -m` runs as the agent (a test may wrap it)."""


class Cluster:
    """The group. `prepare`, then `start`; `close` in any case."""

    def __init__(self, options: ClusterOptions, progress: Progress) -> None:
        self.options = options
        self._progress = progress
        self.folder = Path(tempfile.mkdtemp(prefix="quorate-demo-", dir="/tmp"))
        self.folder.chmod(0o755)
        self._preparing: asyncio.Task[None] | None = None
        self._closing = False
        self.supervisor = Supervisor()
        self.servers: dict[str, PostgresServer] = {}
        self.api = {name: f"127.0.0.1:{free_port()}" for name in MEMBERS}
        self.config_file = self.folder / "quorate.yaml"

    async def prepare(self) -> None:
        """Make the three instances: one cluster, two copies of it, all stopped and sealed. Then the configuration."""
        self._preparing = asyncio.create_task(asyncio.to_thread(self._make_servers))
        await asyncio.shield(self._preparing)
        self._write_configuration()

    def _make_servers(self) -> None:
        for name in MEMBERS:
            folder = self.folder / name
            folder.mkdir()
            own(folder)
            self.servers[name] = PostgresServer(folder, bin_dir=self.options.bin_dir)
        first = self.servers[MEMBERS[0]]
        self._progress("making a Postgres cluster")
        first.initdb()
        first.start()
        first.psql("CREATE TABLE quorate_demo (id bigint PRIMARY KEY, at timestamptz DEFAULT now())")
        first.psql("ALTER ROLE quorate_rewind SUPERUSER")
        first.psql("GRANT INSERT, SELECT ON quorate_demo TO plain")
        for name in MEMBERS[1:]:
            if self._closing:
                return
            self._progress(f"copying it for {name}")
            self.servers[name].base_backup_from(first, name=name)
        first.stop()
        for name in MEMBERS:
            seal = self.servers[name].data_dir / "standby.signal"
            seal.touch()
            own(seal)

    def _write_configuration(self) -> None:
        secrets = self.folder / "secrets"
        secrets.mkdir(mode=0o700)
        for role, password in PASSWORDS.items():
            (secrets / role).write_text(password + "\n", encoding="utf-8")
            (secrets / role).chmod(0o600)
        self.config_file.write_text(yaml.safe_dump(self._configuration(secrets), sort_keys=False), encoding="utf-8")

    def _configuration(self, secrets: Path) -> dict[str, object]:
        return {
            "state_dir": str(self.folder / "state"),
            "coordination": {"local": {"path": str(self.folder / "coordination.sqlite")}},
            "nodes": {name: {"address": self.options.addresses.get(name, "127.0.0.1"), "api": self.api[name]} for name in MEMBERS},
            "checks": {f"{name}-alive": self._check(name, secrets) for name in MEMBERS},
            "groups": {GROUP: self._group(secrets)},
        }

    def _check(self, name: str, secrets: Path) -> dict[str, object]:
        dsn = f"host=127.0.0.1 port={self.servers[name].port} user=quorate dbname=postgres"
        return {"type": "postgres", "level": "deep", "dsn": dsn, "password_file": str(secrets / "quorate"), "on": [name], "every": "1s"}

    def _group(self, secrets: Path) -> dict[str, object]:
        def login(role: str) -> dict[str, str]:
            return {"user": role, "password_file": str(secrets / role)}

        first = self.servers[MEMBERS[0]]
        return {
            "engine": "postgres",
            "members": {name: self._member(name) for name in MEMBERS},
            "durability": self.options.durability,
            "lease": dict(self.options.lease),
            "postgres": {
                "data_dir": str(first.data_dir),
                "bin_dir": str(first.bin_dir),
                "socket_dir": str(first.socket_dir),
                "admin": {"user": "postgres"},
                "monitor": login("quorate"),
                "replication": login("replicator"),
                "rewind": login("quorate_rewind"),
                **({"os_user": OS_USER} if OS_USER else {}),
            },
            **self.options.group,
        }

    def _member(self, name: str) -> dict[str, object]:
        server = self.servers[name]
        return {
            "data_dir": str(server.data_dir),
            "config_file": str(server.config_file),
            "socket_dir": str(server.socket_dir),
            "port": server.port,
        }

    # ------------------------------------------------------------------ running it

    def start(self) -> None:
        """Start a watchdog and an agent for each member, kept running."""
        for name in MEMBERS:
            self.start_watchdog(name)
            self.start_agent(name)

    def start_watchdog(self, name: str) -> None:
        state = self.folder / "state" / name
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = [sys.executable, "-m", "agent", "watchdog", "--state-dir", str(state)]
        self.supervisor.start(Program(f"watchdog {name}", command, self.folder / f"{name}.watchdog.log", self.options.environment))

    def start_agent(self, name: str) -> None:
        command = [sys.executable, "-m", self.options.agent_module, "agent", "--config", str(self.config_file), "--node", name]
        self.supervisor.start(Program(f"agent {name}", command, self.folder / f"{name}.agent.log", self.options.environment))

    def kill_service(self, name: str) -> None:
        """SIGKILL to every process of this member's Postgres at once."""
        self.servers[name].signal_all(signal.SIGKILL)

    def conninfo(self, user: str = "plain", options: str = "target_session_attrs=read-write") -> str:
        """An address of all members, for a client."""
        ports = ",".join(str(self.servers[name].port) for name in MEMBERS)
        hosts = ",".join("127.0.0.1" for _ in MEMBERS)
        return f"host={hosts} port={ports} user={user} password={PASSWORDS[user]} dbname=postgres connect_timeout=2 {options}"

    def last_words(self) -> str:
        """The end of each agent's log, for whoever has to find out why: the logs go with the folder."""
        lines = []
        for name in MEMBERS:
            log = self.folder / f"{name}.agent.log"
            if log.exists():
                lines += [f"{name}: {line[:300]}" for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-4:]]
        return "\n".join(lines)

    async def take_down(self) -> None:
        """Close, and see it through: a second Ctrl-C meanwhile must not leave half of it behind."""
        closing = asyncio.ensure_future(self.close())
        while not closing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(closing)

    async def close(self) -> None:
        """End and remove everything. Never raises for what is gone already.

        A thread cannot be cancelled: what it still makes is waited for, so that there is nothing left that it could start afterwards.
        """
        self._closing = True
        if self._preparing is not None:
            await asyncio.gather(self._preparing, return_exceptions=True)
        await self.supervisor.close()
        for server in self.servers.values():
            with contextlib.suppress(QuorateError, OSError):
                await asyncio.to_thread(server.close)
        self._kill_stray_watchdogs()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _kill_stray_watchdogs(self) -> None:
        """A watchdog that an agent started itself outlives it by design: find it by its lock in the state folder."""
        for lock in (self.folder / "state").glob("*/watchdog.lock"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(lock.read_text(encoding="ascii").split()[0])
                if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
