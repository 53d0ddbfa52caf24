"""Whether a Traefik is alive, has what it should route, and is well.

liveness: GET /ping, which says that the process is alive and nothing more. readiness: the API shows the entry points, routers and services
that must be there, and each of these services has servers to send to. deep: that for every service, and no errors or warnings at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import aiohttp
from pydantic import SecretStr, TypeAdapter, model_validator

from checks.base import Check, CheckOptions, Level, Result, RunLog, Status
from checks.http_client import Answer, BaseUrl, HttpClient, HttpSession, parse_json
from checks.network import ProbeFailed, Progress, Reason, clean, within
from checks.secret_file import at_most_one, secret_of
from checks.tls_trust import Trust
from checks.traefik_facts import Named, Overview, Router, Service, State, TraefikFacts, found

PAGES_LIMIT = 50
"""Lists come in pages of a hundred; what is beyond is not read, and said."""
_SAID_LIMIT = 5
_OVERVIEW = TypeAdapter(Overview)
_NAMES = TypeAdapter(tuple[Named, ...])
_ROUTERS = TypeAdapter(tuple[Router, ...])
_SERVICES = TypeAdapter(tuple[Service, ...])
T = TypeVar("T")
Finding = tuple[Status, str]


class TraefikOptions(CheckOptions):
    """Options of `type: traefik`."""

    url: BaseUrl
    """The entry point with /ping and the API, such as http://127.0.0.1:8080."""
    user: str | None = None
    """For basic authentication, with password or password_file."""
    password: SecretStr | None = None
    """Better: password_file."""
    password_file: Path | None = None
    """File whose first line is the password; read at each run, so that it may change."""
    entry_points: tuple[str, ...] = ()
    """Entry points that must be there."""
    routers: tuple[str, ...] = ()
    """Routers that must be there and be enabled: NAME@PROVIDER, or NAME of any provider."""
    services: tuple[str, ...] = ()
    """Services that must be there and have servers that are up; named as routers are."""
    ca: Path | None = None
    """Certificates to trust instead of the system's."""
    verify: bool = True
    """Whether the certificate must be trusted."""

    @model_validator(mode="after")
    def _one_login(self) -> TraefikOptions:
        at_most_one("password", self.password, self.password_file)
        if (self.user is None) != (self.password is None and self.password_file is None):
            raise ValueError("expected user together with password or password_file")
        return self


class TraefikCheck(Check[TraefikOptions]):
    """One Traefik, asked at one level."""

    kind: ClassVar[str] = "traefik"
    options_model: ClassVar[type[CheckOptions]] = TraefikOptions
    levels: ClassVar[frozenset[Level]] = frozenset(Level)

    def __init__(self, level: Level, options: TraefikOptions) -> None:
        super().__init__(level, options)
        self._client = HttpClient(f"Traefik at {options.url}", options.url, Trust(options.ca, options.verify))

    async def probe(self, timeout_s: float, log: RunLog) -> Result:
        progress = Progress(log)
        return await within(self._client.name, timeout_s, progress, self._ask(progress))

    async def _ask(self, progress: Progress) -> Result:
        password = secret_of("password_file", self.options.password, self.options.password_file)
        headers: dict[str, str] = {}
        if self.options.user is not None and password is not None:
            headers["Authorization"] = aiohttp.encode_basic_auth(self.options.user, password.get_secret_value(), "utf-8")
        async with self._client.open(progress, headers) as session:
            if self.level is Level.LIVENESS:
                return await _alive(session)
            overview = _parse(_OVERVIEW, await session.get("/api/overview"), session.name)
            entry_points = await self._entry_points(session)
            facts = TraefikFacts(overview, await self._routers(session), await self._services(session))
        return _conclude(self._client.name, facts, tuple(self._findings(facts, entry_points)))

    # ------------------------------------------------------------ reading

    async def _entry_points(self, session: HttpSession) -> frozenset[str]:
        if not self.options.entry_points:
            return frozenset()
        return frozenset(point.name for point in _parse(_NAMES, await session.get("/api/entrypoints"), session.name))

    async def _routers(self, session: HttpSession) -> tuple[Router, ...]:
        if not self.options.routers:
            return ()
        return (*await _listed(session, "/api/http/routers", _ROUTERS), *await _listed(session, "/api/tcp/routers", _ROUTERS))

    async def _services(self, session: HttpSession) -> tuple[Service, ...]:
        if not self.options.services and self.level is not Level.DEEP:
            return ()
        return (*await _listed(session, "/api/http/services", _SERVICES), *await _listed(session, "/api/tcp/services", _SERVICES))

    # ------------------------------------------------------------ judging

    def _findings(self, facts: TraefikFacts, entry_points: frozenset[str]) -> Iterator[Finding]:
        options = self.options
        for name in options.entry_points:
            if name not in entry_points:
                yield Status.UNHEALTHY, f"there is no entry point {name}"
        for name in options.routers:
            yield from _of_named("router", name, found(facts.routers, name))
        for name in options.services:
            services = found(facts.services, name)
            yield from _of_named("service", name, services)
            for service in services:
                if isinstance(service, Service):
                    yield from _of_servers(service, must_serve=True)
        if self.level is Level.DEEP:
            yield from self._deep_findings(facts)

    def _deep_findings(self, facts: TraefikFacts) -> Iterator[Finding]:
        named = {service.name for name in self.options.services for service in found(facts.services, name)}
        for service in facts.services:
            if service.name not in named:
                yield from _of_servers(service, must_serve=False)
        if facts.overview.errors:
            yield Status.DEGRADED, f"{facts.overview.errors} error(s) in its routers, services and middlewares"
        if facts.overview.warnings:
            yield Status.DEGRADED, f"{facts.overview.warnings} warning(s) in its routers, services and middlewares"


async def _alive(session: HttpSession) -> Result:
    answer = await session.get("/ping")
    name = session.name
    if answer.code == 200 and answer.text.strip() == "OK":
        return Result(Status.HEALTHY, f"{name} answers")
    if answer.code == 503:
        return Result(Status.UNHEALTHY, f"{name} is shutting down")
    if answer.code == 404:  # so it answers, too, until it has read its first configuration
        raise ProbeFailed(Reason.LOCAL, f"{name} has no /ping here (yet): switch it on (`ping: {{}}`), or ask its entry point")
    if answer.code in {401, 403}:
        raise _refused(answer, name)
    said = clean(answer.text, 80)
    return Result(Status.UNHEALTHY, f"{name} answered {answer.code} to /ping{f': {said}' if said else ''}")


async def _listed(session: HttpSession, path: str, adapter: TypeAdapter[tuple[T, ...]]) -> tuple[T, ...]:
    """All pages of a list."""
    entries: list[T] = []
    page = 1
    for _ in range(PAGES_LIMIT):
        answer = await session.get(f"{path}?per_page=100&page={page}")
        page_entries: tuple[T, ...] = _parse(adapter, answer, session.name)
        entries += page_entries
        following = answer.headers.get("X-Next-Page", "1")
        if not following.isdigit() or int(following) <= page:
            return tuple(entries)
        page = int(following)
    raise ProbeFailed(Reason.LOCAL, f"{session.name} has more than {len(entries)} entries below {path}: that is too many to read")


def _parse(adapter: TypeAdapter[T], answer: Answer, name: str) -> T:
    if answer.code in {401, 403}:
        raise _refused(answer, name)
    if answer.code == 404:
        raise ProbeFailed(Reason.LOCAL, f"{name} has no API here (yet): switch it on (`api: {{}}`), or ask its entry point")
    if answer.code != 200:
        raise ProbeFailed(Reason.FAILED, f"{name} answered {answer.code} to a question to its API")
    return parse_json(adapter, answer, name)


def _refused(answer: Answer, name: str) -> ProbeFailed:
    words = "wrong or missing password" if answer.code == 401 else "forbidden"
    return ProbeFailed(Reason.LOGIN, f"{name} refuses the login: {words}")


def _of_named(kind: str, name: str, entries: Sequence[Router | Service]) -> Iterator[Finding]:
    if not entries:
        yield Status.UNHEALTHY, f"there is no {kind} {name}"
    for entry in entries:
        words = clean("; ".join(entry.error))
        if entry.status is State.DISABLED:
            yield Status.UNHEALTHY, f"{kind} {entry.name} is disabled: {words}"
        elif entry.status is State.WARNING:
            yield Status.DEGRADED, f"{kind} {entry.name} has a warning: {words}"


def _of_servers(service: Service, *, must_serve: bool) -> Iterator[Finding]:
    if service.servers is None:
        return
    if service.servers == 0:
        yield (Status.UNHEALTHY if must_serve else Status.DEGRADED), f"service {service.name} has no servers"
    elif len(service.down) >= service.servers:
        yield Status.UNHEALTHY, f"all {service.servers} server(s) of service {service.name} are DOWN"
    elif service.down:
        yield Status.DEGRADED, f"{len(service.down)} of {service.servers} servers of service {service.name} are DOWN: {_some(service.down)}"


def _conclude(name: str, facts: TraefikFacts, findings: Sequence[Finding]) -> Result:
    """The worst finding is the status; all are said, the worst first."""
    worst = [words for status, words in findings if status is Status.UNHEALTHY]
    if findings:
        others = [words for status, words in findings if status is not Status.UNHEALTHY]
        status = Status.UNHEALTHY if worst else Status.DEGRADED
        return Result(status, f"{name}: {_some((*worst, *others), '; ')}", facts=facts)
    unchecked = [service.name for service in facts.services if service.servers and not service.is_checked]
    caveat = f"; it does not check the servers of {_some(unchecked)}" if unchecked else ""
    http = facts.overview.http
    return Result(Status.HEALTHY, f"{name} has {http.routers.total} routers and {http.services.total} services{caveat}", facts=facts)


def _some(words: Iterable[str], between: str = ", ") -> str:
    said = tuple(clean(each, 120) for each in words)
    more = len(said) - _SAID_LIMIT
    return between.join(said[:_SAID_LIMIT]) + (f"{between}and {more} more" if more > 0 else "")
