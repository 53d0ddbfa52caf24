"""Which driver runs a contender, and on which stage. Programs are looked up here, so that the drivers themselves know no paths."""

from __future__ import annotations

from tests.bench.contenders import Contender, PatroniSettings, QuorateSettings
from tests.bench.driver import Driver
from tests.bench.faults import Fault
from tests.bench.parts import POSTGRES_BIN, find_patroni
from tests.bench.patroni import Patroni
from tests.bench.quorate import Quorate
from tests.bench.repmgr import Repmgr
from tests.bench.scene import LEADER, Scene
from tests.install import needs
from tests.lab.network import LabFailed

OTHER = "h2"
"""Leads Consul when the primary's host does not."""


def driver_of(contender: Contender, fault: Fault) -> Driver:
    """Its stage stands, its Consul runs; LabFailed when a program is gone."""
    consul_leader = LEADER if fault is Fault.HOST_DEAD_CONSUL_LEADER else OTHER
    settings = contender.settings
    if isinstance(settings, QuorateSettings):
        return Quorate(settings, consul_leader, consul_cleans_up=contender.consul_cleans_up)
    scene = Scene(POSTGRES_BIN)
    if not isinstance(settings, PatroniSettings):
        return Repmgr(scene, settings)
    try:
        patroni, consul = find_patroni(), needs.find("Consul")
        if patroni is None or consul is None:
            raise LabFailed("Patroni or Consul is not there")
        scene.start_consul(consul, consul_leader, cleans_up=contender.consul_cleans_up)
    except BaseException:
        scene.close()
        raise
    return Patroni(scene, settings, patroni)
