"""What runs on a host of the lab: a Consul server, Postgres, a watchdog and an agent, kept by a small supervisor (init.py).

The agent starts and stops Postgres, as in production; the lab only makes its data directory and kills it. A second tiny sampler on each
member asks over the local socket whether it takes writes there: what does so only locally is reported apart. Consul is not restarted when
it is killed: a dead Consul server stays dead until `consul_up` or `heal`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from agent.demo.throwaway_postgres import PASSWORDS, PostgresServer, processes_in
from tests.lab.client import Plan
from tests.lab.network import ROOT, Host, tail
from tests.lab.servers.consul.consul import ServerPlan
from tests.lab.template import copy_template

PORT = 5432
LOCAL_SAMPLE_S = 0.05
FREEZABLE = ("agent", "watchdog")
SETTINGS = {"listen_addresses": "*", "max_connections": "200", "wal_sender_timeout": "60s", "log_line_prefix": "%m [%p] "}
"""Timeouts as a user has them: Postgres' own, which notice a dead host after a minute."""
HBA = """\
local all         all                               trust
local replication all                               trust
host  all         plain      192.0.2.0/24           trust
host  all         all        192.0.2.0/24           scram-sha-256
host  all         all        2001:db8::/64          scram-sha-256
host  all         all        127.0.0.1/32           scram-sha-256
host  replication replicator 192.0.2.0/24           scram-sha-256
host  replication replicator 2001:db8::/64          scram-sha-256
"""
"""The lab's own client comes without a password: a hashed one costs more processor time than its question."""


@dataclass
class LabHost:
    """One host with its services. `consul`: the plan of its server; `config_file`: quorate's, the same on every host."""

    host: Host
    folder: Path
    consul: ServerPlan
    config_file: Path
    bin_dir: Path
    is_witness: bool = False
    server: PostgresServer | None = None
    frozen: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    consul_is_down: bool = False

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def address(self) -> str:
        return self.host.address

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def is_up(self) -> bool:
        return self.host.is_up

    def prepare(self) -> None:
        """On a member: make its data directory."""
        if not self.is_witness:
            self.server = PostgresServer(self.folder / "pg", PORT, self.bin_dir, settings=SETTINGS)
            copy_template(self.bin_dir, self.server.data_dir)
            self.server.write_config()
            (self.server.config_dir / "pg_hba.conf").write_text(HBA, encoding="ascii")

    # ------------------------------------------------------------------ its units

    def start_consul(self) -> None:
        """Start its Consul server, or go on with what its folder holds."""
        self.consul_is_down = False
        self.consul.folder.mkdir(parents=True, exist_ok=True)
        file = self.consul.folder / "consul.json"
        file.write_text(json.dumps(self.consul.configuration()), encoding="utf-8")
        command = [str(self.consul.binary), "agent", f"-config-file={file}"]
        self.host.keep("consul", command, self.folder / "consul.log", {"GOMAXPROCS": "2"}, restart=False)

    def stop_consul(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End its Consul server: cleanly, or as `number` says."""
        self.consul_is_down = True
        self.host.hold("consul", number)

    def start_quorate(self) -> None:
        """Start watchdog and agent, and on a member the local sampler."""
        environment = {"PYTHONPATH": str(ROOT), "QUORATE_NODE": self.name}
        self.state_dir.mkdir(exist_ok=True, mode=0o700)
        python = [sys.executable, "-m"]
        own_state = self.state_dir / self.name
        own_state.mkdir(exist_ok=True, mode=0o700)
        watchdog = [*python, "agent", "watchdog", "--state-dir", str(own_state)]
        self.host.keep("watchdog", watchdog, self.folder / "watchdog.log", environment)
        agent = [*python, "agent", "agent", "--config", str(self.config_file), "--node", self.name]
        self.host.keep("agent", agent, self.folder / "agent.log", environment)
        if self.server is not None:
            self._start_local_sampler(environment)

    def _start_local_sampler(self, environment: dict[str, str]) -> None:
        assert self.server is not None
        folder = self.folder / "local"
        folder.mkdir(exist_ok=True)
        conninfo = f"{self.server.socket_dsn('plain')} options='-c synchronous_commit=local'"
        plan = Plan(str(folder), members={self.name: conninfo}, sample_s=LOCAL_SAMPLE_S)
        (folder / "plan.json").write_text(json.dumps(asdict(plan)), encoding="utf-8")
        command = [sys.executable, "-m", "tests.lab.client", str(folder / "plan.json")]
        self.host.keep("sampler", command, self.folder / "sampler.log", environment)

    # ------------------------------------------------------------------ what is done to it

    def kill_service(self) -> None:
        """SIGKILL to every process of Postgres at once, the postmaster first."""
        assert self.server is not None
        for _ in range(3):  # what was being forked while we looked
            pids = processes_in(self.server.data_dir)
            for pid in sorted(pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def kill_unit(self, unit: str, *, stay_dead: bool) -> None:
        """SIGKILL to agent or watchdog; the supervisor restarts it unless it is to stay dead."""
        if stay_dead:
            self.dead.add(unit)
            self.host.hold(unit)
        else:
            self.host.signal(unit, signal.SIGKILL)

    def freeze(self, *units: str) -> None:
        """SIGSTOP, all of them with nothing in between."""
        for unit in units:
            self.frozen.add(unit)
            self.host.signal(unit, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let everything that is frozen go on."""
        if self.is_up:
            for unit in sorted(self.frozen):
                self.host.signal(unit, signal.SIGCONT)
        self.frozen.clear()

    def crash(self) -> None:
        """The whole host at once."""
        self.frozen.clear()
        self.dead.clear()
        self.host.crash()

    def boot(self) -> None:
        """Up again with a new boot id, everything started."""
        self.host.boot()
        self.start_consul()
        self.start_quorate()

    def heal(self) -> None:
        """Undo what was done to it and can be undone."""
        if not self.is_up:
            self.boot()
            return
        self.thaw()
        if self.consul_is_down:
            self.start_consul()
        if self.dead:
            self.dead.clear()
            self.start_quorate()

    # ------------------------------------------------------------------ what it says

    def psql(self, sql: str, timeout_s: float = 10.0) -> str | None:
        """The answer over the local socket; None: it gave none."""
        assert self.server is not None
        if not self.is_up:
            return None
        command = [str(self.bin_dir / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, self.server.socket_dsn()]
        done = self.host.run(command, timeout_s)
        return done.stdout.strip() if done.returncode == 0 else None

    def conninfo(self, address: str | None = None, options: str = "") -> str:
        """For the client, without a password and without what only costs time."""
        base = f"host={address or self.address} port={PORT} user=plain dbname=postgres sslmode=disable gssencmode=disable"
        return f"{base} options='{options}'" if options else base

    def last_words(self, lines: int = 25) -> str:
        """The ends of its logs, for a message."""
        logs = [
            self.folder / "agent.log",
            self.folder / "watchdog.log",
            self.folder / "pg" / "data.quorate.log",
            self.folder / "consul.log",
        ]
        return "\n".join(f"---- {self.name}/{log.name}\n{tail(log, lines)}" for log in logs if log.exists())


def write_secrets(folder: Path) -> Path:
    """Files with the passwords of the roles, and the keys of agents and operators."""
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    entries = {**PASSWORDS, "operator": os.urandom(16).hex(), "peer": os.urandom(32).hex()}
    for name, secret in entries.items():
        (secrets / name).write_text(secret + "\n", encoding="ascii")
        (secrets / name).chmod(0o600)
    tokens = json.dumps({"tokens": [{"name": "lab", "roles": ["operator"], "token": entries["operator"]}]})
    (secrets / "tokens.yaml").write_text(tokens, encoding="ascii")
    (secrets / "tokens.yaml").chmod(0o600)
    return secrets
