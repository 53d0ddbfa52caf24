"""Whether something answers HTTP as expected: one request, no redirects followed, no proxy from the environment, a bounded body.

Both levels ask the same; what they mean is the path that is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from checks.base import Check, CheckOptions, Facts, Level, Result, RunLog, Status
from checks.http_client import HEADER_NAME, HttpClient, HttpUrl
from checks.network import Progress, within
from checks.tls_trust import Trust

BODY_LIMIT_BYTES = 1 << 20
"""How much of an answer is searched for `expect_text`; the rest is not read."""
_STATUS = re.compile(r"[1-5](xx|[0-9]{2})")


def _statuses(value: object) -> object:
    listed = value if isinstance(value, list | tuple) else (value,)
    return tuple(str(status).lower() for status in listed)


def _known_statuses(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not all(_STATUS.fullmatch(status) for status in value):
        raise ValueError("expected status codes or classes of them, such as 200 or 2xx")
    return value


def _header_names(value: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    for name, content in value.items():
        if not HEADER_NAME.fullmatch(name) or not content.get_secret_value().isprintable():
            raise ValueError("expected headers as `Name: text` on one line each")
    return value


class HttpOptions(CheckOptions):
    """Options of `type: http`."""

    url: HttpUrl
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
        self._client = HttpClient(options.url, options.url, Trust(options.ca, options.verify))

    async def probe(self, timeout_s: float, log: RunLog) -> Result:
        progress = Progress(log)
        return await within(self.options.url, timeout_s, progress, self._ask(progress))

    async def _ask(self, progress: Progress) -> Result:
        options = self.options
        headers = {name: content.get_secret_value() for name, content in options.headers.items()}
        # Nothing of the body matters when no text is expected: it is not waited for.
        limit_bytes = 0 if options.expect_text is None else BODY_LIMIT_BYTES
        async with self._client.open(progress, headers) as session:
            answer = await session.ask(options.method, options.url, limit_bytes=limit_bytes)
        facts = HttpFacts(answer.code, len(answer.body))
        answered = f"{options.url} answered {answer.code}"
        if not any(_matches(answer.code, expected) for expected in options.expect_status):
            return Result(Status.UNHEALTHY, f"{answered}, expected {' or '.join(options.expect_status)}", facts=facts)
        if options.expect_text is not None and options.expect_text.encode() not in answer.body:
            return Result(Status.UNHEALTHY, f"{answered}, but without the expected text", facts=facts)
        return Result(Status.HEALTHY, answered, facts=facts)


def _matches(code: int, expected: str) -> bool:
    return str(code) == expected or (expected.endswith("xx") and str(code)[0] == expected[0])
