"""What a Redis says of itself, typed: one answer to INFO, so that the facts belong to one moment. Redis 5 and later. Pure.

Offsets are bytes of the replication stream, comparable only under one replication id. Lag is known by the master alone, from what its
replicas acknowledge once a second; a replica knows only when its master spoke last, and what it has read but not yet applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from checks.base import Facts

ONLINE = "online"
_ROLES = {"master": "master", "slave": "replica"}


class Role(StrEnum):
    """What the server should be, and is."""

    ANY = "any"
    MASTER = "master"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """A replica's link to its master."""

    host: str
    port: int
    is_up: bool
    down_s: float | None
    """How long it has been down; None: it is up, or it never was."""
    is_syncing: bool
    """It is taking a whole copy."""
    silent_s: float | None
    """Since the master spoke last; None: the link is down."""
    unapplied_bytes: int
    """Read from the link, not yet applied."""


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """A replica as its master sees it."""

    address: str
    state: str
    offset_bytes: int
    lag_bytes: int
    silent_s: float
    """Since it acknowledged last."""

    @property
    def is_online(self) -> bool:
        return self.state == ONLINE


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """How full it is. `limit_bytes` 0: no limit."""

    used_bytes: int
    limit_bytes: int
    policy: str

    @property
    def evicts(self) -> bool:
        """Whether any key may be thrown out at the limit: then a full server is an ordinary cache."""
        return self.policy.startswith("allkeys-")


@dataclass(frozen=True, slots=True)
class RedisFacts(Facts):
    """One moment of one server."""

    version: str
    role: Role
    replication_id: str
    offset_bytes: int
    is_loading: bool
    loading_left_s: float | None
    link: LinkFacts | None
    replicas: tuple[ReplicaFacts, ...]
    memory: MemoryFacts
    failed_saves: tuple[str, ...]
    """Which of its ways to disk failed last time: snapshot, append-only file, its rewrite."""


def parse_info(text: str) -> RedisFacts:
    """The facts of an answer to INFO. ValueError or KeyError when it is none."""
    info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
    role = Role(_ROLES[info["role"]])
    offset_bytes = int(info["slave_repl_offset"] if role is Role.REPLICA else info["master_repl_offset"])
    return RedisFacts(
        version=info.get("redis_version", ""),
        role=role,
        replication_id=info.get("master_replid", ""),
        offset_bytes=offset_bytes,
        is_loading=info.get("loading", "0") != "0",
        loading_left_s=_seconds(info.get("loading_eta_seconds")),
        link=_link(info) if role is Role.REPLICA else None,
        replicas=tuple(_replica(info[f"slave{n}"], offset_bytes) for n in range(int(info["connected_slaves"])) if f"slave{n}" in info),
        memory=MemoryFacts(int(info["used_memory"]), int(info.get("maxmemory", 0)), info.get("maxmemory_policy", "")),
        failed_saves=tuple(_failed_saves(info)),
    )


def _link(info: Mapping[str, str]) -> LinkFacts:
    is_up = info["master_link_status"] == "up"
    applied = int(info["slave_repl_offset"])
    return LinkFacts(
        host=info["master_host"],
        port=int(info["master_port"]),
        is_up=is_up,
        down_s=None if is_up else _seconds(info.get("master_link_down_since_seconds")),
        is_syncing=info["master_sync_in_progress"] != "0",
        silent_s=_seconds(info.get("master_last_io_seconds_ago")) if is_up else None,
        unapplied_bytes=max(0, int(info.get("slave_read_repl_offset", applied)) - applied),
    )


def _replica(text: str, offset_bytes: int) -> ReplicaFacts:
    """`ip=…,port=…,state=online,offset=…,lag=0`."""
    said = dict(part.split("=", 1) for part in text.split(","))
    host = f"[{said['ip']}]" if ":" in said["ip"] else said["ip"]
    acknowledged = int(said["offset"])
    return ReplicaFacts(f"{host}:{said['port']}", said["state"], acknowledged, max(0, offset_bytes - acknowledged), float(said["lag"]))


def _failed_saves(info: Mapping[str, str]) -> list[str]:
    ways = {
        "rdb_last_bgsave_status": "its snapshot",
        "aof_last_write_status": "its append-only file",
        "aof_last_bgrewrite_status": "the rewrite of its append-only file",
    }
    return [way for key, way in ways.items() if info.get(key, "ok") != "ok"]


def _seconds(text: str | None) -> float | None:
    """Redis says -1 for never."""
    return None if text is None or float(text) < 0 else float(text)
