"""Patroni on a scene: its files, its start, and how one knows that it is well.

Plain Patroni as its documentation sets it up: one per host, talking to the Consul server of its own host, slots on, no watchdog device
(this machine has none, and Patroni runs without by default).
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench.contenders import PatroniSettings
from tests.bench.driver import START_WITHIN_S, Peer
from tests.bench.scene import HBA, LEADER, PORT, POSTGRES_SETTINGS, Scene, as_postgres
from tests.lab.network import Host
from tests.polling import eventually

API_PORT = 8008
WELL = {"running", "streaming"}


def configuration(host: Host, settings: PatroniSettings, data_dir: Path, bin_dir: Path) -> dict[str, object]:
    """What Patroni reads on this host; the dynamic part counts on the one that bootstraps."""
    parameters = {name: value for name, value in POSTGRES_SETTINGS.items() if name != "listen_addresses"}
    dynamic = {
        "ttl": settings.ttl_s,
        "loop_wait": settings.loop_wait_s,
        "retry_timeout": settings.retry_timeout_s,
        "primary_start_timeout": settings.primary_start_timeout_s,
        "postgresql": {"parameters": parameters, "use_pg_rewind": True},
    }
    return {
        "scope": "main",
        "name": host.name,
        "restapi": {"listen": f"{host.address}:{API_PORT}", "connect_address": f"{host.address}:{API_PORT}"},
        "consul": {"host": f"{host.address}:8500", "checks": list(settings.session_checks)},
        "bootstrap": {"dcs": dynamic, "initdb": [{"encoding": "UTF8"}, "data-checksums"]},
        "postgresql": {
            "listen": f"{host.address}:{PORT}",
            "connect_address": f"{host.address}:{PORT}",
            "data_dir": str(data_dir),
            "bin_dir": str(bin_dir),
            "pgpass": str(data_dir.parent / "pgpass"),
            "authentication": {
                "superuser": {"username": "postgres", "password": "postgres-pw"},
                "replication": {"username": "replicator", "password": "replicator-pw"},
            },
            "pg_hba": list(HBA),
        },
    }


class Patroni(Peer):
    """Three of them."""

    agent_units = ("patroni",)

    def __init__(self, scene: Scene, settings: PatroniSettings, program: Path) -> None:
        super().__init__(scene)
        self._settings = settings
        self._program = program

    def start_service(self) -> None:
        """The first alone, so that it is the one that bootstraps and leads."""
        self._start(self.scene.hosts[LEADER])
        eventually(lambda: self.scene.psql(LEADER, "SELECT pg_is_in_recovery()") == "f", START_WITHIN_S, "Patroni's first primary")
        self.make_tables()
        for name, host in self.scene.hosts.items():
            if name != LEADER:
                self._start(host)
        self.wait_streaming()
        eventually(self._says_well, START_WITHIN_S, "Patroni calls all three well")

    def _start(self, host: Host) -> None:
        folder = self.scene.folder / host.name
        folder.mkdir()
        file = folder / "patroni.yml"
        file.write_text(json.dumps(configuration(host, self._settings, folder / "data", self.scene.bin_dir)), encoding="utf-8")
        host.keep("patroni", [*as_postgres(), str(self._program), str(file)], folder / "patroni.log")

    def _says_well(self) -> bool:
        host = self.scene.hosts[LEADER]
        done = host.run(["curl", "-sf", "--max-time", "2", f"http://{host.address}:{API_PORT}/cluster"])
        if done.returncode != 0:
            return False
        members = json.loads(done.stdout)["members"]
        leads = any(member["name"] == LEADER and member["role"] == "leader" for member in members)
        return leads and len(members) == len(self.scene.hosts) and all(member["state"] in WELL for member in members)
