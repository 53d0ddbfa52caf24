"""Sends questions to Consul: deadlines, several addresses, errors in sentences. The only file that talks HTTP to the coordinator.

A question is asked again within its own deadline only where that cannot do harm: at another address when nothing was sent or Consul said
that it did nothing, and after any failure when the question may be repeated. A transaction whose outcome is unknown is never sent twice,
not even by the HTTP library, which by itself repeats a PUT whose connection drops: here its second connection is refused it. The address
that failed is asked last from then on, so one that hangs costs one deadline and not one each time.

Must never use a proxy of the environment, follow a redirect, or put the token into a sentence.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TypeVar

import aiohttp
from yarl import URL

from agent.clock import Clock
from agent.coordination.consul_access import Access
from agent.coordination.consul_requests import NO_ANSWER_OF_CONSUL, Answer, Repeat, Request
from agent.errors import CoordinationError, CoordinationRefused
from agent.instant import Instant, remaining_s

MAX_ANSWER_BYTES = 64 << 20
LEAST_SHARE_S = 0.5
"""What a reading gives one address at least, if it has so much: with many addresses a slow Consul would else never be heard out."""
LONGEST_QUOTE = 200
_NOTHING_WAS_DONE = ("No cluster leader", "rpc error getting client", "rate limit exceeded")
"""What Consul says when it did nothing, and another server may do it."""
_NOT_ALLOWED = frozenset({401, 403})
_JUDGED_BY_READER = frozenset({404, 409})

T = TypeVar("T")


class _Nothing(CoordinationError):
    """Nothing was sent, or nothing was done: any question may be asked elsewhere."""


class _Unknown(CoordinationError):
    """Sent, and no answer that says whether it was done."""


class _Flight:
    """One question under way to one address: until it is connected, nothing has been sent."""

    def __init__(self, repeat: Repeat, limit: asyncio.Timeout, more_s: float) -> None:
        self.connected = False
        self._repeat = repeat
        self._limit = limit
        self._more_s = more_s

    def refuse_to_send_again(self) -> None:
        """The HTTP library begins another connection for the same question."""
        if self.connected and self._repeat is Repeat.NEVER:
            raise ConnectionResetError("the connection was cut before an answer")

    def note_connected(self) -> None:
        """From here on it is no use to hurry to another address with what may be sent only once: it has all that is left."""
        ends = self._limit.when()
        if not self.connected and ends is not None and not self._limit.expired():
            self._limit.reschedule(ends + self._more_s)
        self.connected = True


class Addresses:
    """In which order the addresses are asked: a good one stays first, the one that failed last comes last."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._urls = list(urls)

    @property
    def in_order(self) -> tuple[str, ...]:
        return tuple(self._urls)

    def failed(self, url: str) -> None:
        """Ask it last from now on; the next one is asked first until it fails, too."""
        self._urls.remove(url)
        self._urls.append(url)


class ConsulClient:
    """Connections to the servers of one Consul. Made inside the event loop that uses it. Every call raises `CoordinationError`."""

    def __init__(self, urls: tuple[str, ...], access: Access, clock: Clock) -> None:
        self.addresses = Addresses(urls)
        self._access = access
        self._clock = clock
        self._questions = _session(aiohttp.TCPConnector())
        self._writes = _session(aiohttp.TCPConnector(force_close=True))
        self._waits = _session(aiohttp.TCPConnector(limit=0))

    async def ask(self, request: Request[T], timeout_s: float) -> T:
        """The answer, from whichever address gives one within `timeout_s`."""
        session = self._questions if request.method == "GET" else self._writes
        return await self._ask(session, request, timeout_s)

    async def wait(self, request: Request[T], timeout_s: float) -> T:
        """The same for a question that is answered when something changes: on connections of its own, from the first address alone."""
        return await self._ask(self._waits, request, timeout_s, addresses=1)

    async def close(self) -> None:
        """Close all connections."""
        for session in (self._questions, self._writes, self._waits):
            await session.close()

    async def _ask(self, session: aiohttp.ClientSession, request: Request[T], timeout_s: float, addresses: int | None = None) -> T:
        deadline = self._clock.now().after(timeout_s)
        urls = self.addresses.in_order[:addresses]
        for tried, url in enumerate(urls):
            try:
                return await self._ask_one(session, url, request, deadline, len(urls) - tried)
            except (_Nothing, _Unknown) as error:
                self.addresses.failed(url)
                may_go_on = isinstance(error, _Nothing) or request.repeat is Repeat.SAFE
                if not may_go_on or tried + 1 == len(urls) or remaining_s(deadline, self._clock.now()) <= 0:
                    raise CoordinationError(str(error)) from error
        raise CoordinationError("no address of Consul is known")

    async def _ask_one(self, session: aiohttp.ClientSession, url: str, request: Request[T], deadline: Instant, shares: int) -> T:
        """Ask one address. It may take its share of what is left; a question that may not be repeated has all of it once connected."""
        left_s = remaining_s(deadline, self._clock.now())
        share_s = left_s / shares if request.repeat is Repeat.NEVER else max(left_s / shares, min(left_s, LEAST_SHARE_S))
        flight: _Flight | None = None
        try:
            async with asyncio.timeout(share_s) as limit:
                flight = _Flight(request.repeat, limit, 0.0 if request.repeat is Repeat.SAFE else left_s - share_s)
                answer = await self._exchange(session, url, request, flight)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:  # noqa: UP041 - aiohttp's own are subclasses
            sent = flight is not None and flight.connected
            waited_s = left_s if sent and request.repeat is Repeat.NEVER else share_s
            raise _failure(url, error, waited_s, sent=sent) from error
        return _value(url, request, answer)

    async def _exchange(self, session: aiohttp.ClientSession, url: str, request: Request[T], flight: _Flight) -> Answer:
        token = self._access.token()
        headers = {"Content-Type": "application/json"} | ({} if token is None else {"X-Consul-Token": token})
        async with session.request(
            request.method,
            URL(url + request.path, encoded=True),
            data=request.body or None,
            headers=headers,
            allow_redirects=False,
            ssl=self._access.tls(),
            trace_request_ctx=flight,
        ) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise ValueError(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
            return Answer(response.status, response.headers, body.decode("utf-8"))


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    trace: aiohttp.TraceConfig = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(_connecting)
    trace.on_connection_create_end.append(_connected)
    trace.on_connection_reuseconn.append(_connected)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
    )


async def _connecting(_session: aiohttp.ClientSession, context: SimpleNamespace, _parameters: object) -> None:
    context.trace_request_ctx.refuse_to_send_again()


async def _connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _parameters: object) -> None:
    context.trace_request_ctx.note_connected()


def _failure(url: str, error: Exception, waited_s: float, *, sent: bool) -> _Nothing | _Unknown:
    if isinstance(error, TimeoutError):
        what = f"no {'answer' if sent else 'connection'} within {waited_s:.3g} s"
    elif isinstance(error, aiohttp.ClientConnectorError):
        what = f"no connection: {error.os_error.strerror or error.os_error}"
    else:
        what = f"{error}" or type(error).__name__
    return (_Unknown if sent else _Nothing)(f"Consul at {url}: {what[:LONGEST_QUOTE]}")


def _value(url: str, request: Request[T], answer: Answer) -> T:
    """What the answer says, or the error that it is."""
    _refuse_filtered(url, answer)
    if not 200 <= answer.status < 300 and answer.status not in _JUDGED_BY_READER:
        raise _error_of(url, answer)
    try:
        return request.read(answer)
    except NO_ANSWER_OF_CONSUL as error:
        raise _Unknown(f"Consul at {url}: an answer ({answer.status}) that is none of Consul's") from error


def _refuse_filtered(url: str, answer: Answer) -> None:
    """Consul leaves out what a token may not read, as if it were not there. A missing key must never mean a missing right."""
    if answer.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true":
        raise CoordinationRefused(f"Consul at {url}: its token may not read all that quorate keeps there")


def _error_of(url: str, answer: Answer) -> CoordinationError:
    said = " ".join(answer.body.split()).removeprefix("rpc error making call: ")[:LONGEST_QUOTE]
    sentence = f"Consul at {url}: {answer.status} {said}".rstrip()
    if answer.status in _NOT_ALLOWED:
        return CoordinationRefused(f"Consul at {url} denies access: {said}")
    if answer.status == 429 or any(word in said for word in _NOTHING_WAS_DONE):
        return _Nothing(sentence)
    if 400 <= answer.status < 500:
        return CoordinationRefused(sentence)
    return _Unknown(sentence)
