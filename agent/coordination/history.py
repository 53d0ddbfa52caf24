"""How each epoch of a group began and ended: for people, for the page and for `quorate history`. No rule ever reads it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum

from agent.codec import CodecError, dumps, loads
from agent.coordination.coordinator import Coordinator, Operation, Verb
from agent.coordination.lease import history_key
from agent.errors import CoordinationError

KEPT = 1000
"""Entries of one group that are kept: the latest."""
CLEARED_AT_ONCE = 60
HIGHEST_EPOCH_DIGITS = 10


class HistoryReason(StrEnum):
    """Why an epoch began. Also a label of metrics: keep it short and bounded."""

    FORMED = "formed"
    CRASHED = "crashed"
    """The predecessor's service crashed and its agent gave up."""
    EXPIRED = "expired"
    """The predecessor fell silent and a quorum saw its service down."""
    SWITCHOVER = "switchover"
    FAILOVER = "failover"
    """An operator asked for it."""
    RESUMED = "resumed"
    """The same holder, fenced meanwhile, took the next epoch of its own."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One epoch's beginning. Times are seconds since 1970 by the writer's clock; `duration_s`: how long nobody led."""

    epoch: int
    leader: str
    previous_leader: str | None
    reason: HistoryReason
    started_wall_s: float
    ended_wall_s: float
    duration_s: float
    timeline: int | None
    lost_bytes: int | None
    """None: not known."""
    sentence: str


def encode_history(entry: HistoryEntry) -> bytes:
    """The entry as JSON."""
    return dumps(entry)


def decode_history(value: bytes) -> HistoryEntry | None:
    """The entry in a stored value; None when it is none."""
    try:
        return loads(HistoryEntry, value)
    except CodecError:
        return None


async def append(coordinator: Coordinator, group: str, entry: HistoryEntry, timeout_s: float = 5.0) -> None:
    """Write the entry of its epoch, over an older one of that epoch, and clear the oldest beyond the last 1000. May be done twice."""
    write = Operation(Verb.SET, history_key(group, entry.epoch), value=encode_history(entry))
    await coordinator.transact((write,), timeout_s)
    with contextlib.suppress(CoordinationError):  # the entry is stored; the next one clears
        snapshot = await coordinator.read(_folder(group), timeout_s)
        surplus = sorted(snapshot.entries)[:-KEPT][:CLEARED_AT_ONCE]
        if surplus:
            await coordinator.transact(
                tuple(Operation(Verb.DELETE_CAS, key, index=snapshot.entries[key].index) for key in surplus), timeout_s
            )


async def read_history(coordinator: Coordinator, group: str, timeout_s: float = 5.0) -> tuple[HistoryEntry, ...]:
    """All entries that can be read, oldest first."""
    snapshot = await coordinator.read(_folder(group), timeout_s)
    entries = (decode_history(stored.value) for stored in snapshot.entries.values())
    return tuple(sorted((entry for entry in entries if entry is not None), key=lambda entry: entry.epoch))


def _folder(group: str) -> str:
    return history_key(group, 0)[:-HIGHEST_EPOCH_DIGITS]
