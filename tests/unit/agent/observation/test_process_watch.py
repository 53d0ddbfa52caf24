from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.observation.process_watch import ProcessWatch, process_start_time
from tests.polling import eventually_async


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_death_is_told_once_and_at_once(child: subprocess.Popen[bytes]) -> None:
    deaths: list[float] = []
    watch = ProcessWatch()
    watch.watch(child.pid, lambda: deaths.append(time.monotonic()), process_start_time(child.pid))
    await asyncio.sleep(0)
    assert not deaths
    killed = time.monotonic()
    child.kill()
    await eventually_async(lambda: deaths)
    assert deaths[0] - killed < 2.0
    child.wait()
    await asyncio.sleep(0)
    assert len(deaths) == 1


async def test_a_process_that_is_gone_is_told_soon_but_not_before_the_watch_returns(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    deaths: list[int] = []
    ProcessWatch().watch(child.pid, lambda: deaths.append(1))
    assert not deaths
    await eventually_async(lambda: deaths == [1])


async def test_a_dead_process_that_nobody_has_reaped_is_told(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 (it is dead already)
    deaths: list[int] = []
    ProcessWatch().watch(child.pid, lambda: deaths.append(1), process_start_time(child.pid))
    await eventually_async(lambda: deaths == [1])


async def test_a_pid_that_was_given_anew_counts_as_dead(child: subprocess.Popen[bytes]) -> None:
    started = process_start_time(child.pid)
    assert started is not None
    deaths: list[int] = []
    ProcessWatch().watch(child.pid, lambda: deaths.append(1), started - 1)
    await eventually_async(lambda: deaths == [1])


async def test_no_descriptor_is_left(child: subprocess.Popen[bytes]) -> None:
    before, watch, deaths = open_descriptors(), ProcessWatch(), []
    given_up = watch.watch(child.pid, lambda: deaths.append("given up"))
    given_up()
    given_up()
    watch.watch(child.pid, lambda: deaths.append("reused"), 1)
    watch.watch(child.pid, lambda: deaths.append("died"))
    child.kill()
    await eventually_async(lambda: "died" in deaths)
    watch.watch(os.getpid(), lambda: deaths.append("closed"))
    watch.close()
    assert open_descriptors() == before
    assert sorted(deaths) == ["died", "reused"]


async def test_giving_up_late_does_not_end_another_watch(child: subprocess.Popen[bytes]) -> None:
    watch, deaths = ProcessWatch(), []
    first = watch.watch(child.pid, lambda: deaths.append("first"))
    first()
    watch.watch(child.pid, lambda: deaths.append("second"))  # takes the same descriptor number
    first()
    child.kill()
    await eventually_async(lambda: deaths == ["second"])


def test_a_start_time_is_read_whatever_the_name_holds(tmp_path: Path) -> None:
    program = tmp_path / "a) b 1"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        started, own = process_start_time(process.pid), process_start_time(os.getpid())
        process.kill()
    assert started is not None
    assert own is not None
    assert started >= own
    assert process_start_time(process.pid) is None
