"""quorate on the bench: the lab as its own tests use it, with the same faults, the same client and the same Consul as the peers have.

The lab is made from a scenario without steps; the bench does the faults itself, so that their moment and their end are decided by one rule
for all. Without a VIP: the writer goes through the members' own addresses, as for the peers.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.bench.contenders import QuorateSettings
from tests.bench.driver import Driver
from tests.bench.faults import Fault
from tests.bench.scene import LEADER
from tests.lab.lab import Lab
from tests.lab.scenario import CLIENT, Scenario, Start


class BenchLab(Lab):
    """A lab whose Consul is the bench's."""

    consul_cleans_up = False

    def _make_hosts(self) -> None:
        super()._make_hosts()
        for host in self.hosts.values():
            host.consul = dataclasses.replace(host.consul, quick_gossip=False, cleans_up=self.consul_cleans_up)


class Quorate(Driver):
    """Three agents."""

    def __init__(self, settings: QuorateSettings, consul_leader: str, *, consul_cleans_up: bool) -> None:
        group = {
            "durability": settings.durability,
            "lease": {"ttl": settings.ttl, "renew": settings.renew, "fence_budget": settings.fence_budget},
        }
        scenario = Scenario(start=Start(leader=LEADER, consul_leader=consul_leader), group=group)
        self.lab = BenchLab(scenario, lambda _line: None)
        self.lab.consul_cleans_up = consul_cleans_up

    def start(self) -> None:
        self.lab.start()

    @property
    def client_folder(self) -> Path:
        return self.lab.client.folder

    def psql(self, name: str, sql: str) -> str | None:
        return self.lab.hosts[name].psql(sql)

    def do(self, fault: Fault) -> None:
        host = self.lab.hosts[LEADER]
        others = [name for name in self.lab.hosts if name != LEADER]
        if fault is Fault.SERVICE_KILLED:
            host.kill_service()
        elif fault in {Fault.HOST_DEAD, Fault.HOST_DEAD_CONSUL_LEADER}:
            host.crash()
        elif fault is Fault.CUT_OFF:
            self.lab.network.partition([LEADER], [*others, CLIENT])
        elif fault is Fault.CUT_FROM_MEMBERS:
            self.lab.network.partition([LEADER], others)
        else:
            host.kill_unit("agent", stay_dead=True)

    def close(self) -> None:
        self.lab.close()
