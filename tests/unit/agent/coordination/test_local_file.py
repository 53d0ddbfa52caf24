from __future__ import annotations

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from agent.coordination import local_file
from agent.coordination.local_file import FileGuard, connect, file_system, make_if_absent, refuse_network, sentence
from agent.errors import CoordinationError, CoordinationRefused


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    make_if_absent(path, "identity", "draft")
    return path


def identity(path: Path) -> str:
    with closing(connect(path, 5)) as db:
        return str(db.execute("SELECT identity FROM store").fetchone()[0])


def test_a_store_is_made_once_for_this_user_only_and_leaves_no_draft(path: Path) -> None:
    make_if_absent(path, "another", "draft")
    assert identity(path) == "identity"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


def test_of_many_who_make_it_at_once_all_find_one_store(tmp_path: Path) -> None:
    path, seen, start = tmp_path / "store.db", [], threading.Barrier(8)

    def make(number: int) -> None:
        start.wait()
        make_if_absent(path, f"identity-{number}", f"draft-{number}")
        seen.append(identity(path))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_wal_and_full_fsync_are_on(path: Path) -> None:
    with closing(connect(path, 5)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CoordinationRefused, match=r"absent/store\.db cannot be made: No such file or directory"):
        make_if_absent(tmp_path / "absent" / "store.db", "identity", "draft")


def test_a_folder_that_takes_no_files_is_one_sentence() -> None:
    with pytest.raises(CoordinationRefused, match=r"cannot be made"):
        make_if_absent(Path("/proc/store.db"), "identity", "draft")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_file, "SCHEMA", "PRAGMA max_page_count = 2;" + local_file.SCHEMA)
    with pytest.raises(CoordinationRefused, match=r"the disk of .*store\.db is full"):
        make_if_absent(tmp_path / "store.db", "identity", "draft")
    assert [file.name for file in tmp_path.iterdir()] == []


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000], ids=["empty", "text", "damaged"])
def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(content)
    make_if_absent(path, "identity", "draft")
    with pytest.raises(CoordinationRefused, match="no quorate store"):
        connect(path, 5)
    assert path.read_bytes() == content


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (one)")
    with pytest.raises(CoordinationRefused, match="no quorate store"):
        connect(path, 5)


def test_a_store_that_is_gone_is_not_made_by_connecting(tmp_path: Path) -> None:
    with pytest.raises(CoordinationRefused, match="cannot be opened"):
        connect(tmp_path / "store.db", 5)
    assert [file.name for file in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "another process has locked"),
        (sqlite3.SQLITE_FULL, "is full"),
        (sqlite3.SQLITE_READONLY, "cannot be opened for writing by this user"),
        (sqlite3.SQLITE_NOTADB, "is damaged or no quorate store"),
        (sqlite3.SQLITE_IOERR_FSYNC, "the disk of /x failed"),
        (sqlite3.SQLITE_ERROR, "/x: boom"),
    ],
)
def test_each_error_of_sqlite_has_its_sentence(code: int, expected: str) -> None:
    error = sqlite3.OperationalError("boom")
    error.sqlite_errorcode = code
    assert expected in sentence(error, Path("/x"))


# ---------------------------------------------------------------------------------------------------- network


def test_a_disk_of_this_host_is_accepted(tmp_path: Path) -> None:
    refuse_network(tmp_path)
    assert file_system(Path("/proc")) == 0x9FA0
    with pytest.raises(FileNotFoundError):
        file_system(tmp_path / "absent")


@pytest.mark.parametrize(("magic", "name"), sorted(local_file.NETWORK_FILE_SYSTEMS.items()))
def test_a_network_file_system_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, magic: int, name: str) -> None:
    monkeypatch.setattr(local_file, "file_system", lambda _: magic)
    with pytest.raises(CoordinationRefused, match=rf"lies on a network file system \({name}\)"):
        make_if_absent(tmp_path / "store.db", "identity", "draft")
    assert [file.name for file in tmp_path.iterdir()] == []


def test_a_file_system_is_told_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(local_file.NETWORK_FILE_SYSTEMS, 0x9FA0, "procfs")
    with pytest.raises(CoordinationRefused, match=r"\(procfs\)"):
        refuse_network(Path("/proc"))


# ---------------------------------------------------------------------------------------------------- the guard


def test_the_guard_is_quiet_while_the_files_are_the_same(path: Path) -> None:
    with closing(connect(path, 5)) as db:
        guard = FileGuard.of(path)
        db.execute("UPDATE store SET idx = idx + 1")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        identity(path)
        guard.check()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_the_guard_notices_a_file_that_was_deleted(path: Path, suffix: str) -> None:
    with closing(connect(path, 5)):
        guard = FileGuard.of(path)
        Path(f"{path}{suffix}").unlink()
        with pytest.raises(CoordinationError, match="deleted or replaced"):
            guard.check()


def test_the_guard_notices_a_file_that_was_replaced(path: Path, tmp_path: Path) -> None:
    with closing(connect(path, 5)):
        guard = FileGuard.of(path)
        make_if_absent(tmp_path / "other.db", "other", "draft")
        (tmp_path / "other.db").replace(path)
        with pytest.raises(CoordinationError, match="deleted or replaced"):
            guard.check()
