from __future__ import annotations

import asyncio
import math
import socket

import pytest

from agent.clock import SystemClock
from agent.demo import writer as writer_module
from agent.demo.throwaway_postgres import free_port
from agent.demo.writer import Ledger, Writer
from tests.polling import eventually_async


def ledger(*times: float) -> Ledger:
    return Ledger(dict(enumerate(times)))


@pytest.mark.parametrize(
    ("times", "after_s", "outage_s"),
    [
        ((), 0, math.inf),
        ((1.0,), 0, math.inf),
        ((1.0, 1.1, 1.2), 5, math.inf),
        ((1.0, 1.1, 3.1, 3.2), 1.5, 2.0),
        ((1.0, 1.1, 3.1, 3.2), 3.15, 0.1),
        ((0.0, 9.0, 10.0, 12.0, 12.1), 9.5, 2.0),
        ((3.2, 1.0, 3.1, 1.1), 1.5, 2.0),
    ],
)
def test_the_outage_is_the_longest_silence_that_ended_after_the_kill(times: tuple[float, ...], after_s: float, outage_s: float) -> None:
    assert ledger(*times).outage_s(after_s) == pytest.approx(outage_s)


async def test_without_a_server_nothing_is_acknowledged_and_it_tries_on() -> None:
    writer = Writer(f"host=127.0.0.1 port={free_port()} user=nobody dbname=x", 0.001, SystemClock())
    writing = asyncio.create_task(writer.run())
    await eventually_async(lambda: writer.ledger.refused >= 3, 10)
    writer.stop()
    async with asyncio.timeout(10):
        await writing
    assert writer.ledger.acknowledged == {}


async def test_a_server_that_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "CONNECT_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        writer = Writer(f"host=127.0.0.1 port={silent.getsockname()[1]} user=nobody dbname=x", 0.001, SystemClock())
        writing = asyncio.create_task(writer.run())
        await eventually_async(lambda: writer.ledger.refused >= 2, 10)
        writer.stop()
        async with asyncio.timeout(10):
            await writing


class Still:
    """A connection that acknowledges or fails as told."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.error: Exception | None = None
        self.closed = 0

    async def execute(self, sql: str, row: tuple[int]) -> None:
        assert sql.startswith("INSERT INTO quorate_demo")
        if self.error is not None:
            raise self.error
        self.rows.append(row[0])

    async def close(self) -> None:
        self.closed += 1


async def test_a_row_is_in_the_ledger_when_it_was_acknowledged_and_never_sent_twice() -> None:
    writer, connection = Writer("", 0.01, SystemClock()), Still()
    writer._connection = connection  # type: ignore[assignment]
    await writer._write_one()
    before_s = writer.now_s()
    await writer._write_one()
    assert list(writer.ledger.acknowledged) == [1, 2]
    assert before_s <= writer.ledger.acknowledged[2] <= writer.now_s()
    connection.error = OSError("the connection broke")
    await writer._write_one()
    assert (writer.ledger.refused, connection.closed, writer._connection) == (1, 1, None)
    connection.error = None
    writer._connection = connection  # type: ignore[assignment]
    await writer._write_one()
    assert connection.rows == [1, 2, 4]
    assert set(writer.ledger.acknowledged) == {1, 2, 4}


async def test_a_row_without_an_answer_in_time_is_not_in_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "STATEMENT_TIMEOUT_S", 0.01)
    writer, connection = Writer("", 0.01, SystemClock()), Still()
    writer._connection = connection  # type: ignore[assignment]

    async def hang(_sql: str, _row: tuple[int]) -> None:
        await asyncio.Event().wait()

    connection.execute = hang  # type: ignore[method-assign,assignment]
    await writer._write_one()
    assert (writer.ledger.acknowledged, writer.ledger.refused, connection.closed) == ({}, 1, 1)
