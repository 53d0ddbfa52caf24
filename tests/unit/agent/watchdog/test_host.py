"""Speaking never blocks and never fails; protections are told as they are."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.clock import boot_id as agents_boot_id
from agent.watchdog import host
from agent.watchdog.deadline import Moment
from agent.watchdog.host import Supervisor, Voice


@pytest.fixture
def stderr() -> Iterator[int]:
    """Lets a test put something else in the place of descriptor 2, which is put back afterwards."""
    saved = os.dup(2)
    yield 2
    os.dup2(saved, 2)
    os.close(saved)


def test_both_sides_read_the_same_clocks() -> None:
    before, now, after = SystemClock().now(), host.moment(), SystemClock().now()
    assert before.boot_ns <= now.boot_ns <= after.boot_ns
    assert before.raw_ns <= now.raw_ns <= after.raw_ns
    assert host.boot_id() == agents_boot_id()
    assert host.time_namespace() == Path("/proc/self/ns/time").stat().st_ino


def test_a_line_is_written(stderr: int, tmp_path: Path) -> None:
    handle = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, stderr)
    os.close(handle)
    Voice(None).say("fenced \udcff" + "x" * 5000)
    text = (tmp_path / "log").read_text()
    assert "watchdog[" in text
    assert text.endswith("x\n")
    assert len(text) < 700


def test_a_pipe_that_nobody_reads_does_not_block(stderr: int) -> None:
    read, write = os.pipe()
    os.dup2(write, stderr)
    os.close(write)
    for _ in range(2000):
        Voice(None).say("x" * 400)
    os.close(read)
    Voice(None).say("the reader is gone, too")


def test_a_closed_standard_error_is_no_fault(stderr: int) -> None:
    os.close(stderr)
    Voice(None).say("nobody hears this")


def test_its_own_log_is_emptied_when_it_grows_and_no_other_file_is(stderr: int, tmp_path: Path) -> None:
    for name, own in (("own", 1), ("other", 0)):
        path = tmp_path / name
        path.write_bytes(b"x" * (host.LARGEST_LOG + 1))
        handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(handle, stderr)
        os.close(handle)
        found = path.stat()
        Voice((found.st_dev, found.st_ino) if own else None).say("one more")
        assert (path.stat().st_size < 200) is bool(own)


def test_the_supervisor_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        supervisor = Supervisor()
        assert "NOTIFY_SOCKET" not in os.environ
        supervisor.ready()
        assert receiver.recv(100) == b"READY=1"
        now = Moment(0, 5_000_000_000)
        supervisor.alive(now)
        supervisor.alive(now)
        assert receiver.recv(100) == b"WATCHDOG=1"
        with pytest.raises(BlockingIOError):
            receiver.recv(100)
        assert supervisor.wait_ms(now) == 1000


def test_without_a_supervisor_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    supervisor = Supervisor()
    supervisor.ready()
    supervisor.alive(Moment(0, 0))
    assert supervisor.wait_ms(Moment(0, 0)) == 60_000
