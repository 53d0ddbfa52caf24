"""Connections: one kept admin session over the local socket, and short ones to an upstream.

Every question has a deadline that holds even when the server is frozen: psycopg, when cancelled, first asks the server to cancel and waits
for it (6 s were seen for a deadline of 1 s), so here the socket is shut instead. A session that failed is dropped; the next question opens
a new one. Passwords go to libpq by argument and stand in no message.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import LiteralString, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg.sql import Composed

from actions.base import ActionError, ActionTimeout
from actions.postgres_instance import Login, PostgresInstance, Upstream

Connection = psycopg.AsyncConnection[TupleRow]
T = TypeVar("T")

_CUT_GRACE_S = 1.0
_NO_WAIT = "-c synchronous_commit=local"
"""The admin session never waits for a standby to acknowledge."""


class PostgresSession:
    """The kept admin session. One task at a time talks; others wait their turn."""

    def __init__(self, instance: PostgresInstance) -> None:
        self._instance = instance
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()

    async def connection(self, timeout_s: float) -> Connection:
        """The open connection (autocommit), or a new one. Raises ActionTimeout or ActionError; a dead one is found when it is used."""
        async with self._opening:
            if self._connection is None or self._connection.closed:
                self._connection = await self._open(timeout_s)
            return self._connection

    async def _open(self, timeout_s: float) -> Connection:
        options = f"{_NO_WAIT} -c statement_timeout={round(max(1.0, self._instance.query_timeout_s) * 1000)}"
        conninfo = self._instance.local_conninfo
        try:
            async with asyncio.timeout(timeout_s):
                return await _connect(conninfo, self._instance.admin, options=options)
        except TimeoutError:
            raise ActionTimeout(f"Postgres on port {self._instance.port} did not answer within {timeout_s:g} s") from None
        except psycopg.Error as error:
            raise ActionError(f"Postgres on port {self._instance.port} takes no connection: {words_of(error)}") from None

    async def rows(
        self, query: LiteralString | Composed, parameters: Sequence[object] = (), *, timeout_s: float | None = None, once: bool = False
    ) -> list[TupleRow]:
        """Ask one question. A kept connection that turns out dead is opened anew and asked again, unless `once`.

        Raises ActionTimeout, ActionError when there is no connection, psycopg.Error with the server's own refusal.
        """
        limit_s = self._instance.query_timeout_s if timeout_s is None else timeout_s
        kept = self._connection
        connection = await self.connection(limit_s)
        try:
            return await self._ask(connection, query, parameters, limit_s)
        except psycopg.OperationalError:
            await self.drop()
            if once or connection is not kept:
                raise
        return await self._ask(await self.connection(limit_s), query, parameters, limit_s)

    async def _ask(
        self, connection: Connection, query: LiteralString | Composed, parameters: Sequence[object], timeout_s: float
    ) -> list[TupleRow]:
        try:
            return await within(connection, fetch(connection, query, parameters), timeout_s)
        except (ActionTimeout, asyncio.CancelledError):
            await self.drop()
            raise

    async def live_connection(self, timeout_s: float) -> Connection:
        """The connection, seen to answer just now."""
        await self.rows("SELECT 1", timeout_s=timeout_s)
        return await self.connection(timeout_s)

    async def drop(self) -> None:
        """Close the connection; the next question opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def _connect(conninfo: str, login: Login, **more: str) -> Connection:
    """The library's own cancellation is fit for this: nothing was asked yet."""
    full = make_conninfo(conninfo, **more)
    return await psycopg.AsyncConnection.connect(full, autocommit=True, prepare_threshold=None, password=login.password)


@asynccontextmanager
async def upstream_connection(
    instance: PostgresInstance, upstream: Upstream, login: Login, timeout_s: float, *, replication: bool = False
) -> AsyncIterator[Connection]:
    """A short connection to `upstream`. Raises ActionTimeout or ActionError in one sentence when it cannot be had."""
    where = f"{upstream.node} at {upstream.host}:{upstream.port}"
    try:
        async with asyncio.timeout(timeout_s):
            conninfo = instance.remote_conninfo(upstream, login, None if replication else instance.database)
            connection = await _connect(conninfo, login, **({"replication": "true"} if replication else {}))
    except TimeoutError:
        raise ActionTimeout(f"{where} did not answer within {timeout_s:g} s") from None
    except psycopg.Error as error:
        raise ActionError(f"{where} takes no connection as {login.user}: {words_of(error)}") from None
    try:
        yield connection
    finally:
        await connection.close()


async def fetch(connection: Connection, query: LiteralString | Composed, parameters: Sequence[object] = ()) -> list[TupleRow]:
    """All rows of one question; none for a statement that returns nothing. No deadline: see `within`."""
    cursor = await connection.execute(query, parameters or None)
    return [] if cursor.description is None else await cursor.fetchall()


async def within(connection: Connection, question: Coroutine[object, object, T], timeout_s: float) -> T:
    """Await `question` on `connection`; after `timeout_s`, or when cancelled, shut its socket, so that nothing waits for the server."""
    task = asyncio.ensure_future(question)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        await _cut(connection, task)
        raise
    if not done:
        await _cut(connection, task)
        raise ActionTimeout(f"Postgres gave no answer within {timeout_s:g} s")
    return task.result()


async def _cut(connection: Connection, task: asyncio.Future[T]) -> None:
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as handle:
        handle.shutdown(socket.SHUT_RDWR)
    await asyncio.wait({task}, timeout=_CUT_GRACE_S)
    if task.done() and not task.cancelled():
        task.exception()


def words_of(error: BaseException) -> str:
    """An error's first telling line, without libpq's preface."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return first.rpartition("FATAL:  ")[2].removeprefix("connection failed: ")
