import asyncio

import psycopg
import pytest

from actions.base import ActionError, ActionTimeout, Guard
from actions.postgres_action import PostgresAction
from actions.postgres_session import PostgresSession
from tests.guards import GUARD
from tests.unit.actions.examples import instance


class Example(PostgresAction[int]):
    name = "example"
    timeout_s = 0.1
    why = ""

    def __init__(self, raised: BaseException | None = None) -> None:
        super().__init__(instance(), PostgresSession(instance()))
        self.raised = raised

    async def is_done(self) -> bool:
        return False

    async def verify(self) -> None:
        return

    def lateness(self) -> str:
        return self.why

    async def _apply(self, guard: Guard) -> int:
        await guard.step("only")
        if self.raised is not None:
            raise self.raised
        await asyncio.Event().wait()
        return 1


async def test_the_deadline_is_total_and_says_why_when_it_is_known() -> None:
    action = Example()
    with pytest.raises(ActionTimeout, match=r"^example took longer than 0.1 s$"):
        await action.apply(GUARD)
    action.why = "replay is blocked"
    with pytest.raises(ActionTimeout, match=r"0\.1 s: replay is blocked"):
        await action.apply(GUARD)


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        (psycopg.errors.InsufficientPrivilege("must be superuser"), "example: Postgres refused: must be superuser"),
        (PermissionError(1, "Operation not permitted", "/data/x"), "example: Operation not permitted (/data/x)"),
        (ActionError("as it is"), "as it is"),
    ],
)
async def test_every_failure_is_one_sentence(raised: Exception, sentence: str) -> None:
    with pytest.raises(ActionError) as caught:
        await Example(raised).apply(GUARD)
    assert str(caught.value) == sentence


async def test_a_cancellation_goes_through() -> None:
    with pytest.raises(asyncio.CancelledError):
        await Example(asyncio.CancelledError()).apply(GUARD)


async def test_nothing_is_undone_of_what_never_makes_it_writable() -> None:
    assert await Example().undo() is None  # type: ignore[func-returns-value]
