"""A whole lab: hosts, Consul, the group, client and observer; made from a scenario, whole before the first step, gone at the end.

    with Lab(scenario, say) as lab:
        lab.start()                 # until one primary takes writes and every other member streams
        lab.hosts["h1"].kill_service()

What is wrong with the lab itself is LabFailed with the ends of the logs; what is wrong with quorate is for the measures to find, except
before the first step: a group that does not come up at all is LabFailed, too.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from agent.configuration.loader import load
from agent.demo.throwaway_postgres import OS_USER, find_bin_dir
from agent.errors import ConfigurationError
from tests.install import needs
from tests.lab.client import Plan
from tests.lab.group_file import CONSUL_PORT, Tree, configuration
from tests.lab.host import PORT, LabHost, write_secrets
from tests.lab.network import LabFailed, Network, why_impossible
from tests.lab.scenario import CLIENT, BadScenario, Role, Scenario, Selector, names_of
from tests.lab.servers.consul.consul import ServerPlan
from tests.lab.watching import Client, Observer, Said
from tests.lab.wire import now_ns

FIRST_NUMBER = 11
CLIENT_NUMBER = 200
OBSERVER_NUMBER = 250
POLL_S = 0.1
WHOLE_S = float(os.environ.get("LAB_WHOLE_S", "45"))
LEADER_S = 20.0
FIRST_ROWS = 10

Say = Callable[[str], None]


def what_is_missing() -> tuple[str, str] | None:
    """Why no lab can run here, and what to do about it; None: it can."""
    if why := why_impossible():
        return why, "run as root on Linux with iproute2 and nftables"
    for name in ("Postgres 15", "Consul"):
        part = needs.PARTS[name]
        if part.find() is None and not (name == "Postgres 15" and find_bin_dir() is not None):
            return part.left_out, part.how
    return None


class Lab:
    """Everything of one scenario."""

    def __init__(self, scenario: Scenario, say: Say) -> None:
        if (missing := what_is_missing()) is not None:
            raise LabFailed("; ".join(missing))
        self.scenario = scenario
        self.say = say
        self.said: list[Said] = []
        self.suspect: tuple[str, int] | None = None
        """Who led when the last fault began after which it may have to be fenced, and when that was."""
        self._began_s = time.monotonic()
        self.network = Network(self._heard)
        self.folder = self.network.folder
        self.hosts: dict[str, LabHost] = {}
        self.client: Client
        self.observer: Observer

    # ------------------------------------------------------------------ coming up

    def start(self) -> None:
        """Make everything and wait until the group is whole and the first rows are acknowledged."""
        self.progress("hosts")
        self._make_hosts()
        for host in self.hosts.values():
            host.start_consul()
        self.progress("data directories")
        for host in self.hosts.values():
            host.prepare()
        self._write_configuration()
        self.observer.start()
        for host in self.hosts.values():
            host.start_quorate()
        self.progress("Consul")
        self._wait(
            lambda: self.observer.consul_takes_writes[-1:] and self.observer.consul_takes_writes[-1][1], LEADER_S, "Consul takes writes"
        )
        if self.scenario.start.consul_leader is not None:
            self._make_consul_leader(self.scenario.start.consul_leader)
        self.progress("the group")
        self._wait(self._is_ready, WHOLE_S, "the group is whole", pause_s=0.2)
        self.client.start()
        self._wait(lambda: len(self.client.ledger()) >= FIRST_ROWS, LEADER_S, "the first rows are acknowledged")
        self.progress(f"whole, led by {self.leader()}")

    def _make_hosts(self) -> None:
        names = list(self.scenario.hosts)
        addresses = {name: f"192.0.2.{FIRST_NUMBER + place}" for place, name in enumerate(names)}
        binary, bin_dir = needs.find("Consul"), find_bin_dir()
        assert binary is not None
        assert bin_dir is not None
        for place, name in enumerate(names):
            host = self.network.add(name, FIRST_NUMBER + place)
            plan = ServerPlan(name, self.folder / name / "consul", binary, host.address, tuple(addresses.values()), len(names))
            file = self.folder / name / "quorate.yaml"
            self.hosts[name] = LabHost(host, self.folder / name, plan, file, bin_dir, self.scenario.hosts[name].witness)
            self.hosts[name].folder.mkdir(mode=0o755)
        eye = self.network.add("observer", OBSERVER_NUMBER)
        self.observer = Observer(eye, self.folder / "observer", addresses)
        self.client = Client(self.network.add(CLIENT, CLIENT_NUMBER), self._plan())

    def _plan(self) -> Plan:
        some = next(iter(self.hosts.values()))
        vip = str(self.scenario.group.get("vip", "")).split("/")[0]
        members = [self.hosts[name] for name in self.scenario.members]
        targets = [some.conninfo(vip)] if self.scenario.through == "vip" else [host.conninfo() for host in members]
        samples = {host.name: host.conninfo(options="-c synchronous_commit=local") for host in members}
        return Plan(str(self.folder / CLIENT), targets, samples, self.scenario.workload.every)

    def _write_configuration(self) -> None:
        secrets = write_secrets(self.folder)
        addresses = {name: host.address for name, host in self.hosts.items()}
        postgres: Tree = {"port": PORT, **({"os_user": OS_USER} if OS_USER else {})}
        members: dict[str, Tree] = {}
        for name in self.scenario.members:
            server = self.hosts[name].server
            assert server is not None
            members[name] = {"config_file": str(server.config_file), "socket_dir": str(server.socket_dir), "data_dir": str(server.data_dir)}
            postgres |= {"bin_dir": str(server.bin_dir), "data_dir": str(server.data_dir), "socket_dir": str(server.socket_dir)}
        for name, host in self.hosts.items():
            places = {"state": host.state_dir, "secrets": secrets}
            tree = configuration(self.scenario, addresses, name, places, postgres, members)
            host.config_file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        self._check_configuration(next(iter(self.hosts.values())).config_file)

    @staticmethod
    def _check_configuration(file: Path) -> None:
        """What is wrong with the group is a mistake of the scenario file; quorate says it in its own words."""
        try:
            load(file, {})
        except ConfigurationError as error:
            raise BadScenario(tuple(f"group: {line.removeprefix(f'{file}:')}" for line in str(error).splitlines())) from None

    def _make_consul_leader(self, name: str) -> None:
        def is_led() -> bool:
            if self.observer.consul_leader == name:
                return True
            if self.observer.consul_leader is not None:
                url = f"http://{self.hosts[self.observer.consul_leader].address}:{CONSUL_PORT}/v1/operator/raft"
                with suppress(ValueError, KeyError, StopIteration):
                    servers = json.loads(self.observer.ask(f"{url}/configuration")[1])["Servers"]
                    identity = next(server["ID"] for server in servers if server["Node"] == name)
                    self.observer.ask(f"{url}/transfer-leader?id={identity}", "POST", timeout_s=5.0)
            return False

        self._wait(is_led, LEADER_S, f"{name} leads Consul", pause_s=0.3)

    def _is_ready(self) -> bool:
        holder = self.observer.holder
        if holder is None or holder.state != "held" or not self.all_streaming():
            return False
        waits_for_somebody = self.scenario.group.get("durability") == "sync" and len(self.scenario.members) > 1
        return bool(self.observer.sync_set) or not waits_for_somebody

    def _wait(self, condition: Callable[[], object], within_s: float, what: str, pause_s: float = POLL_S) -> None:
        deadline_s = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise LabFailed(f"not within {within_s:g} s: {what}\n{self.last_words()}")
            time.sleep(pause_s)

    # ------------------------------------------------------------------ what is the case

    def leader(self) -> str:
        """Who holds the lease, or held it last."""
        holder = self.observer.holder
        if holder is None:
            raise LabFailed("nobody leads yet")
        return holder.name

    def primary(self) -> LabHost | None:
        """The one member that is not in recovery; None: none, or several."""
        found = [host for host in self.members() if host.psql("SELECT pg_is_in_recovery()") == "f"]
        return found[0] if len(found) == 1 else None

    def members(self) -> list[LabHost]:
        return [self.hosts[name] for name in self.scenario.members]

    def all_streaming(self) -> bool:
        """Whether there is one primary and every other member streams from it."""
        primary = self.primary()
        if primary is None:
            return False
        streaming = primary.psql("SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'")
        return set((streaming or "").split()) == set(self.scenario.members) - {primary.name}

    def select(self, selector: Selector | None) -> list[str]:
        """Names of hosts, the client's included, as they are now; each once, in the order given."""
        found: dict[str, None] = {}
        for word in names_of(selector):
            found |= dict.fromkeys(self._named(word))
        return list(found)

    def _named(self, word: str) -> Iterable[str]:
        if word == Role.LEADER:
            return (self.leader(),)
        if word == Role.STANDBY:
            return [host.name for host in self.members() if host.is_up and host.name != self.leader()]
        if word == Role.WITNESS:
            return self.scenario.witnesses
        if word == Role.CONSUL_LEADER:
            if self.observer.consul_leader is None:
                raise LabFailed("nobody leads Consul")
            return (self.observer.consul_leader,)
        if word == Role.ALL:
            return (*self.hosts, CLIENT)
        return (word,)

    # ------------------------------------------------------------------ telling

    def progress(self, sentence: str) -> None:
        """A line for whoever waits."""
        self.say(f"{time.monotonic() - self._began_s:6.1f} s  {sentence}")

    def note(self, what: str) -> None:
        """A line of the timeline."""
        self.said.append(Said(now_ns(), what))

    def _heard(self, host: str, message: dict[str, Any]) -> None:
        if message.get("ended") or message.get("started"):
            unit, what = (message["ended"], "ended") if "ended" in message else (message["started"], "started")
            self.said.append(Said(int(message["at_ns"]), f"{host}: {unit} {what}"))

    def last_words(self) -> str:
        """The ends of all logs."""
        holder = self.observer.holder
        lease = "no lease yet" if holder is None else f"lease: epoch {holder.epoch}, {holder.state} by {holder.name}"
        return "\n".join([lease, *(host.last_words(15) for host in self.hosts.values())])

    # ------------------------------------------------------------------ the end

    def save_logs(self, target: Path) -> None:
        """Copy every log, note and configuration to a folder that outlives the lab."""
        for pattern in ("*/*.log", "*/pg/*.log", "*/quorate.yaml", "client/*", "observer/*", "*/local/samples", "*/state/*/records/*"):
            for file in self.folder.glob(pattern):
                place = target / file.relative_to(self.folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)

    def close(self) -> None:
        """End and remove everything."""
        with suppress(AttributeError):  # what was never made
            self.client.close()
            self.observer.close()
        self.network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def without(timeline: Iterable[Said], at_ns: int) -> list[Said]:
    """What happened from `at_ns` on, in order."""
    return sorted((replace(said) for said in timeline if said.at_ns >= at_ns), key=lambda said: said.at_ns)
