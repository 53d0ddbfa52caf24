"""What the contract suite cannot see from outside: bounds, errors of the disk, and the moment before COMMIT."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.coordination import local_store
from agent.coordination.coordinator import Committed, Operation, Refused, Verb
from agent.coordination.local_file import make_if_absent
from agent.coordination.local_store import Store
from agent.errors import CoordinationError, CoordinationRefused
from agent.worker import Withdrawn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    make_if_absent(path, "identity", "draft")
    return path


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with closing(Store(path, 5)) as store:
        yield store


def claim() -> None:
    """Somebody waits."""


def put(store: Store, key: str, value: bytes = b"v") -> int:
    outcome = store.transact((Operation(Verb.SET, key, value=value),), 5, claim)
    assert isinstance(outcome, Committed)
    return outcome.index


def test_an_index_of_0_differs_from_that_of_any_folder(store: Store) -> None:
    assert store.read("pg/").index > 0


def test_a_change_that_nobody_waits_for_is_not_made(store: Store) -> None:
    def withdrawn() -> None:
        raise Withdrawn

    before = store.read("")
    with pytest.raises(Withdrawn):
        store.transact((Operation(Verb.SET, "pg/key", value=b"1"),), 5, withdrawn)
    with pytest.raises(Withdrawn):
        store.open_session("id", "name", 5, withdrawn)
    assert store.read("") == before
    assert not store.session_is_alive("id")
    assert put(store, "pg/key") > before.index


def test_a_store_that_is_locked_for_too_long_changed_nothing(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CoordinationError, match=r"another process has locked .* nothing was changed") as error:
            store.transact((Operation(Verb.SET, "pg/key", value=b"1"),), 0.05, claim)
        assert not isinstance(error.value, CoordinationRefused)
        assert store.read("pg/").entries == {}, "reading never waits for a writer"
    put(store, "pg/key")


def test_a_full_disk_changes_nothing_and_says_so(store: Store) -> None:
    store._db.execute("PRAGMA max_page_count = 12")
    with pytest.raises(CoordinationRefused, match=r"the disk of .* is full; nothing was changed"):
        put(store, "pg/large", b"x" * 100_000)
    assert store.read("pg/").entries == {}
    put(store, "pg/small")


def read_all(path: Path) -> None:
    with closing(Store(path, 5)) as store:
        store.read("")


def test_a_damaged_file_is_one_sentence(path: Path) -> None:
    with closing(Store(path, 5)) as store:
        for number in range(50):
            put(store, f"pg/{number}", b"x" * 4000)
    read_all(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 150_000)
    with pytest.raises(CoordinationError, match="damaged"):
        read_all(path)


def test_a_disk_that_fails_at_commit_leaves_the_outcome_unknown(store: Store, path: Path) -> None:
    put(store, "pg/key")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size, hard))
    try:
        with pytest.raises(CoordinationError, match=r"the disk of .* failed .*unknown") as error:
            put(store, "pg/other")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not isinstance(error.value, CoordinationRefused)
    put(store, "pg/other")


def test_a_store_that_cannot_be_read_is_one_sentence(path: Path) -> None:
    with closing(Store(path, 5)) as keeper:
        store = Store(path, 5, keeper.guard)
        store.close()
        for call in (store.version, store.identity, store.has_dead_sessions):
            with pytest.raises(CoordinationError, match=r"store\.db: "):
                call()


def test_folder_indexes_count_deletions_and_stay_with_their_folder(store: Store) -> None:
    put(store, "a/key")
    index = put(store, "b/key")
    assert store.read("b/").index == index
    assert store.read("a/").index < index
    store.transact((Operation(Verb.DELETE_CAS, "b/key", index=index),), 5, claim)
    assert store.read("b/").index > index
    assert store.read("a/").index < index


def test_remembered_deletions_are_bounded_and_no_folder_goes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_store, "MAX_TOMBSTONES", 10)
    seen: dict[str, int] = {}
    for folder in (f"f{number}/" for number in range(25)):
        index = put(store, f"{folder}key")
        store.transact((Operation(Verb.DELETE_CAS, f"{folder}key", index=index),), 5, claim)
        seen[folder] = store.read(folder).index
        assert seen[folder] > index
        assert store._db.execute("SELECT count(*) FROM tombstones").fetchone()[0] <= 10
        assert all(store.read(earlier).index >= before for earlier, before in seen.items())


def test_a_key_made_anew_needs_no_tombstone(store: Store) -> None:
    index = put(store, "pg/key")
    store.transact((Operation(Verb.DELETE_CAS, "pg/key", index=index),), 5, claim)
    put(store, "pg/key")
    assert store._db.execute("SELECT count(*) FROM tombstones").fetchone()[0] == 0


def test_deleting_what_is_not_there_succeeds_as_in_consul(store: Store) -> None:
    assert isinstance(store.transact((Operation(Verb.DELETE_CAS, "pg/key", index=7),), 5, claim), Committed)


def test_sessions_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_store, "MAX_SESSIONS", 2)
    store.open_session("1", "name", 5, claim)
    store.open_session("2", "name", 5, claim)
    with pytest.raises(CoordinationRefused, match="has 2 sessions already"):
        store.open_session("3", "name", 5, claim)
    store.close_session("1", 5, claim)
    store.open_session("3", "name", 5, claim)


def kill(store: Store, session: str) -> None:
    """The session's process is gone: another life had that pid."""
    store._db.execute("UPDATE sessions SET started = 1 WHERE id = ?", (session,))


def test_a_refused_transaction_still_releases_the_locks_of_the_dead(store: Store) -> None:
    store.open_session("dead", "name", 5, claim)
    store.transact((Operation(Verb.LOCK, "pg/key", session="dead", value=b"1"),), 5, claim)
    locked = store.read("pg/key").entries["pg/key"]
    kill(store, "dead")
    assert store.has_dead_sessions()
    refused = store.transact((Operation(Verb.CHECK_INDEX, "pg/key", index=locked.index),), 5, claim)
    assert isinstance(refused, Refused)
    released = store.read("pg/key").entries["pg/key"]
    assert (released.session, released.value) == (None, b"1")
    assert released.index > locked.index
    assert not store.has_dead_sessions()


def test_a_refused_transaction_leaves_nothing_behind_when_a_dead_session_is_released_with_it(store: Store) -> None:
    store.open_session("dead", "name", 5, claim)
    kill(store, "dead")
    write, fail = Operation(Verb.SET, "pg/key", value=b"1"), Operation(Verb.CHECK_INDEX, "pg/absent", index=1)
    assert isinstance(store.transact((write, fail), 5, claim), Refused)
    assert not store.has_dead_sessions()
    assert store.read("").entries == {}


def test_a_change_holds_the_write_lock_from_its_first_reading_on(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.open_session("alive", "name", 5, claim)
    looked: list[bool] = []

    def look(*_: object) -> bool:
        with (
            closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("BEGIN IMMEDIATE")
        looked.append(True)
        return False

    monkeypatch.setattr(local_store, "is_over", look)
    put(store, "pg/key")
    assert looked


def test_a_sweep_moves_no_index_when_nobody_died(store: Store) -> None:
    store.open_session("alive", "name", 5, claim)
    before = store.read("")
    store.sweep(5, claim)
    assert store.read("") == before


def test_a_sweep_releases_each_key_of_the_dead(store: Store) -> None:
    store.open_session("dead", "name", 5, claim)
    for key in ("pg/one", "pg/two"):
        store.transact((Operation(Verb.LOCK, key, session="dead", value=b"1"),), 5, claim)
    kill(store, "dead")
    before = store.read("pg/").index
    store.sweep(5, claim)
    after = store.read("pg/")
    assert {entry.session for entry in after.entries.values()} == {None}
    assert {entry.index for entry in after.entries.values()} == {after.index}
    assert after.index > before
    assert put(store, "pg/else") > after.index


def test_version_changes_when_another_connection_commits_and_only_then(store: Store, path: Path) -> None:
    with closing(Store(path, 5, store.guard)) as other:
        before = store.version()
        store.read("")
        assert store.version() == before
        put(other, "pg/key")
        assert store.version() != before
