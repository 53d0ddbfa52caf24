"""Who takes part in the bench, and with which settings. Pure: values only; patroni.py, repmgr.py and quorate.py turn them into files.

Consul by default removes a dead server from itself after some 10 s, deregisters its host and drops all sessions of that host
(autopilot's cleanup_dead_servers). With Consul's server on the primary's host, as here, that cuts Patroni's lease short: it takes over
sooner, and in a cut before the old primary has stepped down. So that each program's own lease is measured, all rows but one have it off.

"Fastest allowed" is what the program's own validation lets through, not what anybody should run.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Product(enum.Enum):
    """A program under test."""

    QUORATE = "quorate"
    PATRONI = "Patroni"
    REPMGR = "repmgrd"


@dataclass(frozen=True)
class PatroniSettings:
    """Patroni's dynamic settings, in seconds; `session_checks` are Consul's health checks that its session is bound to."""

    ttl_s: int = 30
    loop_wait_s: int = 10
    retry_timeout_s: int = 10
    primary_start_timeout_s: int = 300
    session_checks: tuple[str, ...] = ()

    @property
    def period_s(self) -> float:
        return float(self.loop_wait_s)


@dataclass(frozen=True)
class RepmgrSettings:
    """repmgrd's settings, in seconds."""

    monitor_interval_s: int = 2
    reconnect_attempts: int = 6
    reconnect_interval_s: int = 10

    @property
    def period_s(self) -> float:
        return float(self.monitor_interval_s)


@dataclass(frozen=True)
class QuorateSettings:
    """quorate's lease, as durations of its configuration, and its durability."""

    ttl: str = "2s"
    renew: str = "400ms"
    fence_budget: str = "300ms"
    durability: str = "async"

    @property
    def period_s(self) -> float:
        return 1.0


Settings = PatroniSettings | RepmgrSettings | QuorateSettings


@dataclass(frozen=True)
class Contender:
    """A row of the table. `name`: its word on the command line; the fault's moment is spread over its settings' `period_s`."""

    name: str
    product: Product
    label: str
    settings: Settings
    consul_cleans_up: bool = False

    @property
    def uses_consul(self) -> bool:
        return self.product is not Product.REPMGR


_ALL = (
    Contender("quorate", Product.QUORATE, "quorate, lease 2 s, renew 400 ms, async", QuorateSettings()),
    Contender("quorate-sync", Product.QUORATE, "quorate, lease 2 s, renew 400 ms, sync", QuorateSettings(durability="sync")),
    Contender("patroni-defaults", Product.PATRONI, "Patroni + Consul, defaults", PatroniSettings()),
    Contender(
        "patroni-all-defaults",
        Product.PATRONI,
        "Patroni, defaults, and Consul's cleanup_dead_servers at its default (on)",
        PatroniSettings(),
        consul_cleans_up=True,
    ),
    Contender(
        "patroni-fastest",
        Product.PATRONI,
        "Patroni, fastest allowed (ttl 20, loop 1, retry 3, primary_start_timeout 0)",
        PatroniSettings(20, 1, 3, 0),
    ),
    Contender(
        "patroni-fastest-serf",
        Product.PATRONI,
        "Patroni, fastest + serfHealth",
        PatroniSettings(20, 1, 3, 0, session_checks=("serfHealth",)),
    ),
    Contender("repmgrd-defaults", Product.REPMGR, "repmgrd, defaults", RepmgrSettings()),
    Contender("repmgrd-fast", Product.REPMGR, "repmgrd, fast (monitor 1, attempts 1, interval 1)", RepmgrSettings(1, 1, 1)),
)
CONTENDERS: Mapping[str, Contender] = {contender.name: contender for contender in _ALL}
