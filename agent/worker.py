"""A thread that does one blocking job after the other, so that no disk ever stops the event loop.

A disk can hang for minutes. Then the loop goes on: whoever waits gets `LateAnswer` at its deadline, and learns whether the job was
stopped before its change (`undone`) or may still happen. A job that nobody waits for any more is never begun. The queue is bounded,
and the thread is a daemon: a hung disk never keeps the agent from exiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

QUEUE_LIMIT = 64

T = TypeVar("T")


class LateAnswer(Exception):
    """The job did not end in time. `undone`: it changed nothing and never will; else it may yet."""

    def __init__(self, undone: bool) -> None:
        super().__init__("the job did not end in time")
        self.undone = undone


class Withdrawn(Exception):
    """Raised inside a job by `claim`: nobody waits any more, so nothing may be changed."""


class Ticket:
    """What a job shows before it makes its change final. Whoever gave up waiting has withdrawn it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claimed = False
        self._withdrawn = False

    @property
    def withdrawn(self) -> bool:
        return self._withdrawn

    def claim(self) -> None:
        """Call right before the change becomes final. Raises `Withdrawn`."""
        with self._lock:
            if self._withdrawn:
                raise Withdrawn
            self._claimed = True

    def withdraw(self) -> bool:
        """Stop the job if it has not claimed yet; whether it was stopped."""
        with self._lock:
            self._withdrawn = not self._claimed
            return self._withdrawn


class Worker:
    """One thread and its bounded queue. The thread starts with the first job."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.Queue[Callable[[], object]] = queue.Queue(QUEUE_LIMIT)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._stopped = False

    async def run(self, work: Callable[[Ticket], T], timeout_s: float) -> T:
        """The result of `work`, done in the thread. Raises what it raises, or `LateAnswer`: at once when the queue is full."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        ticket = Ticket()

        def job() -> None:
            if ticket.withdrawn:
                return
            try:
                result = work(ticket)
            except Exception as error:  # noqa: BLE001 - it is handed to whoever waits
                _deliver(loop, future, partial(future.set_exception, error))
            else:
                _deliver(loop, future, partial(future.set_result, result))

        if not self.post(job):
            raise LateAnswer(undone=True)
        try:
            await asyncio.wait({future}, timeout=timeout_s)
            if future.done():
                return future.result()
            raise LateAnswer(undone=ticket.withdraw())
        finally:
            ticket.withdraw()
            future.cancel()

    def post(self, job: Callable[[], object]) -> bool:
        """Do `job` later, for nobody in particular; it must not raise. False: the queue is full, it will not be done."""
        if self._stopped:
            return False
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            return False
        with contextlib.suppress(RuntimeError):  # it runs already
            self._thread.start()
        return True

    def stop(self) -> None:
        """End the thread after the job it is doing; what still waits is not done."""
        self._stopped = True
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(lambda: None)

    def _serve(self) -> None:
        while not self._stopped:
            self._jobs.get()()


def _deliver(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], settle: Callable[[], None]) -> None:
    def settle_if_awaited() -> None:
        if not future.done():
            settle()

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(settle_if_awaited)
