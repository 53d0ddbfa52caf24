import asyncio
import socket
from pathlib import Path

import psycopg
import pytest

from actions.base import ActionError, ActionTimeout
from actions.postgres_instance import Login, Upstream
from actions.postgres_session import PostgresSession, upstream_connection, words_of
from tests.servers.misbehaving import hung, refused
from tests.unit.actions.examples import instance


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('connection failed: connection to server at "::1" failed: FATAL:  no such role\nmore', "no such role"),
        ("connection failed: nobody there", "nobody there"),
        ("first\nsecond", "first"),
        ("", "OperationalError"),
    ],
)
def test_an_errors_first_words(said: str, words: str) -> None:
    assert words_of(psycopg.OperationalError(said)) == words


async def test_nobody_at_the_socket_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ActionError, match=r"Postgres on port 5432 takes no connection: .*No such file"):
        await PostgresSession(instance(socket_dir=tmp_path)).rows("SELECT 1")


async def test_a_listener_that_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / ".s.PGSQL.5432"))
        listener.listen()
        session = PostgresSession(instance(socket_dir=tmp_path))
        with pytest.raises(ActionTimeout, match=r"did not answer within 0.2 s"):
            await asyncio.wait_for(session.rows("SELECT 1", timeout_s=0.2), 2)
        await session.drop()


async def test_an_upstream_that_hangs_or_refuses_is_named_without_the_password() -> None:
    login = Login("u", "hunter2")
    async with hung() as port:
        with pytest.raises(ActionTimeout, match=rf"n2 at 127.0.0.1:{port} did not answer within 0.2 s"):
            async with upstream_connection(instance(), Upstream("n2", "127.0.0.1", port), login, 0.2):
                pass
    with refused() as port, pytest.raises(ActionError, match="takes no connection as u: ") as caught:
        async with upstream_connection(instance(), Upstream("n2", "127.0.0.1", port), login, 2):
            pass
    assert "hunter2" not in str(caught.value)
