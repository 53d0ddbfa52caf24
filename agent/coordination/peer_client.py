"""Asks other agents directly, over HTTP with kept-alive connections: the way that does not lead through the coordinator.

No proxy of the environment, no redirects, no cookies; each question has its own deadline. An answer counts only when it is signed with
the shared key for this very question by the very node that was asked: an address can be another host's today (holes.md D).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from agent.clock import Clock
from agent.codec import CodecError, dumps, loads
from agent.configuration.model import ApiTls
from agent.configuration.peer_keys import PeerKeys
from agent.coordination.failsafe_rules import Answer, Question
from agent.coordination.peer_auth import MAC, PEER, STAMP, Answered, Asked, signed_with
from agent.errors import ConfigurationError, PeerError

MAX_ANSWER_BYTES = 16 << 10
KEPT_ALIVE_S = 25.0
"""Shorter than the server keeps an idle connection, so that none is closed under a question."""
STALE = 409
"""The status that says: ask again, with this stamp."""


def tls_to_peers(tls: ApiTls) -> ssl.SSLContext:
    """TLS towards the other agents. Who they are is proven by the shared key, not by the name in a certificate.

    With `client_ca` they show one of that authority, and so does this agent. Raises ConfigurationError with one line.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    try:
        context.load_cert_chain(tls.cert, tls.key)
        if tls.client_ca is None:
            context.verify_mode = ssl.CERT_NONE
        else:
            context.load_verify_locations(tls.client_ca)
    except OSError as error:  # SSLError is one, too
        raise ConfigurationError((f"api.tls: cannot be used towards the other agents: {error.strerror or 'it is no PEM file'}",)) from None
    return context


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes


class PeerClient:
    """Implements hands.PeerLine for one agent. `addresses`: HOST:PORT of each node's agent. `tls`: how to reach them by https, if so."""

    def __init__(self, node: str, addresses: Mapping[str, str], keys: PeerKeys, clock: Clock, tls: ssl.SSLContext | None = None) -> None:
        self._node = node
        self._addresses = dict(addresses)
        self._keys = keys
        self._clock = clock
        self._tls = tls
        self._stamps: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def ask_promise(self, node: str, question: Question, timeout_s: float) -> Answer:
        """The node's own answer to this very question. Raises `PeerError` when there is none that can be trusted."""
        reply = await self._ask(node, f"/api/v1/peers/{question.group}/promise", dumps(question), timeout_s)
        if reply.status != 200:
            raise PeerError(f"its agent answered {reply.status}")
        try:
            return loads(Answer, reply.body)
        except CodecError as error:
            raise PeerError(f"its agent's answer cannot be read: {error}") from None

    async def close(self) -> None:
        """End all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, node: str, path: str, body: bytes, timeout_s: float) -> _Reply:
        if node not in self._addresses:
            raise PeerError("nobody knows where its agent listens")
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._post(node, path, body)
                return reply if reply.status != STALE else await self._post(node, path, body)
        except TimeoutError:
            raise PeerError(f"no answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PeerError(f"its agent cannot be reached: {_short(error)}") from error

    async def _post(self, node: str, path: str, body: bytes) -> _Reply:
        asked = Asked("POST", path, self._node, node, self._stamps.get(node, ""), self._clock.nonce(), body)
        url = f"{'http' if self._tls is None else 'https'}://{self._addresses[node]}{path}"
        async with self._open().post(url, data=body, headers=asked.headers(self._keys), allow_redirects=False) as response:
            if response.content_length is None or response.content_length > MAX_ANSWER_BYTES:
                raise PeerError("its agent's answer has no length, or is too long")
            reply = _Reply(response.status, await response.read())
            self._believe(asked, reply, response.headers)
        return reply

    def _believe(self, asked: Asked, reply: _Reply, headers: Mapping[str, str]) -> None:
        """Raise `PeerError` unless the answer is signed, for this question, by the node that was asked. Keep its stamp."""
        stamp = headers.get(STAMP, "")
        answered = Answered(reply.status, asked.sender, asked.receiver, stamp, asked.nonce, reply.body)
        if headers.get(PEER) != asked.receiver or signed_with(answered, headers.get(MAC, ""), self._keys) is None:
            raise PeerError(f"what answered there ({reply.status}) is not {asked.receiver}'s agent, or has another peer key")
        self._stamps[asked.receiver] = stamp

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=KEPT_ALIVE_S, ssl=self._tls if self._tls is not None else False),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
            )
        return self._session


def _short(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or "the connection was refused"
    return str(error) or type(error).__name__
