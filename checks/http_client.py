"""HTTP asked with care, for every check that speaks it: no redirects, no proxy from the environment, bounded bodies, failures by name.

Nothing is kept between two runs but whom to trust (slow to load). The caller keeps the deadline and may cancel at any moment.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import AfterValidator, TypeAdapter, ValidationError
from yarl import URL

from checks.network import RESOLVER, ProbeFailed, Progress, Reason, explain_os_error
from checks.tls_trust import Trust, explain_certificate, explain_handshake

BODY_LIMIT_BYTES = 4 << 20
"""An answer of an API that is longer is not read."""
T = TypeVar("T")


def _url(value: str) -> str:
    url = URL(value)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("expected an address such as http://127.0.0.1:8080/health")
    if url.user or url.password:
        raise ValueError("expected an address without a login: it has options of its own")
    return value


def _base_url(value: str) -> str:
    url = URL(_url(value))
    if url.query_string or url.fragment:
        raise ValueError("expected the address alone, such as http://127.0.0.1:8080")
    return value.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_url)]
"""An address that is asked as it stands; without a login."""
BaseUrl = Annotated[str, AfterValidator(_base_url)]
"""The address below which a server's API lies."""
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole."""

    code: int
    body: bytes
    headers: Mapping[str, str]
    took_s: float

    @property
    def text(self) -> str:
        """The body as text; bytes that are none are replaced."""
        return self.body.decode("utf-8", "replace")


class HttpClient:
    """Opens sessions to one server. `name` is what sentences call it."""

    def __init__(self, name: str, url: str, trust: Trust) -> None:
        self.name = name
        self._url = url
        self._trust = trust
        self._context: ssl.SSLContext | None = None

    @asynccontextmanager
    async def open(self, progress: Progress, headers: Mapping[str, str] | None = None) -> AsyncIterator[HttpSession]:
        """A session of one run; closed at its end. What goes wrong in it is raised as ProbeFailed."""
        context: ssl.SSLContext | bool = False
        if self._url.startswith("https"):
            context = self._context = self._context or self._trust.context()
        connector = aiohttp.TCPConnector(ssl=context, resolver=_NameResolver(progress), use_dns_cache=False)
        progress.enter("connecting")
        async with aiohttp.ClientSession(
            connector=connector,
            headers={**(headers or {}), "Accept-Encoding": "identity"},
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        ) as session:
            try:
                yield HttpSession(self.name, self._url, session, progress)
            except aiohttp.ClientError as error:
                raise _explain(error, self.name) from None


@dataclass(frozen=True, slots=True)
class HttpSession:
    """The questions of one run."""

    name: str
    url: str
    session: aiohttp.ClientSession
    progress: Progress

    async def ask(self, method: str, url: str, *, limit_bytes: int = BODY_LIMIT_BYTES) -> Answer:
        """One request; `limit_bytes`: how much of the body is read (0: it is not waited for)."""
        began_s = self.progress.elapsed_s
        async with self.session.request(method, url, allow_redirects=False) as response:
            self.progress.enter(f"status {response.status}, reading the body")
            body = await _read_bounded(response, limit_bytes) if limit_bytes else b""
            headers = dict(response.headers)
            if not response.content.at_eof():
                response.close()
        return Answer(response.status, body, headers, self.progress.elapsed_s - began_s)

    async def get(self, path: str) -> Answer:
        """A part of the server's API."""
        self.progress.enter(f"asking {path}")
        return await self.ask("GET", f"{self.url}{path}")


def parse_json(adapter: TypeAdapter[T], answer: Answer, name: str) -> T:
    """The body as a typed value. ProbeFailed(GARBAGE) when it is something else."""
    try:
        return adapter.validate_json(answer.body)
    except ValidationError:
        cut = ": it is too long" if len(answer.body) >= BODY_LIMIT_BYTES else ""
        raise ProbeFailed(Reason.GARBAGE, f"{name} answered with something that makes no sense{cut}") from None


async def _read_bounded(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    body = bytearray()
    while part := await response.content.read(limit_bytes - len(body)):  # nothing more is read at the limit
        body += part
    return bytes(body)


def _explain(error: aiohttp.ClientError, name: str) -> ProbeFailed:
    """What an error of the client means."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            failure = explain_certificate(error.certificate_error, name)
        case aiohttp.ClientSSLError():
            failure = explain_handshake(getattr(error.os_error, "reason", None), name)
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return ProbeFailed(Reason.CLOSED, f"{name} closed the connection in the middle of its answer")
        case aiohttp.ClientResponseError():
            return ProbeFailed(Reason.GARBAGE, f"{name} does not answer as HTTP")
        case aiohttp.ClientConnectorError():
            failure = explain_os_error(error.os_error, name)
        case aiohttp.ClientOSError():
            failure = explain_os_error(OSError(error.errno, error.strerror), name)
        case _:
            return ProbeFailed(Reason.LOCAL, f"{name} cannot be asked: {type(error).__name__}")
    return ProbeFailed(failure.reason, failure.sentence)


class _NameResolver(AbstractResolver):
    """Names by the shared resolver, so that a hung name service is named and costs no thread pool."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        self._progress.enter("looking the name up", ours=Reason.UNRESOLVED)
        addresses = await RESOLVER.resolve(host)
        self._progress.enter("connecting")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=_family(address), proto=0, flags=0)
            for address in addresses
            if family in {0, _family(address)}
        ]

    async def close(self) -> None:
        """Nothing is kept."""


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
