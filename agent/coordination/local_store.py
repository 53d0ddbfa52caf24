"""The local coordinator's operations on SQLite: one connection, synchronous, called by one thread at a time.

Each change is one BEGIN IMMEDIATE transaction with one new index. Before anything else it releases the locks of sessions whose process
is gone, so that whoever comes next sees what Consul would show. The verbs mean what `coordinator.py` says; where that is silent, what
Consul does: `cas` and `set` keep a lock, deleting a key that is not there succeeds, an operation sees what those before it wrote.

A change calls `claim` right before COMMIT: it raises when nobody waits any more. Everything that fails before COMMIT changed nothing.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path

from agent.coordination.coordinator import Committed, Entry, Operation, Refused, Snapshot, Transaction, Verb
from agent.coordination.local_file import BUSY, LOCKED, FileGuard, connect, sentence
from agent.coordination.process_life import Life, is_over, own_life
from agent.errors import CoordinationError, CoordinationRefused

MAX_SESSIONS = 1000
MAX_TOMBSTONES = 1000
"""Deleted keys whose index is remembered one by one; older ones count for every folder."""

Claim = Callable[[], None]


class Store:
    """One connection to the store. Every call raises `CoordinationError`, or `CoordinationRefused` when nothing was changed for certain."""

    def __init__(self, path: Path, busy_s: float, guard: FileGuard | None = None) -> None:
        self._path = path
        self._db = connect(path, busy_s)
        self.guard = guard or FileGuard.of(path)
        self._here = own_life()
        self._verbs: dict[Verb, Callable[[Operation, int], str | None]] = {
            Verb.CHECK_INDEX: self._check_index,
            Verb.CHECK_NOT_EXISTS: self._check_not_exists,
            Verb.CHECK_SESSION: self._check_session,
            Verb.CAS: self._cas,
            Verb.LOCK: self._lock,
            Verb.UNLOCK: self._unlock,
            Verb.SET: self._set,
            Verb.DELETE_CAS: self._delete_cas,
        }

    def close(self) -> None:
        self._db.close()

    # ------------------------------------------------------------------ reading

    def identity(self) -> str:
        with self._reading():
            return str(self._db.execute("SELECT identity FROM store").fetchone()[0])

    def read(self, folder: str) -> Snapshot:
        """All entries below `folder` and the folder's index: that of its latest change, deletions too."""
        until = folder + "\U0010ffff"
        with self._reading():
            rows = self._db.execute("SELECT key, value, idx, session FROM entries WHERE key >= ? AND key < ? ORDER BY key", (folder, until))
            entries = {key: Entry(value, index, session) for key, value, index, session in rows}
            gone = self._db.execute(
                "SELECT max(floor, coalesce((SELECT max(idx) FROM tombstones WHERE key >= ? AND key < ?), 0)) FROM store", (folder, until)
            ).fetchone()[0]
        return Snapshot(max([gone, *(e.index for e in entries.values())]), entries)

    def session_is_alive(self, session: str) -> bool:
        with self._reading():
            return self._lives(session)

    def has_dead_sessions(self) -> bool:
        """Whether `sweep` would find something to do."""
        with self._reading():
            return bool(self._dead())

    def version(self) -> int:
        """A number that changes whenever another connection committed; meaningless to other connections. Does not check the file."""
        try:
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise CoordinationError(sentence(error, self._path)) from error

    # ------------------------------------------------------------------ changing

    def transact(self, transaction: Transaction, busy_s: float, claim: Claim) -> Committed | Refused:
        """Run a transaction (its shape was checked). Refused: nothing of it was done."""
        with self._changing(busy_s):
            swept = self._sweep(self._index() + 1)
            index = self._index() + 1
            self._db.execute("SAVEPOINT attempt")
            refused = self._attempt(transaction, index)
            if refused:
                self._db.execute("ROLLBACK TO attempt")
            if swept or not refused:
                self._commit(claim)
            return refused or Committed(index)

    def open_session(self, session: str, name: str, busy_s: float, claim: Claim) -> None:
        with self._changing(busy_s):
            self._sweep(self._index() + 1)
            if self._db.execute("SELECT count(*) FROM sessions").fetchone()[0] >= MAX_SESSIONS:
                raise CoordinationRefused(f"{self._path} has {MAX_SESSIONS} sessions already")
            self._db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)", (session, name, *astuple(self._here)))
            self._commit(claim)

    def close_session(self, session: str, busy_s: float, claim: Claim) -> None:
        with self._changing(busy_s):
            self._end(session, self._index() + 1)
            self._commit(claim)

    def sweep(self, busy_s: float, claim: Claim) -> None:
        """Release the locks of sessions whose process is gone."""
        with self._changing(busy_s):
            if self._sweep(self._index() + 1):
                self._commit(claim)

    def _attempt(self, transaction: Transaction, index: int) -> Refused | None:
        for number, operation in enumerate(transaction):
            reason = self._verbs[operation.verb](operation, index)
            if reason is not None:
                return Refused(number, reason)
        self._db.execute("UPDATE store SET idx = ?", (index,))
        return None

    # ------------------------------------------------------------------ the verbs: None, or why not

    def _check_index(self, operation: Operation, _: int) -> str | None:
        entry = self._entry(operation.key)
        if entry is None:
            return f"{operation.key} does not exist"
        return None if entry.index == operation.index else f"{operation.key} has index {entry.index}, not {operation.index}"

    def _check_not_exists(self, operation: Operation, _: int) -> str | None:
        return None if self._entry(operation.key) is None else f"{operation.key} exists"

    def _check_session(self, operation: Operation, _: int) -> str | None:
        entry = self._entry(operation.key)
        if entry is None:
            return f"{operation.key} does not exist"
        return None if entry.session == operation.session else f"{operation.key} is not locked by this session"

    def _cas(self, operation: Operation, index: int) -> str | None:
        entry = self._entry(operation.key)
        found = 0 if entry is None else entry.index
        if found != operation.index:
            return f"{operation.key} has index {found}, not {operation.index}"
        return self._set(operation, index)

    def _lock(self, operation: Operation, index: int) -> str | None:
        entry = self._entry(operation.key)
        if not self._lives(operation.session or ""):
            return f"session {operation.session} is not alive"
        if entry is not None and entry.session not in {None, operation.session}:
            return f"{operation.key} is locked by another session"
        self._write(operation.key, operation.value or b"", index, operation.session)
        return None

    def _unlock(self, operation: Operation, index: int) -> str | None:
        entry = self._entry(operation.key)
        if entry is None or entry.session != operation.session:
            return f"{operation.key} is not locked by this session"
        self._write(operation.key, operation.value or b"", index, None)
        return None

    def _set(self, operation: Operation, index: int) -> str | None:
        entry = self._entry(operation.key)
        self._write(operation.key, operation.value or b"", index, entry.session if entry else None)
        return None

    def _delete_cas(self, operation: Operation, index: int) -> str | None:
        entry = self._entry(operation.key)
        if entry is None:
            return None
        if entry.index != operation.index:
            return f"{operation.key} has index {entry.index}, not {operation.index}"
        self._db.execute("DELETE FROM entries WHERE key = ?", (operation.key,))
        self._db.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?)", (operation.key, index))
        self._prune_tombstones()
        return None

    # ------------------------------------------------------------------ parts

    def _entry(self, key: str) -> Entry | None:
        row = self._db.execute("SELECT value, idx, session FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else Entry(*row)

    def _write(self, key: str, value: bytes, index: int, session: str | None) -> None:
        self._db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", (key, value, index, session))
        self._db.execute("DELETE FROM tombstones WHERE key = ?", (key,))

    def _prune_tombstones(self) -> None:
        count = self._db.execute("SELECT count(*) FROM tombstones").fetchone()[0]
        if count > MAX_TOMBSTONES:
            limit = self._db.execute("SELECT idx FROM tombstones ORDER BY idx LIMIT 1 OFFSET ?", (count // 2,)).fetchone()[0]
            self._db.execute("DELETE FROM tombstones WHERE idx <= ?", (limit,))
            self._db.execute("UPDATE store SET floor = max(floor, ?)", (limit,))

    def _index(self) -> int:
        return int(self._db.execute("SELECT idx FROM store").fetchone()[0])

    def _lives(self, session: str) -> bool:
        row = self._db.execute("SELECT pid, started, boot, namespace FROM sessions WHERE id = ?", (session,)).fetchone()
        return row is not None and not is_over(Life(*row), self._here)

    def _dead(self) -> list[str]:
        rows = self._db.execute("SELECT id, pid, started, boot, namespace FROM sessions").fetchall()
        return [row[0] for row in rows if is_over(Life(*row[1:]), self._here)]

    def _sweep(self, index: int) -> bool:
        dead = self._dead()
        for session in dead:
            self._end(session, index)
        return bool(dead)

    def _end(self, session: str, index: int) -> None:
        self._db.execute("DELETE FROM sessions WHERE id = ?", (session,))
        if self._db.execute("UPDATE entries SET session = NULL, idx = ? WHERE session = ?", (index, session)).rowcount:
            self._db.execute("UPDATE store SET idx = ?", (index,))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        self.guard.check()
        try:
            self._db.execute("BEGIN")
            yield
        except sqlite3.Error as error:
            raise CoordinationError(sentence(error, self._path)) from error
        finally:
            self._roll_back()

    @contextlib.contextmanager
    def _changing(self, busy_s: float) -> Iterator[None]:
        self.guard.check()
        try:
            self._db.execute(f"PRAGMA busy_timeout = {max(1, round(busy_s * 1000))}")
            self._db.execute("BEGIN IMMEDIATE")
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            kind = CoordinationError if code in {BUSY, LOCKED} else CoordinationRefused
            raise kind(f"{sentence(error, self._path)}; nothing was changed") from error
        finally:
            self._roll_back()

    def _commit(self, claim: Claim) -> None:
        claim()
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise CoordinationError(f"{sentence(error, self._path)}; whether the change was made is unknown") from error
        self.guard.check()

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # the error that brought us here is the one to tell
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
