"""The coordinator of one host: an SQLite file that all its agents share. It does not survive the loss of the host.

The same operations and the same rules as Consul, so that a demo, a test and a single machine run the real thing. Three threads with a
connection each: one writes, one reads, one watches; the event loop never waits for a disk. When a deadline passes, a change that has
not reached COMMIT is stopped and never made; one that has is UNKNOWN, and read back as after a lost answer.

Must never: make a second store silently (a deleted or replaced file is an error for ever), live on a network file system, or let a
session outlive its process: its locks are released by whichever agent looks next.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent.clock import Clock
from agent.coordination.coordinator import Committed, Refused, Snapshot, Transaction
from agent.coordination.local_file import make_if_absent
from agent.coordination.local_store import Store
from agent.coordination.shape import check_shape
from agent.errors import CoordinationError, CoordinationRefused
from agent.instant import remaining_s
from agent.worker import LateAnswer, Ticket, Withdrawn, Worker

OWN_TIMEOUT_S = 5.0
"""For calls that name no deadline of their own."""
LAST_READ_S = 1.0
"""What a wait allows its readings at least: with a hung disk it is late by this much, at most."""
WATCH_S = 0.02
"""Between two looks of a waiting agent at the store's version."""
SWEEP_LOOKS = 25
"""Looks between two searches for sessions whose process is gone, and for a file that is gone: twice a second while somebody waits."""
MAX_NAME_LENGTH = 200

T = TypeVar("T")


class Watcher:
    """A thread that looks at the store's version while anybody waits, and rings when it changed. It sleeps when nobody does."""

    def __init__(self, store: Store, on_dead_session: Callable[[], None]) -> None:
        self._store = store
        self._on_dead_session = on_dead_session
        self._bells: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._look, name="quorate-local-watch", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def bell(self) -> Iterator[asyncio.Event]:
        """An event that is set at every change of the store while the block lasts."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._bells.add(entry)
            self._wanted.set()
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._bells.discard(entry)
                if not self._bells and not self._stopped:
                    self._wanted.clear()

    def stop(self) -> None:
        """End the thread; it closes its connection."""
        with self._lock:
            self._stopped = True
            self._wanted.set()

    def _look(self) -> None:
        looks, version = 0, -1
        while not self._stopped:
            try:
                seen = self._store.version()
                if looks % SWEEP_LOOKS == 0 and self._store.has_dead_sessions():
                    self._on_dead_session()
            except CoordinationError:
                seen = version + 1  # whoever waits shall read, and hear of it
            if seen != version:
                self._ring()
            looks, version = looks + 1, seen
            time.sleep(WATCH_S)  # half the price of an event's wait, fifty times a second
            self._wanted.wait()
        self._store.close()

    def _ring(self) -> None:
        with self._lock:
            bells = tuple(self._bells)
        for loop, event in bells:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                loop.call_soon_threadsafe(event.set)


class LocalCoordinator:
    """`Coordinator` on a file of this host. Made by `open`."""

    def __init__(self, path: Path, clock: Clock, stores: tuple[Store, Store, Store], workers: tuple[Worker, Worker]) -> None:
        self._path = path
        self._clock = clock
        self._write_store, self._read_store, watch_store = stores
        self._writer, self._reader = workers
        self._watcher = Watcher(watch_store, self._sweep_later)
        self._closed = False

    @classmethod
    async def open(cls, path: Path, clock: Clock) -> LocalCoordinator:
        """Open the store at `path`, making it when there is none (for this user only: mode 0600). Raises `CoordinationRefused`."""
        writer, reader = Worker("quorate-local-write"), Worker("quorate-local-read")

        def open_stores(_: Ticket) -> tuple[Store, Store, Store]:
            where = path.parent.resolve() / path.name
            make_if_absent(where, clock.nonce() + clock.nonce(), clock.nonce())
            first = Store(where, OWN_TIMEOUT_S)
            return first, Store(where, OWN_TIMEOUT_S, first.guard), Store(where, OWN_TIMEOUT_S, first.guard)

        try:
            stores = await writer.run(open_stores, OWN_TIMEOUT_S)
        except BaseException as error:
            writer.stop()
            if isinstance(error, LateAnswer):
                raise CoordinationError(f"{path} could not be opened within {OWN_TIMEOUT_S:g} s") from None
            raise
        return cls(path, clock, stores, (writer, reader))

    @property
    def description(self) -> str:
        return f"local file {self._path}: shared by the agents of this host, it does not survive the loss of the host"

    async def identity(self) -> str:
        return await self._ask(self._reader, lambda _: self._read_store.identity(), OWN_TIMEOUT_S)

    async def open_session(self, name: str) -> str:
        if not 0 < len(name) <= MAX_NAME_LENGTH:
            raise CoordinationRefused(f"a session's name has 1 to {MAX_NAME_LENGTH} characters")
        session = self._clock.nonce() + self._clock.nonce()
        await self._change(partial(self._write_store.open_session, session, name), OWN_TIMEOUT_S)
        return session

    async def session_is_alive(self, session: str) -> bool:
        return await self._ask(self._reader, lambda _: self._read_store.session_is_alive(session), OWN_TIMEOUT_S)

    async def close_session(self, session: str) -> None:
        await self._change(partial(self._write_store.close_session, session), OWN_TIMEOUT_S)

    async def transact(self, transaction: Transaction, timeout_s: float) -> Committed | Refused:
        check_shape(transaction)
        return await self._change(partial(self._write_store.transact, transaction), timeout_s)

    async def read(self, folder: str, timeout_s: float) -> Snapshot:
        return await self._ask(self._reader, lambda _: self._read_store.read(folder), timeout_s)

    async def wait(self, folder: str, index: int, timeout_s: float) -> Snapshot:
        deadline = self._clock.now().after(timeout_s)
        left_s = timeout_s
        with self._watcher.bell() as bell:
            while True:
                bell.clear()  # before reading: a change that comes after the reading rings anew
                snapshot = await self.read(folder, max(left_s, LAST_READ_S))
                left_s = remaining_s(deadline, self._clock.now())
                if snapshot.index != index or left_s <= 0:
                    return snapshot
                try:
                    async with asyncio.timeout(left_s):  # not wait_for: on 3.11 it loses a cancellation that meets the bell
                        await bell.wait()
                except TimeoutError:
                    return snapshot

    async def close(self) -> None:
        """Close the connections. Sessions stay while this process lives."""
        if self._closed:
            return
        self._closed = True
        self._watcher.stop()
        for worker, store in ((self._reader, self._read_store), (self._writer, self._write_store)):
            with contextlib.suppress(LateAnswer):
                await worker.run(partial(_close, store), OWN_TIMEOUT_S)
            worker.stop()

    async def _change(self, change: Callable[[float, Callable[[], None]], T], timeout_s: float) -> T:
        deadline = self._clock.now().after(timeout_s)

        def work(ticket: Ticket) -> T:
            return change(remaining_s(deadline, self._clock.now()), ticket.claim)

        return await self._ask(self._writer, work, timeout_s)

    async def _ask(self, worker: Worker, work: Callable[[Ticket], T], timeout_s: float) -> T:
        if self._closed:
            raise CoordinationRefused(f"{self._path} was closed by this process")
        try:
            return await worker.run(work, timeout_s)
        except LateAnswer as late:
            outcome = "nothing was changed" if late.undone else "whether the change was made is unknown"
            raise CoordinationError(f"{self._path} did not answer within {timeout_s:g} s; {outcome}") from None

    def _sweep_later(self) -> None:
        def sweep() -> None:
            with contextlib.suppress(CoordinationError, Withdrawn):
                self._write_store.sweep(OWN_TIMEOUT_S, lambda: None)

        self._writer.post(sweep)


def _close(store: Store, _: Ticket) -> None:
    store.close()
