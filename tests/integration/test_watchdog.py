"""The watchdog and a real Postgres: what it kills, how fast, and what it leaves alone."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.errors import WatchdogError
from agent.execution.watchdog_client import WatchdogClient
from agent.watchdog import protocol
from agent.watchdog.evidence import is_writable
from tests.plugins.left_out import left_out
from tests.polling import eventually_async, holds_async
from tests.servers.postgres import OS_USER, PostgresServer, own, processes_in

CLOCK = SystemClock()
PR_SET_CHILD_SUBREAPER = 36
BUDGET_S = 0.5
LEASE_S = 1.0
MakePostgres = Callable[[], PostgresServer]


@pytest.fixture(autouse=True)
def _orphans_come_to_us() -> Iterator[None]:
    """PID 1 may take seconds to reap a killed postmaster, and until then Postgres does not start again: let it be our orphan."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    reap()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def reap() -> None:
    """Take the dead of Postgres off the list, and nobody else's."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            if f"(postgres) Z {os.getpid()} " in text:
                os.waitpid(int(text.split()[0]), os.WNOHANG)


async def start(server: PostgresServer, *, wait: bool = True) -> None:
    reap()
    await asyncio.to_thread(server.start, wait=wait)


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="q-wd-", dir="/tmp") as folder:
        yield Path(folder)
        kill_watchdog(Path(folder))


def kill_watchdog(state: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        pid = int((state / protocol.LOCK).read_text())
        if str(state).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def client(state: Path) -> AsyncIterator[WatchdogClient]:
    connection = WatchdogClient(state, CLOCK)
    await connection.connect(spawn=True)
    yield connection
    await connection.close()
    kill_watchdog(state)
    await until(lambda: not connection._reap(), "its process is gone")


async def until(condition: Callable[[], object], what: str, timeout_s: float = 15.0) -> float:
    """Seconds until it was so."""
    began = time.monotonic()
    await eventually_async(lambda: asyncio.to_thread(condition), timeout_s, what)
    return time.monotonic() - began


async def fenced(client: WatchdogClient, times: int) -> None:
    """Wait until the watchdog has fenced so often, and no more often."""

    async def fences() -> int:
        return (await client.status())[0].fences

    async def enough() -> bool:
        return await fences() >= times

    await eventually_async(enough, 20, f"fence {times}")
    assert await fences() == times


def uid_of(server: PostgresServer) -> int:
    return server.data_dir.stat().st_uid


async def guard(client: WatchdogClient, server: PostgresServer) -> None:
    await client.register("pg", server.data_dir, uid_of(server), BUDGET_S)


async def arm(client: WatchdogClient, epoch: int = 1, ahead_s: float = LEASE_S) -> None:
    await client.hand_over("pg", epoch, CLOCK.now().after(ahead_s), f"n{time.monotonic_ns()}", 1.0)


def seal(server: PostgresServer) -> None:
    signal_file = server.data_dir / "standby.signal"
    signal_file.touch()
    own(signal_file)


async def start_armed(client: WatchdogClient, server: PostgresServer, epoch: int = 1, ahead_s: float = LEASE_S) -> None:
    """As the agent does: register, arm while nothing is writable, start sealed, promote."""
    await guard(client, server)
    seal(server)
    await start(server)
    await arm(client, epoch, ahead_s)
    await asyncio.to_thread(server.psql, "SELECT pg_promote()")
    await asyncio.to_thread(seal, server)


async def test_a_passed_deadline_kills_the_whole_tree_within_its_budget(client: WatchdogClient, make_postgres: MakePostgres) -> None:
    server = make_postgres()
    await asyncio.to_thread(server.initdb)
    await start_armed(client, server, ahead_s=2.0)
    assert is_writable(str(server.data_dir), uid_of(server)) is True
    query = [str(server.bin_dir / "psql"), "-XAtq", "-c", "SELECT pg_sleep(60)", server.socket_dsn()]
    with contextlib.ExitStack() as stack:
        sleepers = [stack.enter_context(subprocess.Popen(query, stderr=subprocess.DEVNULL)) for _ in range(10)]  # noqa: ASYNC220
        await until(lambda: server.psql("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'") == "10", "they sleep")
        asleep = "SELECT min(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"  # not one that is just ending
        os.kill(int(server.psql(asleep)), signal.SIGSTOP)
        await arm(client, ahead_s=2.0)
        deadline = time.monotonic() + 2.0
        await until(lambda: not server.processes(), "all dead")
        late_s = time.monotonic() - deadline
        assert all(sleeper.wait(10) != 0 for sleeper in sleepers)
    assert 0 <= late_s < BUDGET_S
    await fenced(client, 1)
    (report,) = await client.status()
    assert report.phase == "held"
    print(f"dead {late_s * 1000:.0f} ms after the deadline; the fence took {report.last_fence_ms:.1f} ms")  # noqa: T201


async def test_a_primary_started_by_hand_is_killed_and_a_sealed_one_is_not(client: WatchdogClient, make_postgres: MakePostgres) -> None:
    server = make_postgres()
    await asyncio.to_thread(server.initdb)
    await guard(client, server)
    for number in (1, 2):
        await start(server, wait=False)
        await fenced(client, number)
    # Its pg_control still says "in production" while it starts and recovers: it must not be taken for writable.
    seal(server)
    await start(server)
    pid = server.pid()
    assert await asyncio.to_thread(server.psql, "SELECT pg_is_in_recovery()") == "t"
    await holds_async(lambda: server.pid() == pid, 1.5, "a sealed server lives")
    with contextlib.suppress(RuntimeError):  # killed under the query
        await asyncio.to_thread(server.psql, "SELECT pg_promote()")
    await fenced(client, 3)  # a standby promoted by hand
    assert server.processes() == ()


async def test_a_standby_without_a_deadline_lives_through_every_start(client: WatchdogClient, make_postgres: MakePostgres) -> None:
    primary, standby = make_postgres(), make_postgres()
    await asyncio.to_thread(primary.initdb)
    await start(primary)
    await asyncio.to_thread(standby.base_backup_from, primary)
    await guard(client, standby)
    for _ in range(5):
        await start(standby)
        await asyncio.to_thread(primary.wait_streaming)
        await asyncio.to_thread(standby.kill)
    assert [report.fences for report in await client.status()] == [0]


async def test_a_sealed_crashed_primary_lives_through_every_start(client: WatchdogClient, make_postgres: MakePostgres) -> None:
    server = make_postgres()
    await asyncio.to_thread(server.initdb)
    await start_armed(client, server)
    for epoch in range(2, 6):
        await asyncio.to_thread(server.kill)
        await client.release("pg")
        await start(server)
        assert await asyncio.to_thread(server.psql, "SELECT pg_is_in_recovery()") == "t"
        await arm(client, epoch, 5.0)
        await asyncio.to_thread(server.psql, "SELECT pg_promote()")
        await asyncio.to_thread(seal, server)
    assert [report.fences for report in await client.status()] == [0]


async def test_a_writable_primary_is_not_carried_into_another_epoch(client: WatchdogClient, make_postgres: MakePostgres) -> None:
    server = make_postgres()
    await asyncio.to_thread(server.initdb)
    await start_armed(client, server, epoch=1, ahead_s=5.0)
    with pytest.raises(WatchdogError, match="not proven to be not writable"):
        await arm(client, epoch=2, ahead_s=6.0)
    with pytest.raises(WatchdogError, match="not proven to be not writable"):
        await client.release("pg")
    result = await client.fence_now("pg")
    assert result.left == 0
    assert result.killed >= 5
    assert server.processes() == ()
    await arm(client, epoch=2, ahead_s=6.0)


async def test_single_user_mode_is_no_way_around(client: WatchdogClient, make_postgres: MakePostgres) -> None:
    server = make_postgres()
    await asyncio.to_thread(server.initdb)
    await guard(client, server)
    with pytest.raises(RuntimeError, match=r"failed \(-9\)"):
        await asyncio.to_thread(server.single_user, "SELECT pg_sleep(20)")


async def test_a_killed_agent_leaves_the_deadline_in_force(state: Path, make_postgres: MakePostgres) -> None:
    server = make_postgres()
    await asyncio.to_thread(server.initdb)
    seal(server)
    await start(server)
    code = f"""
import asyncio, os
from pathlib import Path
from agent.clock import SystemClock
from agent.execution.watchdog_client import WatchdogClient
async def main():
    clock = SystemClock()
    client = WatchdogClient(Path({str(state)!r}), clock)
    await client.connect(spawn=True)
    await client.register("pg", Path({str(server.data_dir)!r}), {uid_of(server)}, {BUDGET_S})
    await client.hand_over("pg", 1, clock.now().after(1.5), "n", 1)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    agent = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=30, check=False)
    deadline = time.monotonic() + 1.5
    assert agent.returncode == -signal.SIGKILL
    await asyncio.to_thread(server.psql, "SELECT pg_promote()")
    await until(lambda: not server.processes(), "fenced")
    assert time.monotonic() - deadline < BUDGET_S


async def test_a_killed_watchdog_is_seen_at_once_and_its_successor_holds(
    client: WatchdogClient, state: Path, make_postgres: MakePostgres
) -> None:
    server = make_postgres()
    await asyncio.to_thread(server.initdb)
    await start_armed(client, server, ahead_s=30.0)
    died = asyncio.Event()
    client.on_death = died.set
    kill_watchdog(state)
    killed = time.monotonic()
    async with asyncio.timeout(5):
        await died.wait()
    assert time.monotonic() - killed < 0.2
    assert len(server.processes()) > 0
    await client.connect(spawn=True)
    assert await client.adopt("pg") is None
    took_s = await until(lambda: not server.processes(), "nothing is armed in the new one: it holds")
    assert took_s < BUDGET_S


async def test_twenty_fences_under_load_are_all_in_time(client: WatchdogClient, make_postgres: MakePostgres) -> None:
    server = make_postgres()
    await asyncio.to_thread(server.initdb)
    loop = [sys.executable, "-c", "import time\nend = time.monotonic() + 100\nwhile time.monotonic() < end: pass"]
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            busy = stack.enter_context(subprocess.Popen(loop))  # noqa: ASYNC220 - it takes a millisecond, and nothing waits for this loop
            stack.callback(busy.kill)
        late = sorted([await lateness_of_one_fence(client, server, epoch) for epoch in range(1, 21)])
    fence_ms = (await client.status())[0].last_fence_ms
    numbers = f"{late[10]:.1f} ms after the deadline (median), {late[-1]:.1f} ms (worst)"
    print(f"20 fences under load: dead {numbers}; the last fence took {fence_ms:.1f} ms")  # noqa: T201
    assert late[0] >= 0
    assert late[-1] < BUDGET_S * 1000


async def lateness_of_one_fence(client: WatchdogClient, server: PostgresServer, epoch: int) -> float:
    """Milliseconds from the deadline until the tree was seen dead from outside."""
    await start_armed(client, server, epoch, 1.2)
    armed = await client.adopt("pg")
    assert armed is not None
    assert len(server.processes()) > 3
    await until(lambda: not processes_in(server.data_dir), "fenced")
    dead = CLOCK.now()
    await fenced(client, epoch)
    return (dead.boot_ns - armed.deadline.boot_ns) / 1e6


async def test_as_root_it_guards_another_users_service(client: WatchdogClient, make_postgres: MakePostgres) -> None:
    if OS_USER is None:
        left_out("no root: guarding another user's Postgres", "run the tests as root")
    server = make_postgres()
    await asyncio.to_thread(server.initdb)
    assert uid_of(server) != os.getuid()
    await client.register("pg", server.data_dir, os.getuid(), BUDGET_S)  # told wrongly: the directory's owner counts all the same
    await start(server, wait=False)
    await fenced(client, 1)
