"""A Redis asked with care: connected by ourselves (names, TLS and deadlines as in every check), spoken to by redis-py, failures by name.

redis-py's own ways to connect resolve names in the loop's thread pool and retry by their own rules; here it only logs in and speaks the
protocol over a connection that is handed to it. No password ever gets into a sentence.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from pydantic import SecretStr
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError

from checks.network import RESOLVER, Failure, ProbeFailed, Progress, Reason, abort, clean, explain_os_error
from checks.tls_trust import explain_certificate, explain_handshake

DEFAULT_PORT = 6379
_WRONG_URL = "expected an address such as redis://127.0.0.1:6379/0, rediss://redis.example.test or unix:///run/redis/redis.sock"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Target:
    """Where one server is asked. `name` is what sentences call it."""

    name: str
    host: str
    port: int = DEFAULT_PORT
    socket: str | None = None
    tls: bool = False
    db: int = 0


@dataclass(frozen=True, slots=True)
class Login:
    """As whom. Without a password nobody logs in."""

    user: str | None = None
    password: SecretStr | None = None


def parse_url(url: str) -> Target:
    """The target of a `redis://`, `rediss://` or `unix://` address. ValueError says what is wrong without repeating it."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise ValueError(_WRONG_URL) from None
    if parts.username or parts.password:
        raise ValueError("expected an address without a login: use user and password_file")
    if parts.query or parts.fragment:
        raise ValueError(_WRONG_URL)
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        return Target(f"Redis at {parts.path}", "", socket=parts.path)
    number = parts.path.strip("/") or "0"
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname or not (number.isascii() and number.isdigit()):
        raise ValueError(_WRONG_URL)
    return network_target(parts.hostname, port, tls=parts.scheme == "rediss", db=int(number))


def network_target(host: str, port: int, *, tls: bool, db: int) -> Target:
    """The target at a host and a port."""
    return Target(f"Redis at [{host}]:{port}" if ":" in host else f"Redis at {host}:{port}", host, port, None, tls, db)


class Refused(ProbeFailed):
    """The server answered a command with an error. `code`: its first word, such as MISCONF; ERR when it has none."""

    def __init__(self, failure: Failure, code: str) -> None:
        super().__init__(failure.reason, failure.sentence)
        self.code = code


class Session:
    """One connection of one run."""

    def __init__(self, link: AbstractConnection, name: str, hint: str = "") -> None:
        self._link = link
        self._hint = hint
        self.name = name

    async def ask(self, *command: str | int) -> str:
        """The answer to one command, as text. Raises ProbeFailed; the caller keeps the deadline."""
        try:
            await self._link.send_command(*command, check_health=False)
            answer = await self._link.read_response(disable_decoding=True)
        except (RedisError, *_NONSENSE) as error:
            raise explain(error, self.name, self._hint) from None
        if not isinstance(answer, bytes):
            raise ProbeFailed(Reason.GARBAGE, f"{self.name} {_GARBAGE}")
        return answer.decode("utf-8", "replace")


@asynccontextmanager
async def connected(target: Target, login: Login, context: ssl.SSLContext | None, progress: Progress) -> AsyncIterator[Session]:
    """A connection, logged in, closed at the end whatever happens. Raises ProbeFailed or OSError; the caller keeps the deadline."""
    reader, writer = await _open(target, context, progress)
    link = _Link(reader, writer, target, login)
    hint = " (does it ask for a certificate?)" if context is not None else ""
    try:
        progress.enter("logging in" if login.password is not None else "selecting the database" if target.db else "connected")
        try:
            await link.connect()  # type: ignore[no-untyped-call]  # redis-py gives it no types
        except (RedisError, *_NONSENSE) as error:
            raise explain(error, target.name, hint) from None
        yield Session(link, target.name, hint)
    finally:
        await link.disconnect(nowait=True)
        abort(writer.transport)


async def _open(target: Target, context: ssl.SSLContext | None, progress: Progress) -> Streams:
    if target.socket is not None:
        progress.enter(f"connecting to {target.socket}")
        return await asyncio.open_unix_connection(target.socket)
    progress.enter("looking the name up", ours=Reason.UNRESOLVED)
    addresses = await RESOLVER.resolve(target.host)
    for address in addresses[:-1]:
        # A name with several addresses (localhost): the next one is worth a try only when nobody listens at this one.
        try:
            return await _open_at(address, target, context, progress)
        except OSError as error:
            progress.log.add(f"{address}: {clean(error.strerror or 'no answer')}")
    return await _open_at(addresses[-1], target, context, progress)


async def _open_at(address: str, target: Target, context: ssl.SSLContext | None, progress: Progress) -> Streams:
    progress.enter(f"connecting {'' if context is None else 'over TLS '}to {address} port {target.port}")
    if context is None:
        return await asyncio.open_connection(address, target.port)
    try:
        return await asyncio.open_connection(address, target.port, ssl=context, server_hostname=target.host)
    except ssl.SSLCertVerificationError as error:
        failure = explain_certificate(error, target.name)
    except ssl.SSLError as error:
        failure = explain_handshake(error.reason, target.name)
    raise ProbeFailed(failure.reason, failure.sentence)


class _Link(AbstractConnection):
    """redis-py's connection over streams that are open already. It never connects anew: who lost it opens another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target, login: Login) -> None:
        self._streams = (reader, writer)
        self._name = target.name
        super().__init__(
            db=target.db,
            username=login.user,
            password=None if login.password is None else login.password.get_secret_value(),
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
            protocol=2,
        )

    async def _connect(self) -> None:
        self._reader, self._writer = self._streams

    def _host_error(self) -> str:
        return self._name

    def repr_pieces(self) -> list[tuple[str, str | int]]:
        return [("name", self._name)]


# ------------------------------------------------------------------ what failures mean

_NONSENSE = (ValueError, TypeError, AttributeError, RecursionError, EOFError, asyncio.LimitOverrunError)
"""What the protocol's parser raises on bytes that are none of it."""
_GARBAGE = "does not answer as Redis"
_TEXTS: tuple[tuple[str, Reason, str], ...] = (
    (r"^LOADING", Reason.STARTING, "is loading its data and serves nothing yet"),
    (r"^NOAUTH|authentication required", Reason.LOGIN, "demands a password"),
    (r"^WRONGPASS|invalid password|invalid username", Reason.LOGIN, "refuses the login: wrong user or password"),
    (r"without any password|no password is set", Reason.LOGIN, "refuses the login: it has no password, but one is configured here"),
    (r"^NOPERM", Reason.LOGIN, "does not let this user ask: {words}"),
    (r"^DENIED|protected mode", Reason.LOGIN, "refuses the login: it is in protected mode and serves its own host only"),
    (r"max number of clients", Reason.FULL, "has no connection left"),
    (r"^READONLY", Reason.READ_ONLY, "takes no writes: it is a replica"),
    (r"^MASTERDOWN", Reason.FAILED, "serves nothing: its link to the master is down"),
    (r"^MISCONF", Reason.FAILED, "refuses writes: it cannot save its data to disk"),
    (r"^NOREPLICAS", Reason.FAILED, "refuses writes: too few replicas acknowledge them"),
    (r"^OOM", Reason.FAILED, "refuses writes: its memory is full"),
    (r"^BUSY\b", Reason.FAILED, "is busy with a script that does not end"),
    (r"^(MOVED|ASK|CROSSSLOT)\b", Reason.LOCAL, "keeps this key on another member of its cluster"),
    (r"DB index", Reason.NO_DATABASE, "has no database of this number"),
)
"""The server's own words, first match wins. `{words}`: what was said."""


def explain(error: Exception, name: str, hint: str = "") -> ProbeFailed:
    """What an error of the client means; `hint`: why it may have hung up. An error answer of the server becomes Refused."""
    if not isinstance(error, RedisError) or isinstance(error, InvalidResponse):
        return ProbeFailed(Reason.GARBAGE, f"{name} {_GARBAGE}")
    said = " ".join(filter(None, (error.status_code, clean(str(error)))))
    for pattern, reason, sentence in _TEXTS:
        if re.search(pattern, said, re.IGNORECASE):
            return Refused(Failure(reason, f"{name} {sentence.format(words=clean(str(error)))}"), said.partition(" ")[0])
    if isinstance(error, RedisConnectionError):
        failure = _explain_break(error, name, hint)
        return ProbeFailed(failure.reason, failure.sentence)
    return Refused(Failure(Reason.FAILED, f"{name} answered with an error: {said}"), said.partition(" ")[0])


def _explain_break(error: RedisConnectionError, name: str, hint: str) -> Failure:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLError):  # its errno is none
        return explain_handshake(cause.reason, name)
    if isinstance(cause, OSError) and cause.errno is not None:
        failure = explain_os_error(cause, name)
        return replace(failure, sentence=failure.sentence + hint) if failure.reason is Reason.CLOSED else failure
    return Failure(Reason.CLOSED, f"{name} closed the connection in the middle{hint}")
