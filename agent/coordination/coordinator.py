"""The contract of every coordinator: what Consul, the local file and the simulated one promise alike.

A coordinator stores small values under keys. Each value has an index that grows with every write anywhere. Several operations form one
transaction: all or nothing. A session stands for one living agent; a key may be locked by one session. When a session ends its
locks are released and its keys stay (and their index changes). Values, keys and transactions are built elsewhere (`lease.py`); a
coordinator only runs them. tests/contract/test_coordinator.py is the same suite for all of them.

Outcomes are three, never two: Committed, Refused, and `CoordinationError` = unknown, read back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Verb(StrEnum):
    """What one operation of a transaction does. The words are Consul's."""

    CHECK_INDEX = "check-index"
    """Fails unless the key exists with exactly this index."""
    CHECK_NOT_EXISTS = "check-not-exists"
    """Fails if the key exists."""
    CHECK_SESSION = "check-session"
    """Fails unless the key is locked by this session."""
    CAS = "cas"
    """Writes the value if the key's index is this one (0: if it does not exist). Keeps the lock."""
    LOCK = "lock"
    """Writes the value and locks the key; fails if another session holds it or if this session is dead."""
    UNLOCK = "unlock"
    """Writes the value and releases the key; fails unless this session holds it. The value may be left out only where a later operation
    of the same transaction locks or sets the key: Consul would leave it empty, and nobody may ever see that."""
    SET = "set"
    """Writes the value whatever was there. Never for a lease or a vote."""
    DELETE_CAS = "delete-cas"
    """Deletes the key if its index is this one."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a transaction. `key` is relative to the coordinator's prefix."""

    verb: Verb
    key: str
    index: int | None = None
    session: str | None = None
    value: bytes | None = None


Transaction = tuple[Operation, ...]
"""Operations that happen together or not at all. At most 64, with values of 256 KiB together (`shape.py`)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored value. `session` is the one that locks the key, if any."""

    value: bytes
    index: int
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All entries below one folder at one moment, by key relative to the coordinator's prefix, and the coordinator's index then."""

    index: int
    entries: Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction was done; every key it wrote has this index. Of one that wrote none (it deletes, it checks) it says nothing."""

    index: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was done. `operation` counts from 0; `reason` is the coordinator's own sentence."""

    operation: int
    reason: str


class Coordinator(Protocol):
    """What quorate needs of the place where nodes meet. Every call raises `CoordinationError` when it cannot tell the outcome."""

    @property
    def description(self) -> str:
        """One sentence for people: what it is and what loss it does not survive."""
        ...

    async def identity(self) -> str:
        """A name of this very store. Another value later means another store: nobody resumes, nobody takes over."""
        ...

    async def open_session(self, name: str) -> str:
        """A new session of this process, named so that orphans can be found; its id."""
        ...

    async def session_is_alive(self, session: str) -> bool:
        """Whether this session can still lock keys."""
        ...

    async def close_session(self, session: str) -> None:
        """End the session: its locks are released at once. Doing it twice is no error."""
        ...

    async def transact(self, transaction: Transaction, timeout_s: float) -> Committed | Refused:
        """Run a transaction. Raises `CoordinationError` after `timeout_s` or on a lost answer: it may have been done."""
        ...

    async def read(self, folder: str, timeout_s: float) -> Snapshot:
        """All entries whose key starts with `folder`, never stale."""
        ...

    async def wait(self, folder: str, index: int, timeout_s: float) -> Snapshot:
        """Like `read`, but answers only when the folder's index differs from `index`, or after `timeout_s` with what there is."""
        ...

    async def close(self) -> None:
        """Free what the client holds. Sessions stay as they are."""
        ...
