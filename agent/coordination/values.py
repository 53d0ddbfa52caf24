"""What nodes store under a group's keys beside the lease: heartbeats with facts, votes, words. Encoding and reading them back.

A value that cannot be read is as if it were not there: it is never a reason to act.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar, cast

from agent.codec import CodecError, dumps, loads
from agent.coordination.lease import Position
from agent.decision.view import Branch, ServiceState

KEPT = 128
"""How many values are kept as they were read. All are frozen, so they may be shared."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RouteValue:
    """One thing that follows the leader, as it is on the node that says so: whether it points there, and who else answers for it."""

    name: str
    present: bool | None
    rival: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class MemberValue:
    """A node's heartbeat: `beat` grows with every write. The facts are the node's own about its own service."""

    beat: int
    incarnation: str
    state: ServiceState
    position: Position | None = None
    history: tuple[Branch, ...] = ()
    stopped_for_epoch: int | None = None
    upstream: str | None = None
    receiving: bool = False
    system_identifier: str | None = None
    problem: str = ""
    paused_epoch: int | None = None
    standing: tuple[str, ...] = ()
    """Fences that stand there."""
    routes: tuple[RouteValue, ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class VoteValue:
    """What a voter says of the leader's service in one epoch."""

    epoch: int
    down: bool
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class WordValue:
    """A member's word before the first lease: its service is not writable and stays so without one."""

    incarnation: str
    position: Position | None
    system_identifier: str | None
    history: tuple[Branch, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckValue:
    """One check of the catalogue as its node sees it."""

    name: str
    status: str
    sentence: str


@dataclass(frozen=True, slots=True)
class ObservationsValue:
    """What one node's checks say, for the others to show."""

    checks: tuple[CheckValue, ...]


def encode(value: object) -> bytes:
    """A stored value as JSON."""
    return dumps(value)


def decode(kind: type[T], value: bytes) -> T | None:
    """The stored value, or None when it is not one of this kind."""
    return cast("T | None", _decoded(cast("Hashable", kind), value))


@lru_cache(KEPT)
def _decoded(kind: type[object], value: bytes) -> object | None:
    """Of a folder that is read anew with each change, all but one value was read before."""
    try:
        return loads(kind, value)
    except CodecError:
        return None
