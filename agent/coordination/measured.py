"""A coordinator whose answers are timed: passes everything on and tells how long each question took and how it was answered.

Waiting for a change is not timed: it takes as long as nothing happens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeVar

from agent.clock import Clock
from agent.coordination.coordinator import Committed, Coordinator, Refused, Snapshot, Transaction
from agent.errors import CoordinationError, CoordinationRefused
from agent.instant import holder_elapsed_s

T = TypeVar("T")


class Request(StrEnum):
    """What was asked of the coordinator."""

    READ = "read"
    TRANSACT = "transact"
    SESSION = "session"


class RequestOutcome(StrEnum):
    """How the coordinator answered."""

    ANSWERED = "answered"
    REFUSED = "refused"
    UNKNOWN = "unknown"


Told = Callable[[Request, RequestOutcome, float], None]


class MeasuredCoordinator:
    """Implements Coordinator over another one. `told` is called after each answer; it must not block."""

    def __init__(self, inner: Coordinator, clock: Clock, told: Told) -> None:
        self._inner = inner
        self._clock = clock
        self._told = told

    @property
    def description(self) -> str:
        return self._inner.description

    async def identity(self) -> str:
        return await self._timed(Request.READ, self._inner.identity())

    async def open_session(self, name: str) -> str:
        return await self._timed(Request.SESSION, self._inner.open_session(name))

    async def session_is_alive(self, session: str) -> bool:
        return await self._timed(Request.SESSION, self._inner.session_is_alive(session))

    async def close_session(self, session: str) -> None:
        await self._timed(Request.SESSION, self._inner.close_session(session))

    async def transact(self, transaction: Transaction, timeout_s: float) -> Committed | Refused:
        return await self._timed(Request.TRANSACT, self._inner.transact(transaction, timeout_s))

    async def read(self, folder: str, timeout_s: float) -> Snapshot:
        return await self._timed(Request.READ, self._inner.read(folder, timeout_s))

    async def wait(self, folder: str, index: int, timeout_s: float) -> Snapshot:
        return await self._inner.wait(folder, index, timeout_s)

    async def close(self) -> None:
        await self._inner.close()

    async def _timed(self, request: Request, question: Awaitable[T]) -> T:
        began, outcome = self._clock.now(), RequestOutcome.UNKNOWN
        try:
            answer = await question
            outcome = RequestOutcome.REFUSED if isinstance(answer, Refused) else RequestOutcome.ANSWERED
        except CoordinationRefused:
            outcome = RequestOutcome.REFUSED
            raise
        except CoordinationError:
            raise
        finally:
            self._told(request, outcome, holder_elapsed_s(began, self._clock.now()))
        return answer
