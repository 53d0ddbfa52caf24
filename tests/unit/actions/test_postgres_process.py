import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actions import postgres_process as process
from actions.postgres_instance import Postmaster
from tests.polling import eventually


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def worker(data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that works in the data directory and is named as its server."""
    child = subprocess.Popen(["/bin/sleep", "60"], cwd=data_dir)
    (data_dir / "postmaster.pid").write_text(f"{child.pid}\n{data_dir}\n")
    yield child
    child.kill()
    child.wait()


def test_a_server_is_known_by_pid_and_start(data_dir: Path, worker: subprocess.Popen[bytes]) -> None:
    found = process.current_postmaster(data_dir)
    assert found is not None
    assert found.pid == worker.pid
    assert process.is_alive(found, data_dir)
    assert not process.is_alive(Postmaster(found.pid, found.start_ticks + 1), data_dir)
    assert process.processes_of(data_dir) == (worker.pid,)
    assert process.parent_of(worker.pid) == os.getpid()


def test_a_stranger_with_the_noted_number_is_no_server(data_dir: Path) -> None:
    (data_dir / "postmaster.pid").write_text(f"{os.getpid()}\n")
    assert process.current_postmaster(data_dir) is None
    assert not process.signal_member(os.getpid(), data_dir, signal.SIGKILL)


def test_the_dead_count_for_nothing(data_dir: Path, worker: subprocess.Popen[bytes]) -> None:
    found = process.current_postmaster(data_dir)
    assert found is not None
    worker.kill()  # and not reaped: a zombie
    eventually(lambda: process.current_postmaster(data_dir) is None)
    assert process.processes_of(data_dir) == ()
    assert not process.signal_postmaster(found, data_dir, signal.SIGINT)
    assert process.nap(worker.pid) is None


@pytest.mark.parametrize("text", ["", "x\n", "\n", "-5\n"])
def test_a_lock_that_says_nothing_is_nobodys(data_dir: Path, text: str) -> None:
    (data_dir / "postmaster.pid").write_text(text)
    assert process.current_postmaster(data_dir) is None


def test_signals_reach_only_the_life_they_are_for(data_dir: Path, worker: subprocess.Popen[bytes]) -> None:
    found = process.current_postmaster(data_dir)
    assert found is not None
    assert not process.signal_postmaster(Postmaster(found.pid, found.start_ticks - 1), data_dir, signal.SIGTERM)
    assert worker.poll() is None
    assert process.signal_postmaster(found, data_dir, signal.SIGTERM)
    assert worker.wait(5) == -signal.SIGTERM


def test_locks_of_the_dead_go_and_those_of_others_stay(data_dir: Path, tmp_path: Path, worker: subprocess.Popen[bytes]) -> None:
    lock, own, other = data_dir / "postmaster.pid", tmp_path / ".s.PGSQL.5432.lock", tmp_path / ".s.PGSQL.5433.lock"
    own.write_text(f"{worker.pid}\n{data_dir}\n")
    other.write_text(f"{worker.pid}\n/somewhere/else\n")
    process.remove_stale_locks(data_dir, tmp_path, 5432)
    assert lock.exists(), "it is alive"
    worker.kill()
    worker.wait()
    process.remove_stale_locks(data_dir, tmp_path, 5433)
    assert (lock.exists(), own.exists(), other.exists()) == (False, True, True)
    process.remove_stale_locks(data_dir, tmp_path, 5432)
    assert not own.exists()


def test_an_empty_lock_of_one_killed_in_its_first_instant_goes(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / ".s.PGSQL.5432.lock").touch()
    process.remove_stale_locks(data_dir, tmp_path, 5432)
    assert not (tmp_path / ".s.PGSQL.5432.lock").exists()


def test_a_nap_is_counted_once(data_dir: Path, worker: subprocess.Popen[bytes]) -> None:
    first = eventually(lambda: process.nap(worker.pid))
    assert process.nap(worker.pid) == first
    assert process.nap(-1) is None
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], cwd=data_dir)
    try:
        eventually(lambda: process.nap(busy.pid) is None)
    finally:
        busy.kill()
        busy.wait()


async def test_leftovers_are_known_by_name_and_argument(data_dir: Path, tmp_path: Path) -> None:
    tool = tmp_path / "pg_tool"
    tool.symlink_to("/bin/sleep")
    argument = Path(f"60.{os.getpid()}")
    child = subprocess.Popen([tool, "60", argument])  # noqa: ASYNC220
    try:
        eventually(lambda: process.leftovers("pg_tool", argument) == (child.pid,))
        assert process.leftovers("pg_tool", data_dir) == ()
        assert process.leftovers("sleep", argument) == ()
        await process.end_leftovers("pg_tool", argument)
        assert child.wait(5) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
