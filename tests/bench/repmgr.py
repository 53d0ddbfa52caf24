"""repmgrd on a scene: its files, its start, and how one knows that it is well.

As its documentation sets it up for automatic failover. Postgres is started by pg_ctl and by nobody again (Debian's
unit does not restart it either). It uses no Consul, no lease and no fence of its own.
"""

from __future__ import annotations

from pathlib import Path

from tests.bench.contenders import RepmgrSettings
from tests.bench.driver import START_WITHIN_S, Peer
from tests.bench.scene import HBA, LEADER, MEMBERS, POSTGRES_SETTINGS, Scene, as_postgres
from tests.lab.network import Host, LabFailed
from tests.polling import eventually

CONNECT_TIMEOUT_S = 2
"""As the documentation's own examples say."""
WATCHES = "starting monitoring of node"
WATCHES_UPSTREAM = "monitoring upstream node"


def configuration(host: Host, settings: RepmgrSettings, data_dir: Path, bin_dir: Path) -> str:
    """What repmgr and repmgrd read on this host."""
    file = data_dir.parent / "repmgr.conf"
    values = {
        "node_id": str(MEMBERS[host.name]),
        "node_name": host.name,
        "conninfo": f"host={host.address} user=repmgr dbname=repmgr connect_timeout={CONNECT_TIMEOUT_S}",
        "data_directory": str(data_dir),
        "pg_bindir": str(bin_dir),
        "failover": "automatic",
        "promote_command": f"{bin_dir / 'repmgr'} standby promote -f {file} --log-to-file",
        "follow_command": f"{bin_dir / 'repmgr'} standby follow -f {file} --log-to-file --upstream-node-id=%n",
        "monitor_interval_secs": str(settings.monitor_interval_s),
        "reconnect_attempts": str(settings.reconnect_attempts),
        "reconnect_interval": str(settings.reconnect_interval_s),
        "log_file": str(data_dir.parent / "repmgrd.log"),
    }
    return "".join(f"{name}='{value}'\n" for name, value in values.items())


class Repmgr(Peer):
    """Three Postgres, three repmgrd."""

    agent_units = ("repmgrd",)

    def __init__(self, scene: Scene, settings: RepmgrSettings) -> None:
        super().__init__(scene)
        self._settings = settings

    def start_service(self) -> None:
        """Primary, clones, registration, daemons, in the documentation's order."""
        for host in self.scene.hosts.values():
            self._folder(host).mkdir()
            text = configuration(host, self._settings, self._folder(host) / "data", self.scene.bin_dir)
            (self._folder(host) / "repmgr.conf").write_text(text, encoding="utf-8")
        self._start_primary(self.scene.hosts[LEADER])
        standbys = [host for name, host in self.scene.hosts.items() if name != LEADER]
        for host in standbys:
            self._repmgr(
                host, "-h", self.scene.hosts[LEADER].address, "-U", "repmgr", "-d", "repmgr", "standby", "clone", "--fast-checkpoint"
            )
            self._start_postgres(host)
            self._repmgr(host, "standby", "register")
        self.wait_streaming()
        for host in self.scene.hosts.values():
            program = str(self.scene.bin_dir / "repmgrd")
            command = [*as_postgres(), program, "-f", str(self._folder(host) / "repmgr.conf"), "--daemonize=false", "--no-pid-file"]
            host.keep("repmgrd", command, self._folder(host) / "repmgrd.out")
        eventually(lambda: all(self._watches(host) for host in standbys), START_WITHIN_S, "both standbys' repmgrd watch the primary")

    def _folder(self, host: Host) -> Path:
        return self.scene.folder / host.name

    def _start_primary(self, host: Host) -> None:
        data_dir = self._folder(host) / "data"
        self._run(host, str(self.scene.bin_dir / "initdb"), "-U", "postgres", "-A", "trust", "-k", "-E", "UTF8", "-D", str(data_dir))
        settings = {**POSTGRES_SETTINGS, "shared_preload_libraries": "repmgr"}
        with (data_dir / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        (data_dir / "pg_hba.conf").write_text("".join(f"{line}\n" for line in HBA), encoding="ascii")
        self._start_postgres(host)
        self.make_tables()
        for statement in ("CREATE ROLE repmgr LOGIN SUPERUSER", "CREATE DATABASE repmgr OWNER repmgr"):
            if self.scene.psql(host.name, statement) is None:
                raise LabFailed(f"{host.name} refused: {statement}")
        self._repmgr(host, "primary", "register")

    def _start_postgres(self, host: Host) -> None:
        data_dir = self._folder(host) / "data"
        self._run(host, str(self.scene.bin_dir / "pg_ctl"), "-D", str(data_dir), "-l", str(data_dir.parent / "postgres.log"), "-w", "start")

    def _repmgr(self, host: Host, *words: str) -> None:
        self._run(host, str(self.scene.bin_dir / "repmgr"), "-f", str(self._folder(host) / "repmgr.conf"), *words)

    def _run(self, host: Host, *command: str) -> None:
        log = self._folder(host) / "start.log"
        with log.open("ab") as file:
            exit_code = host.popen([*as_postgres(), *command], stdout=file, stderr=file).wait(START_WITHIN_S)
        if exit_code != 0:
            raise LabFailed(f"{host.name}: {' '.join(command[:1] + command[-2:])}: {log.read_text(encoding='utf-8')[-500:]}")

    def _watches(self, host: Host) -> bool:
        log = self._folder(host) / "repmgrd.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        return WATCHES in text or WATCHES_UPSTREAM in text
