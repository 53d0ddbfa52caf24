from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from signal import Signals

import pytest

from agent.demo import supervisor as supervisor_module
from agent.demo.supervisor import Program, Supervisor
from tests.polling import eventually_async, holds_async

SLEEP = ("/bin/sleep", "60")
STUBBORN = ("/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")


@pytest.fixture
async def supervisor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    monkeypatch.setattr(supervisor_module, "RESTART_PAUSE_S", 0.02)
    one = Supervisor()
    yield one
    await one.close()


def program(folder: Path, command: tuple[str, ...], name: str = "p", **environment: str) -> Program:
    return Program(name, command, folder / f"{name}.log", environment)


def runs(pid: int) -> bool:
    """Whether it still does anything: neither gone nor waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def pid_of(one: Program, but: int | None = None) -> int:
    pid = await eventually_async(lambda: one.pid if one.pid != but else None, 5, "it runs")
    assert pid is not None
    return pid


async def test_it_runs_in_a_session_of_its_own_with_its_log_and_environment(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "p.log").write_text("before\n")
    one = program(tmp_path, ("/bin/sh", "-c", 'echo "$WORD"; echo err >&2; exec sleep 60'), WORD="a word")
    supervisor.start(one)
    pid = await pid_of(one)
    assert os.getsid(pid) == pid
    await eventually_async(lambda: one.log.read_text() == "before\na word\nerr\n", 5)
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")


async def test_what_ends_is_started_again(supervisor: Supervisor, tmp_path: Path) -> None:
    one = program(tmp_path, SLEEP)
    supervisor.start(one)
    first = await pid_of(one)
    assert supervisor.send_signal("p", Signals.SIGKILL)
    second = await pid_of(one, but=first)
    assert (lives(first), lives(second), one.restarts) == (False, True, 1)


async def test_what_was_stopped_stays_stopped(supervisor: Supervisor, tmp_path: Path) -> None:
    one = program(tmp_path, SLEEP)
    supervisor.start(one)
    pid = await pid_of(one)
    await supervisor.stop("p")
    assert not lives(pid)
    assert not supervisor.send_signal("p", Signals.SIGTERM)
    await holds_async(lambda: one.pid is None, 0.1)


async def test_what_does_not_listen_is_killed(supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_TIMEOUT_S", 0.1)
    one = program(tmp_path, STUBBORN)
    supervisor.start(one)
    pid = await pid_of(one)
    await eventually_async(lambda: "ready" in one.log.read_text(), 5)
    await supervisor.stop("p")
    assert not lives(pid)


async def test_a_frozen_one_is_woken_to_end(supervisor: Supervisor, tmp_path: Path) -> None:
    one = program(tmp_path, SLEEP)
    supervisor.start(one)
    pid = await pid_of(one)
    supervisor.send_signal("p", Signals.SIGSTOP)
    async with asyncio.timeout(3):
        await supervisor.stop("p")
    assert not lives(pid)


async def test_what_is_stopped_while_it_starts_does_not_stay(supervisor: Supervisor, tmp_path: Path) -> None:
    one = program(tmp_path, ("/bin/sh", "-c", "echo $$; exec sleep 60"))
    supervisor.start(one)
    await asyncio.sleep(0)
    async with asyncio.timeout(3):
        await supervisor.stop("p")
    assert not [pid for pid in one.log.read_text().split() if lives(int(pid))]


async def test_all_end_at_once(supervisor: Supervisor, tmp_path: Path) -> None:
    """Whoever is left for a moment would act on what is gone."""
    programs = [program(tmp_path, STUBBORN, f"p{number}") for number in range(3)]
    for one in programs:
        supervisor.start(one)
    pids = [await pid_of(one) for one in programs]
    goes_on, real = asyncio.Event(), supervisor.stop

    async def slow(name: str, number: Signals) -> None:
        await goes_on.wait()
        await real(name, number)

    supervisor.stop = slow  # type: ignore[method-assign,assignment]
    closing = asyncio.create_task(supervisor.close())
    try:
        await eventually_async(lambda: not any(runs(pid) for pid in pids), 5)
    finally:
        goes_on.set()
        await closing
    assert not [pid for pid in pids if lives(pid)]
    await supervisor.close()


async def test_a_program_that_is_not_there_harms_nobody(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(program(tmp_path, ("/nowhere/program",), "none"))
    one = program(tmp_path, SLEEP)
    supervisor.start(one)
    await pid_of(one)
    assert not supervisor.send_signal("none", Signals.SIGTERM)
    await supervisor.stop("none")
