"""Whether a Redis is alive, serves in its role, and is well.

liveness: takes a connection and answers PING. readiness: has loaded its data, is what `role` says, a replica's link to its master is up, a
master has its replicas. deep: that, and lag, memory, persistence, latency, and (with `write_key`) a master that takes a write.
Each run connects anew, because taking connections is what is asked, and a login costs Redis next to nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr, model_validator

from checks.base import Check, CheckOptions, Level, Result, RunLog, Status
from checks.network import ProbeFailed, Progress, Reason, within
from checks.redis_client import DEFAULT_PORT, Login, Refused, Session, Target, connected, network_target, parse_url
from checks.redis_facts import LinkFacts, RedisFacts, Role, parse_info
from checks.secret_file import at_most_one, secret_of
from checks.tls_trust import Trust
from checks.units import Duration, Size

FULL_AT = 0.9
"""Share of maxmemory in use that counts as degraded, where keys are not thrown out to make room."""
WRITTEN_KEY_TTL_S = 60
_ALIVE_ALL_THE_SAME = frozenset({"MISCONF", "MASTERDOWN", "NOREPLICAS"})
"""Refusals of PING by a server that is alive but does not do all its work."""


def _url(value: str) -> str:
    parse_url(value)
    return value


class RedisOptions(CheckOptions):
    """Options of `type: redis`."""

    url: Annotated[str, AfterValidator(_url)] | None = None
    """redis://HOST:PORT/DB, rediss:// for TLS, unix:///PATH; without a login. Or host and the keys below."""
    host: str | None = None
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    db: int = Field(default=0, ge=0)
    tls: bool = False
    user: str | None = None
    """Without it: the default user."""
    password: SecretStr | None = None
    """Better: password_file."""
    password_file: Path | None = None
    """File whose first line is the password; read at each run, so that it may change."""
    ca: Path | None = None
    """Certificates to trust instead of the system's."""
    verify: bool = True
    """Whether the certificate must be trusted."""
    cert: Path | None = None
    """Certificate to show, where the server asks for one."""
    key: Path | None = None
    """Its private key, if it is not in the same file."""
    role: Role = Role.ANY
    """What it must be to be ready."""
    min_replicas: int = Field(default=0, ge=0)
    """A master with fewer replicas online is degraded."""
    max_lag: Size = 16 << 20
    """Bytes that a replica may be behind."""
    silent_after: Duration = 15.0
    """How long the other end of replication may say nothing (a master speaks each 10 s, a replica each second)."""
    slow_after: Duration = 0.5
    """A PING that takes longer is degraded."""
    write_key: str | None = Field(default=None, min_length=1)
    """A key of its own that a master must let be written, with a short life; nothing is written without it."""

    @model_validator(mode="after")
    def _fits_together(self) -> RedisOptions:
        at_most_one("password", self.password, self.password_file)
        if (self.url is None) == (self.host is None):
            raise ValueError("expected either url or host")
        if self.url is not None and {"port", "db", "tls"} & self.model_fields_set and not self.url.startswith("unix:"):
            raise ValueError("expected port, db and tls within url, or host in its place")
        if self.user is not None and self.password is None and self.password_file is None:
            raise ValueError("expected password or password_file with user")
        if self.key is not None and self.cert is None:
            raise ValueError("expected cert with key")
        return self


class RedisCheck(Check[RedisOptions]):
    """One server, asked at one level."""

    kind: ClassVar[str] = "redis"
    options_model: ClassVar[type[CheckOptions]] = RedisOptions
    levels: ClassVar[frozenset[Level]] = frozenset(Level)

    def __init__(self, level: Level, options: RedisOptions) -> None:
        super().__init__(level, options)
        self._target = _target_of(options)
        self._context: ssl.SSLContext | None = None

    async def probe(self, timeout_s: float, log: RunLog) -> Result:
        progress = Progress(log)
        return await within(self._target.name, timeout_s, progress, self._ask(progress))

    async def _ask(self, progress: Progress) -> Result:
        options = self.options
        if self._target.tls and self._context is None:
            self._context = Trust(options.ca, options.verify, options.cert, options.key).context()
        login = Login(options.user, secret_of("password_file", options.password, options.password_file))
        async with connected(self._target, login, self._context, progress) as session:
            if self.level is Level.LIVENESS:
                return await _alive(session, progress)
            facts = await _facts(session, progress)
            ready = self._judge(facts)
            if self.level is Level.READINESS or ready.status is Status.UNHEALTHY:
                return ready
            return await self._well(session, facts, ready, progress)

    def _judge(self, facts: RedisFacts) -> Result:
        """Whether it serves as what it should be."""
        name, role = self._target.name, self.options.role
        if facts.is_loading:
            left = "" if facts.loading_left_s is None else f" (about {facts.loading_left_s:g} s left)"
            return Result(Status.UNHEALTHY, f"{name} is loading its data and serves nothing yet{left}", facts=facts)
        if role not in {Role.ANY, facts.role}:
            return Result(Status.UNHEALTHY, f"{name} is a {facts.role}, but should be a {role}", facts=facts)
        if facts.link is not None and not facts.link.is_up:
            return Result(Status.UNHEALTHY, f"{name} is a replica, but {_link_down(facts.link)}", facts=facts)
        online = sum(replica.is_online for replica in facts.replicas)
        if facts.role is Role.MASTER and online < self.options.min_replicas:
            words = f"{name} is a master with {online} replica(s) online, fewer than {self.options.min_replicas}"
            return Result(Status.DEGRADED, words, facts=facts)
        return Result(Status.HEALTHY, f"{name} is a {facts.role}", facts=facts)

    async def _well(self, session: Session, facts: RedisFacts, ready: Result, progress: Progress) -> Result:
        latency_s, complaint = await _ping(session, progress)
        complaints = (*filter(None, (complaint,)), *self._complaints(facts, latency_s))
        if self.options.write_key is not None and facts.role is Role.MASTER:
            progress.enter("writing a key of its own")
            await session.ask("SET", self.options.write_key, "quorate", "EX", WRITTEN_KEY_TTL_S)
        status = Status.DEGRADED if complaints or ready.status is Status.DEGRADED else Status.HEALTHY
        return Result(status, "; ".join((ready.sentence, *(complaints or (_praise(facts),)))), facts=facts)

    def _complaints(self, facts: RedisFacts, latency_s: float) -> Iterator[str]:
        yield from self._lag_complaints(facts)
        memory = facts.memory
        if memory.limit_bytes and not memory.evicts and memory.used_bytes > memory.limit_bytes * FULL_AT:
            yield f"{memory.used_bytes} of {memory.limit_bytes} bytes of memory are in use, and {memory.policy} makes no room"
        for way in facts.failed_saves:
            yield f"{way} could not be written to disk"
        if latency_s > self.options.slow_after:
            yield f"PING took {latency_s * 1000:.0f} ms, longer than {self.options.slow_after * 1000:g} ms"

    def _lag_complaints(self, facts: RedisFacts) -> Iterator[str]:
        options = self.options
        for replica in facts.replicas:
            if not replica.is_online:
                yield f"replica {replica.address} does not replicate yet (state {replica.state})"
            elif replica.silent_s > options.silent_after:
                yield f"replica {replica.address} has acknowledged nothing for {replica.silent_s:g} s"
            elif replica.lag_bytes > options.max_lag:
                yield f"replica {replica.address} is {replica.lag_bytes} bytes behind, more than {options.max_lag}"
        if facts.link is not None:
            if facts.link.silent_s is not None and facts.link.silent_s > options.silent_after:
                yield f"its master has said nothing for {facts.link.silent_s:g} s"
            if facts.link.unapplied_bytes > options.max_lag:
                yield f"it has not applied the last {facts.link.unapplied_bytes} bytes that it read, more than {options.max_lag}"


def _target_of(options: RedisOptions) -> Target:
    if options.url is not None:
        return parse_url(options.url)
    return network_target(options.host or "", options.port, tls=options.tls, db=options.db)


async def _ping(session: Session, progress: Progress) -> tuple[float, str]:
    """How long the answer took, and what a server that is alive all the same said in its place; empty: PONG."""
    progress.enter("asking PING")
    began_s, complaint = progress.elapsed_s, ""
    try:
        if await session.ask("PING") != "PONG":
            raise ProbeFailed(Reason.GARBAGE, f"{session.name} does not answer as Redis: it takes PING for something else")
    except Refused as refused:
        if refused.code not in _ALIVE_ALL_THE_SAME:
            raise
        complaint = refused.failure.sentence
    return progress.elapsed_s - began_s, complaint


async def _alive(session: Session, progress: Progress) -> Result:
    _, complaint = await _ping(session, progress)
    return Result(Status.DEGRADED, complaint) if complaint else Result(Status.HEALTHY, f"{session.name} answers")


async def _facts(session: Session, progress: Progress) -> RedisFacts:
    progress.enter("reading the facts")
    said = await session.ask("INFO")
    try:
        return parse_info(said)
    except (ValueError, KeyError):
        raise ProbeFailed(Reason.GARBAGE, f"{session.name} does not answer as Redis: its INFO makes no sense") from None


def _link_down(link: LinkFacts) -> str:
    upstream = f"its master {link.host}:{link.port}"
    if link.is_syncing:
        return f"it is still taking a whole copy of {upstream}"
    since = "" if link.down_s is None else f" for {link.down_s:g} s"
    return f"its link to {upstream} has been down{since}" if since else f"it has never reached {upstream}"


def _praise(facts: RedisFacts) -> str:
    if facts.link is not None:
        return f"its link to {facts.link.host}:{facts.link.port} is up"
    return f"{len(facts.replicas)} replica(s) online"
