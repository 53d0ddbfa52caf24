"""What is believed about a Postgres that one cannot ask, with a made-up data directory and real processes."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.watchdog import evidence
from agent.watchdog.evidence import DbState, control_state, is_writable, lock_holder_lives, says_production
from agent.watchdog.process import members_of, title_of

UID = os.getuid()
Run = Callable[[str], int]


def write_control(data_dir: Path, state: int, version: int = 1300) -> None:
    (data_dir / "global").mkdir(exist_ok=True)
    (data_dir / "global" / "pg_control").write_bytes(struct.pack("=QIIi", 77, version, 202209061, state).ljust(8192, b"\0"))


def write_lock(data_dir: Path, pid: int, status: str | None) -> None:
    lines = [str(pid), str(data_dir), "1700000000", "5432", "/tmp", "localhost", "  1  2"]
    (data_dir / "postmaster.pid").write_text("\n".join([*lines, *([] if status is None else [status.ljust(8)])]) + "\n")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts a process in the data directory that shows itself under this title; its pid."""
    with ExitStack() as stack:

        def start(title: str) -> int:
            child = subprocess.Popen([title, "60"], executable="/bin/sleep", cwd=tmp_path)
            stack.callback(child.wait)
            stack.callback(child.kill)
            end = time.monotonic() + 5
            while title_of(child.pid) != title or child.pid not in members_of(str(tmp_path), UID):
                assert time.monotonic() < end
            return child.pid

        yield start


def judged(data_dir: Path) -> bool | None:
    return is_writable(str(data_dir), UID)


def test_no_process_is_proof(tmp_path: Path) -> None:
    assert judged(tmp_path) is False
    write_control(tmp_path, DbState.IN_PRODUCTION)
    assert judged(tmp_path) is False
    assert judged(tmp_path / "never") is False


def test_a_standby_is_proof(tmp_path: Path, run: Run) -> None:
    write_control(tmp_path, DbState.IN_ARCHIVE_RECOVERY)
    write_lock(tmp_path, run("/usr/bin/postgres"), "ready")
    assert judged(tmp_path) is False
    assert not says_production(str(tmp_path))


def test_a_server_that_is_ready_in_production_is_writable(tmp_path: Path, run: Run) -> None:
    write_control(tmp_path, DbState.IN_PRODUCTION)
    write_lock(tmp_path, run("/usr/bin/postgres"), "ready")
    assert judged(tmp_path) is True
    assert says_production(str(tmp_path))
    assert lock_holder_lives(str(tmp_path), UID)


@pytest.mark.parametrize("state", [state for state in DbState if state not in {DbState.IN_PRODUCTION, DbState.IN_ARCHIVE_RECOVERY}])
def test_any_other_state_is_unknown(tmp_path: Path, run: Run, state: DbState) -> None:
    write_control(tmp_path, state)
    write_lock(tmp_path, run("/usr/bin/postgres"), "ready")
    assert judged(tmp_path) is None


def test_a_sealed_server_that_starts_after_a_crash_is_not_taken_for_writable(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_control(tmp_path, DbState.IN_PRODUCTION)  # of its last life
    postmaster = run("/usr/bin/postgres")
    write_lock(tmp_path, 1 << 22, "ready")  # not yet its own
    assert judged(tmp_path) is None
    write_lock(tmp_path, postmaster, None)
    assert judged(tmp_path) is None
    write_lock(tmp_path, postmaster, "starting")
    assert judged(tmp_path) is None
    monkeypatch.setattr(evidence, "YOUNG_S", 0.0)  # it recovers for an hour
    run("postgres: main: startup recovering 000000010000000000000002")
    assert judged(tmp_path) is None


def test_a_server_whose_status_was_never_written_is_believed_when_it_is_old(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_control(tmp_path, DbState.IN_PRODUCTION)
    write_lock(tmp_path, run("/usr/bin/postgres"), "starting")  # the disk was full when it wanted to say "ready"
    monkeypatch.setattr(evidence, "YOUNG_S", 0.0)
    assert judged(tmp_path) is True


def test_a_role_called_startup_hides_nothing(tmp_path: Path, run: Run) -> None:
    write_control(tmp_path, DbState.IN_PRODUCTION)
    write_lock(tmp_path, run("/usr/bin/postgres"), "ready")
    run("postgres: startup app 127.0.0.1(5) idle")
    assert judged(tmp_path) is True


def test_single_user_mode_is_writable(tmp_path: Path, run: Run) -> None:
    write_control(tmp_path, DbState.IN_PRODUCTION)
    write_lock(tmp_path, -run("/usr/bin/postgres"), None)
    assert judged(tmp_path) is True
    assert lock_holder_lives(str(tmp_path), UID)


def test_orphans_of_a_killed_postmaster_are_writable(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_control(tmp_path, DbState.IN_PRODUCTION)
    write_lock(tmp_path, 1 << 22, "ready")
    run("postgres: app app [local] COMMIT")
    monkeypatch.setattr(evidence, "YOUNG_S", 0.0)
    assert judged(tmp_path) is True


def test_somebodys_shell_in_the_directory_is_no_server(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_control(tmp_path, DbState.IN_PRODUCTION)
    run("-bash")
    monkeypatch.setattr(evidence, "YOUNG_S", 0.0)
    assert judged(tmp_path) is None
    assert not lock_holder_lives(str(tmp_path), UID)


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff" * 8192, struct.pack("=QIIi", 1, 1300, 1, 7).ljust(8192), struct.pack("=QIIi", 1, 5, 1, 6)]
)
def test_what_is_no_pg_control_says_nothing(tmp_path: Path, run: Run, content: bytes) -> None:
    (tmp_path / "global").mkdir()
    (tmp_path / "global" / "pg_control").write_bytes(content)
    assert control_state(str(tmp_path)) is None
    run("/usr/bin/postgres")
    assert judged(tmp_path) is None


@pytest.mark.parametrize("content", ["", "x", "\n\n\n", "12", "1e3\n", "\x00" * 50])
def test_a_broken_lock_file_names_nobody(tmp_path: Path, run: Run, content: str) -> None:
    write_control(tmp_path, DbState.IN_PRODUCTION)
    (tmp_path / "postmaster.pid").write_text(content)
    run("/usr/bin/postgres")
    assert judged(tmp_path) is None
    assert not lock_holder_lives(str(tmp_path), UID)


def test_a_state_that_changes_between_two_reads_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_control(tmp_path, DbState.IN_ARCHIVE_RECOVERY)
    answers = iter([DbState.IN_ARCHIVE_RECOVERY, DbState.IN_PRODUCTION])
    monkeypatch.setattr(evidence, "_read_state", lambda _: next(answers))
    assert control_state(str(tmp_path)) is None


def test_a_read_that_would_wait_for_the_disk_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_control(tmp_path, DbState.IN_PRODUCTION)

    def would_wait(*_: object) -> int:
        raise BlockingIOError(11, "would wait")

    monkeypatch.setattr(os, "preadv", would_wait)
    assert control_state(str(tmp_path)) is None


def test_a_file_system_without_nowait_is_read_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_control(tmp_path, DbState.IN_PRODUCTION)
    plain = os.preadv

    def refuse(handle: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        if flags:
            raise OSError(95, "not supported")
        return plain(handle, buffers, offset)

    monkeypatch.setattr(os, "preadv", refuse)
    assert control_state(str(tmp_path)) is DbState.IN_PRODUCTION
