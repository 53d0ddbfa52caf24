"""What is the local coordinator's own: deadlines, the watching thread, a file that is taken away."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.coordination import local
from agent.coordination.coordinator import Committed, Coordinator, Operation, Snapshot, Verb
from agent.coordination.local import LocalCoordinator
from agent.coordination.local_file import make_if_absent
from agent.errors import CoordinationError, CoordinationRefused
from tests.polling import eventually_async

pytestmark = pytest.mark.slow


async def begin_wait(coordinator: LocalCoordinator) -> asyncio.Task[Snapshot]:
    """A wait that is under way: the one reader did its first look before it did this reading."""
    task = asyncio.create_task(coordinator.wait("pg/", (await coordinator.read("pg/", 5)).index, 60))
    await coordinator.read("pg/", 5)
    await coordinator.read("pg/", 5)
    assert not task.done()
    return task


DESCRIPTORS = Path("/proc/self/fd")
PUT = (Operation(Verb.SET, "pg/key", value=b"1"),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def coordinator(path: Path) -> AsyncIterator[LocalCoordinator]:
    coordinator = await LocalCoordinator.open(path, SystemClock())
    yield coordinator
    await coordinator.close()


async def test_it_is_a_coordinator_and_says_what_it_does_not_survive(coordinator: LocalCoordinator) -> None:
    contract: Coordinator = coordinator
    assert "does not survive the loss of the host" in contract.description


async def test_the_identity_is_the_files_and_outlives_all_clients(coordinator: LocalCoordinator, path: Path) -> None:
    identity = await coordinator.identity()
    assert len(identity) == 32
    await coordinator.close()
    again = await LocalCoordinator.open(path, SystemClock())
    assert await again.identity() == identity
    await again.close()


async def test_a_path_that_cannot_be_used_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CoordinationRefused, match="cannot be made"):
        await LocalCoordinator.open(tmp_path / "absent" / "store.db", SystemClock())
    (tmp_path / "text").write_text("text", encoding="ascii")
    with pytest.raises(CoordinationRefused, match="no quorate store"):
        await LocalCoordinator.open(tmp_path / "text", SystemClock())


async def test_a_deadline_that_passes_before_the_turn_comes_means_nothing_is_ever_done(coordinator: LocalCoordinator, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        late = [asyncio.create_task(coordinator.transact(PUT, 0.1)) for _ in range(3)]
        results = await asyncio.gather(*late, return_exceptions=True)
        assert all(isinstance(result, CoordinationError) for result in results)
        assert all("nothing was changed" in str(result) for result in results)
        other.execute("COMMIT")
    # the writer does one job after the other: when this one is answered, those before it are over
    assert isinstance(await coordinator.transact((Operation(Verb.SET, "pg/else", value=b"1"),), 5), Committed)
    assert set((await coordinator.read("", 5)).entries) == {"pg/else"}


async def test_a_hung_store_does_not_stop_the_loop(coordinator: LocalCoordinator, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(coordinator.transact(PUT, 0.5))
        turns_s: list[float] = []

        def note_turn() -> bool:
            turns_s.append(time.monotonic())
            return task.done()

        await eventually_async(note_turn, 5)
        with pytest.raises(CoordinationError):
            await task
    assert max(later - earlier for earlier, later in pairwise(turns_s)) < 0.25


@pytest.mark.parametrize("ticks", range(5))
async def test_a_cancel_that_meets_a_ringing_bell_is_not_lost(coordinator: LocalCoordinator, ticks: int) -> None:
    task = await begin_wait(coordinator)
    next(iter(coordinator._watcher._bells))[1].set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await task


async def test_a_wait_on_a_cancelled_task_leaves_no_bell(coordinator: LocalCoordinator) -> None:
    task = await begin_wait(coordinator)
    assert coordinator._watcher._bells
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not coordinator._watcher._bells
    assert not coordinator._watcher._wanted.is_set(), "it looks though nobody waits"


async def test_a_change_right_after_a_look_is_not_missed(
    coordinator: LocalCoordinator, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, read = await LocalCoordinator.open(path, SystemClock()), coordinator.read
    index = (await coordinator.read("pg/", 5)).index

    async def read_then_change(folder: str, timeout_s: float) -> Snapshot:
        snapshot = await read(folder, timeout_s)
        if not snapshot.entries:
            await writer.transact(PUT, 5)
            await next(iter(coordinator._watcher._bells))[1].wait()
        return snapshot

    monkeypatch.setattr(coordinator, "read", read_then_change)
    async with asyncio.timeout(5):
        assert (await coordinator.wait("pg/", index, 60)).entries
    await writer.close()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_a_file_that_is_taken_away_is_an_error_for_every_call(coordinator: LocalCoordinator, path: Path, how: str) -> None:
    session = await coordinator.open_session("one")
    await coordinator.wait("pg/", (await coordinator.read("pg/", 5)).index, 0.1)  # the watching thread has seen all changes of before
    waiting = await begin_wait(coordinator)
    if how == "deleted":
        path.unlink()
    else:
        make_if_absent(path.with_name("other.db"), "other", "draft")
        path.with_name("other.db").replace(path)
    with pytest.raises(CoordinationError, match="deleted or replaced"):
        async with asyncio.timeout(5):
            await waiting
    calls = (
        coordinator.transact(PUT, 5),
        coordinator.read("pg/", 5),
        coordinator.identity(),
        coordinator.open_session("two"),
        coordinator.session_is_alive(session),
        coordinator.close_session(session),
    )
    for call in calls:
        with pytest.raises(CoordinationError, match="deleted or replaced"):
            await call


async def test_a_wait_notices_a_session_whose_process_is_gone(coordinator: LocalCoordinator, path: Path) -> None:
    session = await coordinator.open_session("one")
    await coordinator.transact((Operation(Verb.LOCK, "pg/key", session=session, value=b"1"),), 5)
    waiting = await begin_wait(coordinator)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE sessions SET started = 1")  # its pid is somebody else's by now
    async with asyncio.timeout(5):
        assert (await waiting).entries["pg/key"].session is None


async def test_closing_under_a_wait_ends_the_watching_thread(coordinator: LocalCoordinator) -> None:
    waiting = await begin_wait(coordinator)
    await coordinator.close()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.to_thread(coordinator._watcher._thread.join, 5)
    assert not coordinator._watcher._thread.is_alive()


async def test_a_disk_that_hangs_at_the_start_is_one_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "OWN_TIMEOUT_S", 0.0)
    with pytest.raises(CoordinationError, match="could not be opened within 0 s"):
        await LocalCoordinator.open(path, SystemClock())


async def test_a_wait_wakes_within_two_looks_of_a_change(coordinator: LocalCoordinator, path: Path) -> None:
    writer = await LocalCoordinator.open(path, SystemClock())
    delays_s = []
    for number in range(15):
        waiting = await begin_wait(coordinator)
        await writer.transact((Operation(Verb.SET, "pg/key", value=str(number).encode()),), 5)
        committed = time.monotonic()
        await waiting
        delays_s.append(time.monotonic() - committed)
    await writer.close()
    assert statistics.median(delays_s) < 0.04


async def test_an_idle_wait_is_no_busy_loop(coordinator: LocalCoordinator) -> None:
    index = (await coordinator.read("pg/", 5)).index
    before, started = time.process_time(), time.monotonic()
    await coordinator.wait("pg/", index, 1.0)
    assert (time.process_time() - before) / (time.monotonic() - started) < 0.05


async def test_session_names_are_bounded(coordinator: LocalCoordinator) -> None:
    for name in ("", "x" * 201):
        with pytest.raises(CoordinationRefused, match="1 to 200"):
            await coordinator.open_session(name)


async def test_a_closed_client_says_so_and_may_be_closed_twice(coordinator: LocalCoordinator) -> None:
    await coordinator.close()
    await coordinator.close()
    with pytest.raises(CoordinationRefused, match="closed"):
        await coordinator.read("pg/", 5)


async def test_closing_gives_all_descriptors_back(path: Path) -> None:
    before = len(list(DESCRIPTORS.iterdir()))
    coordinator = await LocalCoordinator.open(path, SystemClock())
    await coordinator.transact(PUT, 5)
    await coordinator.wait("pg/", 0, 5)
    await coordinator.close()
    await eventually_async(lambda: len(list(DESCRIPTORS.iterdir())) <= before, 5, "the watching thread closes its own")
