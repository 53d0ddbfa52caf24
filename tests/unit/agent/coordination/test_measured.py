from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.coordination.coordinator import Committed, Operation, Refused, Verb
from agent.coordination.local import LocalCoordinator
from agent.coordination.measured import MeasuredCoordinator, Request, RequestOutcome
from agent.errors import CoordinationError

Told = list[tuple[Request, RequestOutcome]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
async def measured(tmp_path: Path, told: Told) -> AsyncIterator[MeasuredCoordinator]:
    def note(request: Request, outcome: RequestOutcome, duration_s: float) -> None:
        assert duration_s > 0
        told.append((request, outcome))

    inner = await LocalCoordinator.open(tmp_path / "c.sqlite", SystemClock())
    yield MeasuredCoordinator(inner, SystemClock(), note)
    await inner.close()


async def test_answers_are_passed_on_and_told(measured: MeasuredCoordinator, told: Told) -> None:
    write = Operation(Verb.CAS, "g/key", index=0, value=b"1")
    assert isinstance(await measured.transact((write,), 5), Committed)
    assert isinstance(await measured.transact((write,), 5), Refused)
    snapshot = await measured.read("g/", 5)
    assert snapshot.entries["g/key"].value == b"1"
    session = await measured.open_session("test")
    assert await measured.session_is_alive(session)
    await measured.close_session(session)
    assert told == [
        (Request.TRANSACT, RequestOutcome.ANSWERED),
        (Request.TRANSACT, RequestOutcome.REFUSED),
        (Request.READ, RequestOutcome.ANSWERED),
        *[(Request.SESSION, RequestOutcome.ANSWERED)] * 3,
    ]
    assert measured.description
    assert await measured.identity()


async def test_waiting_is_not_told(measured: MeasuredCoordinator, told: Told) -> None:
    await measured.wait("g/", 0, 0.05)
    assert told == []


async def test_a_lost_answer_is_unknown(measured: MeasuredCoordinator, told: Told) -> None:
    await measured.close()
    with pytest.raises(CoordinationError):
        await measured.read("g/", 0.2)
    assert told[0][0] is Request.READ
    assert told[0][1] is not RequestOutcome.ANSWERED
