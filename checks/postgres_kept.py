"""Connections kept between the runs of checks: a login (scram) costs many times a question, for both sides.

All checks that ask one server as one user share what is kept there, so that fifty checks hold two of its connections, not fifty. What must
not be lost by it: a kept connection proves nothing about new ones. So (1) a run that reuses one may knock first: the server must take a
new connection and begin to talk, only the login is left out; (2) each check logs in anew after RENEW_AFTER_RUNS runs, which also follows
a name or an address that has moved to another server; (3) any failure, deadline or cancellation of a question closes its connection, and
the check logs in anew until it succeeds; (4) a connection that broke between two runs (the server was restarted) is no failure: the same
run connects anew and tells what it finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from checks.network import ProbeFailed, Progress, Reason
from checks.postgres_client import Connection, Target, connect, takes_newcomers

RENEW_AFTER_RUNS = 24
"""Two minutes of runs at the usual interval: logins then cost little."""
IDLE_LIMIT = 2
"""Kept for one server and user; two, because two checks may ask at the same time."""
T = TypeVar("T")
Question = Callable[[Connection], Awaitable[T]]
_BROKEN = frozenset({Reason.CLOSED, Reason.STOPPING})
_Key = tuple[int, Target]


@dataclass(slots=True)
class _Shelf:
    """What is kept for one server and user, the newest last, and who may use it."""

    users: set[KeptConnection] = field(default_factory=set)
    idle: list[Connection] = field(default_factory=list)


class _Shelves:
    """The process's own. A target's password is part of its key: another one means another login."""

    def __init__(self) -> None:
        self._shelves: dict[_Key, _Shelf] = {}

    def take(self, target: Target) -> Connection | None:
        shelf = self._shelves.get(_key(target))
        return shelf.idle.pop() if shelf is not None and shelf.idle else None

    async def put(self, user: KeptConnection, target: Target, connection: Connection) -> None:
        """Keep it for the next run of any check of this target; the oldest makes room."""
        shelf = self._shelves.setdefault(_key(target), _Shelf())
        shelf.users.add(user)
        shelf.idle.append(connection)
        while len(shelf.idle) > IDLE_LIMIT:
            await shelf.idle.pop(0).close()

    async def leave(self, user: KeptConnection, but: Target | None = None) -> None:
        """`user` asks here no more (but at this target); with the last user goes what is kept."""
        spared = None if but is None else _key(but)
        for key, shelf in tuple(self._shelves.items()):
            if key == spared or user not in shelf.users:
                continue
            shelf.users.discard(user)
            if not shelf.users:
                del self._shelves[key]
                for connection in shelf.idle:
                    await connection.close()


def _key(target: Target) -> _Key:
    """A connection belongs to the loop that made it."""
    return id(asyncio.get_running_loop()), target


_SHELVES = _Shelves()


class KeptConnection:
    """One check's way to its server; used by one run at a time."""

    def __init__(self, *, knocks: bool) -> None:
        self._knocks = knocks
        """Whether a run that reuses a connection asks if new ones are taken."""
        self._runs = RENEW_AFTER_RUNS
        """Since the own last login; a failure makes the next one due."""
        self._target: Target | None = None
        self._closed = False

    async def ask(self, target: Target, progress: Progress, question: Question[T]) -> T:
        """`question`'s answer, over a kept connection or a new one. Raises ProbeFailed; the caller keeps the deadline."""
        runs, self._runs = self._runs, RENEW_AFTER_RUNS
        if target != self._target:
            await _SHELVES.leave(self, but=target)
            runs, self._target = RENEW_AFTER_RUNS, target
        kept = None if runs >= RENEW_AFTER_RUNS else await self._take(target, progress)
        if kept is not None:
            try:
                answer = await self._ask_over(kept, target, question)
            except ProbeFailed as failed:
                if failed.failure.reason not in _BROKEN:
                    raise
                progress.log.add("the kept connection is broken: connecting anew")
            else:
                self._runs = runs + 1
                return answer
        answer = await self._ask_over(await connect(target, progress), target, question)
        self._runs = 0
        return answer

    async def close(self) -> None:
        """Give up what is kept, unless another check still uses it; later runs work, but keep nothing."""
        self._closed = True
        await _SHELVES.leave(self)

    async def _take(self, target: Target, progress: Progress) -> Connection | None:
        """A kept connection that may be reused: a new one would be taken, as far as can be told without a login."""
        kept = _SHELVES.take(target)
        if kept is None or not self._knocks:
            return kept
        progress.enter("knocking")
        try:
            is_fit = await takes_newcomers(kept, target)
        except BaseException:
            await kept.close()
            raise
        if is_fit:
            return kept
        # Not closed: that would make room on a full server for ourselves only, and this run would find it well.
        await _SHELVES.put(self, target, kept)
        return None

    async def _ask_over(self, connection: Connection, target: Target, question: Question[T]) -> T:
        try:
            answer = await question(connection)
        except BaseException:
            await connection.close()
            raise
        if self._closed:
            await connection.close()
        else:
            await _SHELVES.put(self, target, connection)
        return answer
