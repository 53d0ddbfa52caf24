"""Operators' intents as stored values: who wants what of a group, and why; and how it ended, for whoever asked to read.

An intent is one key. Submitting writes it if absent; finishing writes the outcome into it; the next submission clears the oldest
finished ones away. A value that cannot be read is no intent. Deciding what an intent means is not done here.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from agent.clock import Clock
from agent.codec import CodecError, dumps, loads
from agent.coordination.coordinator import Coordinator, Entry, Operation, Refused, Snapshot, Transaction, Verb
from agent.coordination.lease import UnreadableRecord, decode_record, intent_key, lease_key
from agent.decision.command import IntentOutcome
from agent.decision.view import Intent, IntentKind
from agent.errors import CoordinationError, CoordinationRefused
from agent.instant import Instant

MAX_OPEN = 50
"""Intents of one group that may be open; the next one is refused."""
KEPT_FINISHED = 20
"""Finished intents of one group that stay readable."""
MAX_TEXT = 500
CLEARED_AT_ONCE = 30


@dataclass(frozen=True, slots=True)
class StoredIntent:
    """The value of an intent's key. `created_wall_s`: seconds since 1970, for people only. `outcome`: None while it is open."""

    kind: IntentKind
    node: str | None
    epoch: int
    """The group's epoch when it was written: it speaks of this epoch and the next."""
    who: str
    why: str
    created_wall_s: float
    outcome: IntentOutcome | None = None
    sentence: str = ""


def encode_intent(intent: StoredIntent) -> bytes:
    """The intent as JSON."""
    return dumps(intent)


def decode_stored(value: bytes) -> StoredIntent | None:
    """The intent in a stored value, open or finished; None when it is none."""
    try:
        return loads(StoredIntent, value)
    except CodecError:
        return None


def decode_intent(identity: str, index: int, value: bytes, seen: Instant) -> Intent | None:
    """The open intent in a stored value; None when it is none, or finished."""
    stored = decode_stored(value)
    if stored is None or stored.outcome is not None:
        return None
    return Intent(identity, index, stored.kind, stored.node, stored.epoch, stored.who, stored.why, seen)


async def submit(
    coordinator: Coordinator, clock: Clock, group: str, kind: IntentKind, node: str | None, who: str, why: str, timeout_s: float = 5.0
) -> str:
    """Store a new intent; its identity. Raises `CoordinationRefused` when too many are open, `CoordinationError` when unknown."""
    identity = clock.nonce()
    epoch = _epoch_in(await coordinator.read(lease_key(group), timeout_s), group)
    stored = StoredIntent(kind, node, epoch, who[:MAX_TEXT], why[:MAX_TEXT], clock.wall_s())
    snapshot = await coordinator.read(intent_key(group, ""), timeout_s)
    finished = {key: entry for key, entry in snapshot.entries.items() if _is_done(entry)}
    if len(snapshot.entries) - len(finished) >= MAX_OPEN:
        raise CoordinationRefused(f"group {group} has {MAX_OPEN} open intents already")
    write = Operation(Verb.CAS, intent_key(group, identity), index=0, value=encode_intent(stored))
    outcome = await coordinator.transact((write,), timeout_s)
    if isinstance(outcome, Refused):
        raise CoordinationRefused(f"the intent was not stored: {outcome.reason}")
    surplus = sorted(finished, key=lambda key: finished[key].index)[:-KEPT_FINISHED][:CLEARED_AT_ONCE]
    if surplus:
        with contextlib.suppress(CoordinationError):  # the intent is stored; the next submission clears
            await coordinator.transact(tuple(Operation(Verb.DELETE_CAS, key, index=finished[key].index) for key in surplus), timeout_s)
    return identity


def finishing(group: str, identity: str, index: int, stored: StoredIntent, outcome: IntentOutcome, sentence: str) -> Transaction:
    """Record how the intent ended and so take it off the list; only if nobody else did."""
    value = encode_intent(replace(stored, outcome=outcome, sentence=sentence[:MAX_TEXT]))
    return (Operation(Verb.CAS, intent_key(group, identity), index=index, value=value),)


def _epoch_in(snapshot: Snapshot, group: str) -> int:
    entry = snapshot.entries.get(lease_key(group))
    try:
        return 0 if entry is None else decode_record(entry.value).epoch
    except UnreadableRecord:
        return 0


def _is_done(entry: Entry) -> bool:
    """Finished, or nothing that anybody can read: both may be cleared away."""
    stored = decode_stored(entry.value)
    return stored is None or stored.outcome is not None
