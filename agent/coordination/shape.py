"""What a transaction must look like before any coordinator takes it: one judgement for all of them, so that none takes more than another.

The limits are the narrowest of the coordinators': Consul's HTTP request for one transaction holds 512 KiB, values in it as base64. Pure.
"""

from __future__ import annotations

from agent.coordination.coordinator import Transaction, Verb
from agent.errors import CoordinationRefused

MAX_OPERATIONS = 64
MAX_VALUES_BYTES = 256 * 1024
"""All values of one transaction together."""
MAX_KEY_LENGTH = 512

_NEEDS = {
    Verb.CHECK_INDEX: ("index",),
    Verb.CHECK_NOT_EXISTS: (),
    Verb.CHECK_SESSION: ("session",),
    Verb.CAS: ("index", "value"),
    Verb.LOCK: ("session", "value"),
    Verb.UNLOCK: ("session",),
    Verb.SET: ("value",),
    Verb.DELETE_CAS: ("index",),
}
CHECKS = frozenset({Verb.CHECK_INDEX, Verb.CHECK_NOT_EXISTS, Verb.CHECK_SESSION})
"""Verbs that write nothing."""
WRITE_VALUES = frozenset({Verb.CAS, Verb.LOCK, Verb.UNLOCK, Verb.SET})


def check_shape(transaction: Transaction) -> None:
    """Raise `CoordinationRefused` for a transaction that no store takes."""
    if not 0 < len(transaction) <= MAX_OPERATIONS:
        raise CoordinationRefused(f"a transaction has 1 to {MAX_OPERATIONS} operations, not {len(transaction)}")
    for number, operation in enumerate(transaction):
        where = f"operation {number} ({operation.verb})"
        if not 0 < len(operation.key) <= MAX_KEY_LENGTH or not operation.key.isprintable():
            raise CoordinationRefused(f"{where}: a key has 1 to {MAX_KEY_LENGTH} printable characters")
        for name in _NEEDS[operation.verb]:
            if getattr(operation, name) is None:
                raise CoordinationRefused(f"{where} needs its {name}")
        if operation.verb is Verb.UNLOCK and operation.value is None and not _is_locked_again(operation.key, transaction[number + 1 :]):
            raise CoordinationRefused(f"{where} needs its value: nothing after it locks the key anew")
    size = sum(len(operation.value or b"") for operation in transaction)
    if size > MAX_VALUES_BYTES:
        raise CoordinationRefused(f"the transaction's values are larger than {MAX_VALUES_BYTES} bytes")


def _is_locked_again(key: str, later: Transaction) -> bool:
    """Whether a later operation writes the key for certain, so that nobody ever sees what UNLOCK left there."""
    return any(each.key == key and each.verb in (Verb.LOCK, Verb.SET) for each in later)


def writes(transaction: Transaction) -> bool:
    """Whether anything is written: a transaction of checks alone is a question."""
    return any(operation.verb not in CHECKS for operation in transaction)
