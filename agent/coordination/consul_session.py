"""The sessions of one client on Consul: named for whose they are, renewed for as long as the client lives, swept when lost.

A session's name says which life of which process on which machine opened it. So a session that nobody owns (its answer was lost, or its
process is gone) can be told from one that is in use, and is ended by the next client that opens one under the same name on this machine.
Must never end a session that a living process may own, and never count a renewal for anything: the lease lives by its record alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import astuple

import structlog

from agent.coordination.consul_client import ConsulClient
from agent.coordination.consul_requests import (
    SESSION_TTL_S,
    KnownSession,
    create_session,
    destroy_session,
    list_sessions,
    renew_session,
)
from agent.coordination.node_state import machine_id
from agent.coordination.process_life import Life, is_over, own_life
from agent.errors import CoordinationError, CoordinationRefused

log = structlog.get_logger()

MAX_NAME_LENGTH = 200
RENEW_EVERY_S = SESSION_TTL_S / 3
RENEW_AGAIN_S = 1.0
"""After a renewal that failed: three more fit into what is left."""
RENEW_TIMEOUT_S = 2.0
MARK = "quorate "
"""How the names of all our sessions begin."""


class Sessions:
    """The sessions that this client opened. `nonce` tells it from other clients of the same process, `prefix` from other installations."""

    def __init__(self, client: ConsulClient, nonce: str, prefix: str = "") -> None:
        self._client = client
        self._nonce = nonce
        self._prefix = prefix
        self._machine = machine_id()
        self._here = own_life()
        self._open: set[str] = set()
        self._opening = asyncio.Lock()
        self._renewals: asyncio.Task[None] | None = None

    async def open(self, name: str, timeout_s: float) -> str:
        """A new session; sessions of this name that nobody owns any more are ended."""
        if not 0 < len(name) <= MAX_NAME_LENGTH:
            raise CoordinationRefused(f"a session's name has 1 to {MAX_NAME_LENGTH} characters")
        async with self._opening:
            session = await self._client.ask(create_session(self._full_name(name)), timeout_s)
            self._open.add(session)
            if self._renewals is None:
                self._renewals = asyncio.create_task(self._renew_for_ever(), name="consul sessions")
            with contextlib.suppress(CoordinationError):  # they end by themselves when nobody renews them
                await self._sweep(name, timeout_s)
        return session

    async def close_session(self, session: str, timeout_s: float) -> None:
        """End it; its locks are released at once."""
        self._open.discard(session)
        await self._client.ask(destroy_session(session), timeout_s)

    async def close(self) -> None:
        """Renew no more. The sessions stay for what is left of their time."""
        if self._renewals is not None:
            self._renewals.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewals

    def _full_name(self, name: str) -> str:
        return MARK + json.dumps([self._prefix + name, self._machine, self._nonce, *astuple(self._here)])

    async def _sweep(self, name: str, timeout_s: float) -> None:
        for session in await self._client.ask(list_sessions(), timeout_s):
            if self._is_orphan(session, name):
                log.info("session.swept", session=session.identity, name=name)
                await self._client.ask(destroy_session(session.identity), timeout_s)

    def _is_orphan(self, session: KnownSession, name: str) -> bool:
        """Opened under this name on this machine, by a process that is gone or by this very client, which does not know it."""
        try:
            their_name, machine, nonce, *life = json.loads(session.name.removeprefix(MARK))
            theirs = Life(*life)
        except (ValueError, TypeError):
            return False
        if not session.name.startswith(MARK) or their_name != self._prefix + name or machine != self._machine or not machine:
            return False
        if nonce == self._nonce and theirs == self._here:
            return session.identity not in self._open
        return is_over(theirs, self._here)

    async def _renew_for_ever(self) -> None:
        pause_s = RENEW_EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            results = await asyncio.gather(*(self._renew(session) for session in tuple(self._open)))
            pause_s = RENEW_EVERY_S if all(results) else RENEW_AGAIN_S

    async def _renew(self, session: str) -> bool:
        """Whether Consul answered. A session that has ended is forgotten: whoever uses it finds out by `session_is_alive`."""
        try:
            if not await self._client.ask(renew_session(session), RENEW_TIMEOUT_S):
                self._open.discard(session)
        except CoordinationError as error:
            log.warning("session.renewal_failed", reason=str(error))
            return False
        return True
