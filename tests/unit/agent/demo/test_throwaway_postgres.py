from __future__ import annotations

import ctypes
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.demo import throwaway_postgres
from agent.demo.throwaway_postgres import (
    OS_USER,
    PASSWORDS,
    PostgresFailed,
    PostgresServer,
    find_bin_dir,
    free_port,
    major_version,
    own,
    processes_in,
    pypi_bin_dir,
    server_folder,
    usable_bin_dir,
    wait_until,
)

PROGRAMS = {
    "postgres": 'if [ "$1" = --single ]; then cat; else echo "postgres (PostgreSQL) 15.3 (Debian)"; fi',
    "initdb": "exit 0",
    "pg_ctl": 'echo "said: $*"; echo "no" >&2; exit 3',
    "psql": 'env | grep -c "^PG"; echo " $LC_ALL "',
    "slow": "sleep 30",
}


@contextmanager
def fake_bin_dir(**programs: str) -> Iterator[Path]:
    """A folder of programs that answer as a test wants Postgres' to answer."""
    folder = server_folder("q-unit-")
    for name, text in {**PROGRAMS, **programs}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    try:
        yield folder
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


@pytest.fixture
def bin_dir() -> Iterator[Path]:
    with fake_bin_dir() as folder:
        yield folder


@pytest.fixture
def server(bin_dir: Path) -> Iterator[PostgresServer]:
    with PostgresServer(bin_dir=bin_dir) as one:
        one.data_dir.mkdir()
        own(one.data_dir)
        yield one


@contextmanager
def processes(folder: Path, count: int) -> Iterator[list[int]]:
    running = [subprocess.Popen(["/bin/sleep", "60"], cwd=folder) for _ in range(count)]
    try:
        yield [process.pid for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()


# ---------------------------------------------------------------------------------------------------- finding it


def test_a_free_port_is_free() -> None:
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", free_port()))


def test_a_named_postgres_goes_before_all_others(bin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_BIN", str(bin_dir))
    assert find_bin_dir.__wrapped__() == bin_dir


def test_its_version_is_its_major_one(bin_dir: Path) -> None:
    assert major_version(bin_dir) == "15"


def test_a_postgres_that_nobody_installed_is_none() -> None:
    assert pypi_bin_dir("pginstall-of-no-version") is None


def test_a_folder_that_the_servers_user_may_not_enter_is_copied(tmp_path: Path) -> None:
    install = tmp_path / "site-packages" / "pg" / "pginstall"
    (install / "bin").mkdir(parents=True)
    (install / "bin" / "postgres").write_text("#!/bin/sh\ncat ../../pg.libs/words 2>/dev/null; exit 0\n")
    (install / "bin" / "postgres").chmod(0o755)
    (tmp_path / "site-packages" / "pg.libs").mkdir()
    (tmp_path / "site-packages" / "pg.libs" / "words").write_text("x")
    tmp_path.chmod(0o700)
    usable = usable_bin_dir.__wrapped__(install / "bin")
    if OS_USER is None:
        assert usable == install / "bin"
        return
    assert usable != install / "bin"
    assert (usable / "postgres").exists()
    assert (usable.parent.parent.parent / "pg.libs" / "words").exists(), "the libraries beside the package came along"


def test_without_any_postgres_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throwaway_postgres, "find_bin_dir", lambda: None)
    with pytest.raises(PostgresFailed, match="set PG_BIN, or install"):
        PostgresServer()


# ---------------------------------------------------------------------------------------------------- what it runs


def test_a_program_runs_as_the_servers_user_without_the_callers_settings(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    assert server.run("psql") == "0\n C \n"
    assert server.run("psql", environment={"PGPASSWORD": "x"}).startswith("1\n")
    assert server.psql("SELECT 1") == "0\n C"
    assert server.run("postgres", "--single", text="SELECT 1;\n") == "SELECT 1;\n"


def test_a_program_that_fails_says_its_own_words(server: PostgresServer) -> None:
    with pytest.raises(PostgresFailed, match=r"^pg_ctl start now failed \(3\): said: start now and then\nno$"):
        server.run("pg_ctl", "start", "now", "and", "then")


def test_a_program_that_takes_too_long_is_ended(server: PostgresServer) -> None:
    with pytest.raises(PostgresFailed, match=r"^slow a took longer than 0.1 s$"):
        server.run("slow", "a", timeout_s=0.1)


def test_a_start_that_fails_shows_the_servers_log(server: PostgresServer) -> None:
    server.log_file.write_text("FATAL: no room\n")
    with pytest.raises(RuntimeError, match=r"pg_ctl start -w failed \(3\)[\s\S]*FATAL: no room"):
        server.start()


def test_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([0, "", "yes"])
    wait_until(lambda: next(answers), "it is so")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(PostgresFailed, match=r"^not within 0.05 s: the sky falls$"):
        wait_until(lambda: False, "the sky falls", 0.05)


# ---------------------------------------------------------------------------------------------------- its files


def test_it_stands_in_a_folder_of_its_own_that_goes_with_it(bin_dir: Path) -> None:
    with PostgresServer(bin_dir=bin_dir, settings={"work_mem": "8MB", "fsync": "on"}) as server:
        assert OS_USER is None or server.directory.stat().st_mode & stat.S_IROTH, "the other user can reach it"
        server.data_dir.mkdir()
        server.write_config()
        settings = dict(line.split(" = ") for line in server.config_file.read_text().splitlines())
        assert (settings["work_mem"], settings["fsync"], settings["port"]) == ("'8MB'", "'on'", f"'{server.port}'")
        assert settings["listen_addresses"] == "'127.0.0.1'"
        assert server.config_file.parent == server.directory != server.data_dir
        assert server.dsn("plain") == f"host=127.0.0.1 port={server.port} user=plain password={PASSWORDS['plain']} dbname=postgres"
        assert server.dsn("plain", database=None).endswith(f"password={PASSWORDS['plain']}")
        assert server.socket_dsn() == f"host={server.socket_dir} port={server.port} user=postgres dbname=postgres"
        assert server.log() == ""
    assert not server.directory.exists()


def test_a_folder_that_was_given_stays_and_may_hold_the_configuration(bin_dir: Path) -> None:
    folder = server_folder("q-unit-")
    with PostgresServer(folder, bin_dir=bin_dir, config_inside=True) as server:
        server.data_dir.mkdir()
        server.write_config()
        assert server.config_file == server.data_dir / "postgresql.conf"
    assert (folder.exists(), server.data_dir.exists()) == (True, False)
    server.socket_dir.rmdir()
    folder.rmdir()


def test_a_standby_follows_whom_it_is_told_and_nobody_else(server: PostgresServer, bin_dir: Path) -> None:
    auto = server.data_dir / "postgresql.auto.conf"
    auto.write_text("work_mem = '1MB'\nprimary_conninfo = 'host=old'\n")
    with PostgresServer(bin_dir=bin_dir) as primary:
        server.follow(primary, name="pg2")
        conninfo = primary.dsn("replicator", database=None)
    assert auto.read_text() == f"work_mem = '1MB'\nprimary_conninfo = '{conninfo} application_name=pg2'\n"
    assert (server.data_dir / "standby.signal").exists()


# ---------------------------------------------------------------------------------------------------- its processes


def test_its_processes_are_those_that_stand_in_its_folder(server: PostgresServer) -> None:
    assert server.processes() == processes_in(server.data_dir) == ()
    with processes(server.data_dir, 3) as pids, processes(server.directory, 1):
        (server.data_dir / "postmaster.pid").write_text(f"{pids[1]}\n")
        assert server.pid() == pids[1]
        assert server.processes() == (pids[1], pids[0], pids[2])
        os.kill(pids[1], signal.SIGKILL)
        os.waitid(os.P_PID, pids[1], os.WEXITED | os.WNOWAIT)
        assert server.pid() is None, "a dead one that nobody has reaped runs no more"
        assert server._zombie() == pids[1]
        assert server.processes() == (pids[0], pids[2])


@pytest.mark.parametrize("content", ["", "none\n", "{own}\n"])
def test_a_lock_file_of_somebody_else_names_nobody(server: PostgresServer, content: str) -> None:
    (server.data_dir / "postmaster.pid").write_text(content.format(own=os.getpid()))
    assert server.pid() is None
    assert server._zombie() is None
    server.signal_postmaster(signal.SIGKILL)
    server.stop()


def test_killing_it_kills_all_of_it_and_nothing_else(server: PostgresServer) -> None:
    with processes(server.data_dir, 2) as mine, processes(server.directory, 1) as others:
        server.kill()
        assert processes_in(server.data_dir) == ()
        assert processes_in(server.directory) == tuple(others)
        assert set(mine).isdisjoint(others)


# ---------------------------------------------------------------------------------------------------- shared memory


@contextmanager
def segment() -> Iterator[tuple[int, int]]:
    """Key and id of a SysV segment, as a killed Postgres leaves one."""
    libc = ctypes.CDLL(None)
    key = 0x51000000 | os.getpid() & 0xFFFF
    identity = libc.shmget(key, 4096, 0o1600)
    assert identity >= 0
    try:
        yield key, identity
    finally:
        libc.shmctl(identity, 0, None)


def has_segment(identity: int) -> bool:
    return any(row.split()[1] == str(identity) for row in Path("/proc/sysvipc/shm").read_text().splitlines()[1:])


def test_what_a_killed_server_leaves_in_shared_memory_is_freed(server: PostgresServer) -> None:
    with segment() as (key, identity):
        (server.data_dir / "postmaster.pid").write_text("1\n" * 6 + f"  {key}   {identity}\nready\n")
        server._free_shared_memory()
        assert not has_segment(identity)


@pytest.mark.parametrize("line", ["{other} {identity}", "{key} 999999", "", "x y"])
def test_a_segment_of_somebody_else_stays(server: PostgresServer, line: str) -> None:
    with segment() as (key, identity):
        text = line.format(key=key, other=key + 1, identity=identity)
        (server.data_dir / "postmaster.pid").write_text("1\n" * 6 + f"{text}\n")
        server._free_shared_memory()
        assert has_segment(identity)
