"""Whether something answers HTTP as expected: one request, no redirects followed, no proxy from the environment, a bounded body.

Both levels ask the same; what they mean is the path that is asked.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from yarl import URL

from checks.base import Check, CheckOptions, Facts, Level, Result, RunLog, Status
from checks.network import RESOLVER, ProbeFailed, Progress, Reason, clean, explain_os_error, within

BODY_LIMIT_BYTES = 1 << 20
"""How much of an answer is searched for `expect_text`; the rest is not read."""
_CERTIFICATE_EXPIRED = 10
_STATUS = re.compile(r"[1-5](xx|[0-9]{2})")


def _url(value: str) -> str:
    url = URL(value)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("expected an address such as http://127.0.0.1:8080/health")
    if url.user or url.password:
        raise ValueError("expected an address without a login: put it into `headers`")
    return value


def _statuses(value: object) -> object:
    listed = value if isinstance(value, list | tuple) else (value,)
    return tuple(str(status).lower() for status in listed)


def _known_statuses(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not all(_STATUS.fullmatch(status) for status in value):
        raise ValueError("expected status codes or classes of them, such as 200 or 2xx")
    return value


def _header_names(value: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    for name, content in value.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not content.get_secret_value().isprintable():
            raise ValueError("expected headers as `Name: text` on one line each")
    return value


class HttpOptions(CheckOptions):
    """Options of `type: http`."""

    url: Annotated[str, AfterValidator(_url)]
    """What is asked."""
    method: Literal["GET", "HEAD", "OPTIONS", "POST"] = "GET"
    expect_status: Annotated[tuple[str, ...], BeforeValidator(_statuses), AfterValidator(_known_statuses)] = ("2xx",)
    """Codes or classes that are well."""
    expect_text: str | None = None
    """Must be somewhere in the first MiB of the body."""
    headers: Annotated[dict[str, SecretStr], AfterValidator(_header_names)] = Field(default_factory=dict)
    """Sent with the request; taken for secrets."""
    ca: Path | None = None
    """Certificates to trust instead of the system's."""
    verify: bool = True
    """Whether the certificate must be trusted."""


@dataclass(frozen=True, slots=True)
class HttpFacts(Facts):
    """What came back."""

    status_code: int
    body_bytes: int
    """Bytes of the body that were read."""


class HttpCheck(Check[HttpOptions]):
    """One request and what came back."""

    kind: ClassVar[str] = "http"
    options_model: ClassVar[type[CheckOptions]] = HttpOptions
    levels: ClassVar[frozenset[Level]] = frozenset({Level.LIVENESS, Level.READINESS})

    def __init__(self, level: Level, options: HttpOptions) -> None:
        super().__init__(level, options)
        self._trust: ssl.SSLContext | None = None

    async def probe(self, timeout_s: float, log: RunLog) -> Result:
        progress = Progress(log)
        return await within(self.options.url, timeout_s, progress, self._ask(progress))

    async def _ask(self, progress: Progress) -> Result:
        options = self.options
        trust = self._trust_of(options) if options.url.startswith("https") else False
        connector = aiohttp.TCPConnector(ssl=trust, force_close=True, resolver=_NameResolver(progress), use_dns_cache=False)
        headers = {name: content.get_secret_value() for name, content in options.headers.items()} | {"Accept-Encoding": "identity"}
        progress.enter("connecting")
        async with aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        ) as session:
            try:
                return await self._request(session, progress)
            except aiohttp.ClientError as error:
                raise _explain(error, options.url) from None

    def _trust_of(self, options: HttpOptions) -> ssl.SSLContext | bool:
        """Whom to trust; loaded once (it is slow). ProbeFailed when the file cannot be read."""
        if not options.verify:
            return False
        if self._trust is None:
            try:
                self._trust = ssl.create_default_context(cafile=options.ca)
            except (OSError, ssl.SSLError) as error:
                raise ProbeFailed(Reason.TLS, f"the certificates of ca: {options.ca} cannot be read: {error.strerror or error}") from None
        return self._trust

    async def _request(self, session: aiohttp.ClientSession, progress: Progress) -> Result:
        options = self.options
        async with session.request(options.method, options.url, allow_redirects=False) as response:
            progress.enter(f"status {response.status}, reading the body")
            # Nothing of the body matters when no text is expected: it is not waited for.
            body = await _read_bounded(response) if options.expect_text is not None else b""
            response.close()
        facts = HttpFacts(response.status, len(body))
        answered = f"{options.url} answered {response.status}"
        if not any(_matches(response.status, expected) for expected in options.expect_status):
            return Result(Status.UNHEALTHY, f"{answered}, expected {' or '.join(options.expect_status)}", facts=facts)
        if options.expect_text is not None and options.expect_text.encode() not in body:
            return Result(Status.UNHEALTHY, f"{answered}, but without the expected text", facts=facts)
        return Result(Status.HEALTHY, answered, facts=facts)


def _matches(code: int, expected: str) -> bool:
    return str(code) == expected or (expected.endswith("xx") and str(code)[0] == expected[0])


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while part := await response.content.read(BODY_LIMIT_BYTES - len(body)):  # nothing more is read at the limit
        body += part
    return bytes(body)


def _explain(error: aiohttp.ClientError, url: str) -> ProbeFailed:
    """What an error of the client means."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return _explain_certificate(error.certificate_error, url)
        case aiohttp.ClientSSLError():
            return ProbeFailed(Reason.TLS, f"{url} does not speak TLS as expected: {clean(getattr(error.os_error, 'reason', None) or '')}")
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return ProbeFailed(Reason.CLOSED, f"{url} closed the connection in the middle of its answer")
        case aiohttp.ClientResponseError():
            return ProbeFailed(Reason.GARBAGE, f"{url} does not answer as HTTP")
        case aiohttp.ClientConnectorError():
            failure = explain_os_error(error.os_error, url)
            return ProbeFailed(failure.reason, failure.sentence)
        case aiohttp.ClientOSError():
            failure = explain_os_error(OSError(error.errno, error.strerror), url)
            return ProbeFailed(failure.reason, failure.sentence)
        case _:
            return ProbeFailed(Reason.LOCAL, f"{url} cannot be asked: {type(error).__name__}")


def _explain_certificate(error: Exception, url: str) -> ProbeFailed:
    """An expired certificate is the target's fault; whom to trust, and under which name, is ours."""
    words = clean(getattr(error, "verify_message", "") or "it is not trusted")
    if getattr(error, "verify_code", None) == _CERTIFICATE_EXPIRED:
        return ProbeFailed(Reason.FAILED, f"the certificate of {url} has expired")
    return ProbeFailed(Reason.TLS, f"the certificate of {url} is not accepted: {words}")


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
