"""What a Traefik says of itself over its API, typed: how many routers and services it has, and which of their servers are up. Pure.

A server is UP for Traefik until an active health check of its own says otherwise: of a service without one, UP proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import Field
from pydantic.dataclasses import dataclass as parsed

from checks.base import Facts

UP = "UP"


class State(StrEnum):
    """What Traefik made of a router or a service."""

    ENABLED = "enabled"
    WARNING = "warning"
    DISABLED = "disabled"


@parsed(frozen=True)
class Count:
    """Of routers, services or middlewares."""

    total: int = 0
    warnings: int = 0
    errors: int = 0


@parsed(frozen=True)
class Section:
    """Of one protocol."""

    routers: Count = field(default_factory=Count)
    services: Count = field(default_factory=Count)
    middlewares: Count = field(default_factory=Count)

    @property
    def errors(self) -> int:
        return self.routers.errors + self.services.errors + self.middlewares.errors

    @property
    def warnings(self) -> int:
        return self.routers.warnings + self.services.warnings + self.middlewares.warnings


@parsed(frozen=True)
class Overview:
    """`/api/overview`."""

    http: Section
    tcp: Section = field(default_factory=Section)
    udp: Section = field(default_factory=Section)

    @property
    def errors(self) -> int:
        return self.http.errors + self.tcp.errors + self.udp.errors

    @property
    def warnings(self) -> int:
        return self.http.warnings + self.tcp.warnings + self.udp.warnings


@parsed(frozen=True)
class Named:
    """An entry of `/api/entrypoints`."""

    name: str


@parsed(frozen=True)
class Router:
    """An entry of `/api/http/routers` or `/api/tcp/routers`."""

    name: str
    status: State
    error: tuple[str, ...] = ()


@parsed(frozen=True)
class LoadBalancer:
    """Its part of a service; only whether there is a health check is read."""

    servers: tuple[object, ...] = ()
    health_check: object = Field(default=None, alias="healthCheck")


@parsed(frozen=True)
class Service:
    """An entry of `/api/http/services` or `/api/tcp/services`."""

    name: str
    status: State
    error: tuple[str, ...] = ()
    server_status: dict[str, str] | None = Field(default=None, alias="serverStatus")
    load_balancer: LoadBalancer | None = Field(default=None, alias="loadBalancer")

    @property
    def servers(self) -> int | None:
        """How many servers it has; None: it passes on to other services, or is Traefik's own."""
        return None if self.load_balancer is None else max(len(self.load_balancer.servers), len(self.server_status or {}))

    @property
    def down(self) -> tuple[str, ...]:
        """The servers that Traefik sends nothing to."""
        return tuple(sorted(address for address, status in (self.server_status or {}).items() if status != UP))

    @property
    def is_checked(self) -> bool:
        """Whether UP was found out, not assumed."""
        return self.load_balancer is not None and self.load_balancer.health_check is not None


@dataclass(frozen=True, slots=True)
class TraefikFacts(Facts):
    """One reading. What was not asked for is empty."""

    overview: Overview
    routers: tuple[Router, ...] = ()
    services: tuple[Service, ...] = ()


def found(entries: Iterable[Router] | Iterable[Service], name: str) -> tuple[Router | Service, ...]:
    """The entries called `name`; a name without `@provider` is that of any provider."""
    return tuple(entry for entry in entries if entry.name == name or entry.name.partition("@")[0] == name)
