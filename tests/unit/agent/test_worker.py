from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from agent.worker import QUEUE_LIMIT, LateAnswer, Ticket, Withdrawn, Worker
from tests.polling import eventually_async


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test")
    yield worker
    worker.stop()


async def test_a_job_runs_in_the_thread_and_its_result_comes_back(worker: Worker) -> None:
    assert await worker.run(lambda _: threading.current_thread().name, 5) == "test"


async def test_what_a_job_raises_comes_back(worker: Worker) -> None:
    def fail(_: Ticket) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await worker.run(fail, 5)
    assert await worker.run(lambda _: 1, 5) == 1


async def test_jobs_are_done_one_after_the_other(worker: Worker) -> None:
    done: list[int] = []
    await asyncio.gather(*(worker.run(lambda _, n=n: done.append(n), 5) for n in range(20)))  # type: ignore[misc]
    assert done == list(range(20))


async def test_a_late_job_that_has_not_claimed_is_stopped_and_the_next_is_never_begun(worker: Worker) -> None:
    go, begun = threading.Event(), []

    def hang(ticket: Ticket) -> None:
        go.wait(10)
        with pytest.raises(Withdrawn):
            ticket.claim()
        begun.append("stopped before its change")

    with pytest.raises(LateAnswer) as late:
        await worker.run(hang, 0.05)
    assert late.value.undone
    with pytest.raises(LateAnswer) as queued:
        await worker.run(lambda _: begun.append("begun"), 0.05)
    assert queued.value.undone
    go.set()
    await worker.run(lambda _: None, 5)
    assert begun == ["stopped before its change"]


async def test_a_late_job_that_has_claimed_is_unknown(worker: Worker) -> None:
    go = threading.Event()

    def hang(ticket: Ticket) -> None:
        ticket.claim()
        go.wait(10)

    with pytest.raises(LateAnswer) as late:
        await worker.run(hang, 0.05)
    assert not late.value.undone
    go.set()


async def test_a_cancelled_caller_withdraws_its_job(worker: Worker) -> None:
    go, begun = threading.Event(), threading.Event()
    refused: list[bool] = []

    def hang(ticket: Ticket) -> None:
        begun.set()
        go.wait(10)
        refused.append(ticket.withdrawn)

    task = asyncio.create_task(worker.run(hang, 10))
    await eventually_async(begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await worker.run(lambda _: None, 5)
    assert refused == [True]


async def test_a_hung_worker_takes_a_bounded_number_of_jobs(worker: Worker) -> None:
    go = threading.Event()

    def hang() -> None:
        go.wait(10)

    while worker.post(hang):
        pass
    assert worker._jobs.qsize() == QUEUE_LIMIT
    with pytest.raises(LateAnswer) as late:
        await worker.run(lambda _: None, 60)
    assert late.value.undone
    go.set()


async def test_a_stopped_worker_takes_nothing_and_its_thread_ends(worker: Worker) -> None:
    await worker.run(lambda _: None, 5)
    worker.stop()
    with pytest.raises(LateAnswer):
        await worker.run(lambda _: None, 5)
    worker._thread.join(5)
    assert not worker._thread.is_alive()


def test_an_answer_for_a_closed_loop_is_dropped() -> None:
    worker, go, done = Worker("test"), threading.Event(), threading.Event()

    def hang(_: Ticket) -> None:
        go.wait(10)

    async def leave() -> None:
        with pytest.raises(LateAnswer):
            await worker.run(hang, 0.01)

    asyncio.run(leave())
    go.set()
    worker.post(done.set)
    assert done.wait(5)
    worker.stop()
