"""A Postgres asked with care: every connection ends in time whatever the server does, and every failure has its own name.

psycopg, when cancelled, asks the server to cancel and waits for it: for ever with a stopped server in older versions, for seconds in newer.
So a question that is cut short has its socket shut first. Failures while connecting come as text only; the server's language may be any,
so what the text does not tell is asked once more in the plain protocol, which has codes. No password ever gets into a sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from checks.base import RunLog
from checks.network import OURS, RESOLVER, Failure, ProbeFailed, Progress, Reason, clean, explain_os_error, is_address, late

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
T = TypeVar("T")

_CUT_GRACE_S = 1.0
_PLAIN_QUESTION_S = 1.0
_PROTOCOL_3 = (196608).to_bytes(4, "big")
_TLS_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
_LET_IN = (0).to_bytes(4, "big")
"""AuthenticationOk: a login without a password."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one server is asked and as whom. The conninfo holds no password."""

    conninfo: str
    name: str
    """`host:port` or the socket's folder, for sentences."""
    host: str
    port: int
    password: SecretStr | None = None
    startup_packet: bytes = b""
    """What a newcomer says first, in the plain protocol."""

    @property
    def is_socket(self) -> bool:
        return self.host.startswith(("/", "@"))


def parse_target(dsn: str, password: SecretStr | None = None) -> Target:
    """The target of a libpq connection string that names one host. ValueError says what is wrong without repeating the string."""
    try:
        parameters = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.Error:
        raise ValueError("expected a libpq connection string, such as `host=127.0.0.1 user=quorate`") from None
    host = parameters.get("host") or parameters.get("hostaddr") or os.environ.get("PGHOST") or "/var/run/postgresql"
    port = parameters.get("port") or os.environ.get("PGPORT") or "5432"
    if "," in host or "," in port:
        raise ValueError("expected one host: a check asks one server")
    if not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError("expected a port between 1 and 65535")
    inline = parameters.pop("password", None)
    for handled in ("connect_timeout", "target_session_attrs", "load_balance_hosts"):
        parameters.pop(handled, None)
    settings = {"gssencmode": "disable", "fallback_application_name": "quorate", **parameters, "host": host, "port": port}
    secret = password or (SecretStr(inline) if inline else None)
    name = f"Postgres at {host}" + (f" (port {port})" if host.startswith("/") else f":{port}")
    return Target(make_conninfo("", **settings), name, host, int(port), secret, _startup_packet(parameters))


def _startup_packet(parameters: Mapping[str, str]) -> bytes:
    user = parameters.get("user") or "quorate"
    said = {"user": user, "database": parameters.get("dbname") or user}
    packet = _PROTOCOL_3 + b"".join(f"{key}\0{value}\0".encode() for key, value in said.items()) + b"\0"
    return (len(packet) + 4).to_bytes(4, "big") + packet


async def connect(target: Target, progress: Progress) -> Connection:
    """A new connection in autocommit. Raises ProbeFailed; the caller keeps the deadline and may cancel at any moment."""
    if target.is_socket:
        return await _connect_once(target, None, progress)
    addresses = [target.host]
    if not is_address(target.host):
        progress.enter("looking the name up", ours=Reason.UNRESOLVED)
        addresses = await RESOLVER.resolve(target.host)
    for address in addresses[:-1]:
        # A name with several addresses (localhost): the next one is worth a try only when nobody listens at this one.
        try:
            return await _connect_once(target, address, progress)
        except ProbeFailed as failed:
            if failed.failure.reason not in {Reason.REFUSED, Reason.UNREACHABLE, Reason.LOCAL}:
                raise
    return await _connect_once(target, addresses[-1], progress)


async def _connect_once(target: Target, address: str | None, progress: Progress) -> Connection:
    progress.enter(f"connecting to {address or target.host} port {target.port}")
    extra: dict[str, Any] = {} if address is None else {"hostaddr": address}
    if target.password is not None:
        extra["password"] = target.password.get_secret_value()
    try:
        return await psycopg.AsyncConnection.connect(target.conninfo, autocommit=True, prepare_threshold=None, connect_timeout=0, **extra)
    except psycopg.Error as error:
        failure = await _explain_connect(error, target, address)
    raise ProbeFailed(failure.reason, failure.sentence)


async def run_bounded(connection: Connection, question: Coroutine[Any, Any, T]) -> T:
    """Await `question` on `connection`; when cancelled, shut the socket: nothing waits, the connection is dead."""
    task = asyncio.ensure_future(question)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cut(connection)
        task.add_done_callback(_forget)
        await asyncio.wait({task}, timeout=_CUT_GRACE_S)
        raise


def _forget(task: asyncio.Future[T]) -> None:
    """Take the error of a question that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def cut(connection: Connection) -> None:
    """End whatever goes on in `connection` at once, without a word to the server."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as handle:
        handle.shutdown(socket.SHUT_RDWR)


async def ask(connection: Connection, sql: str, target_name: str) -> Any:
    """The first column of the only row of `sql` (one round trip). Raises ProbeFailed; cancellation leaves nothing behind."""
    try:
        row = await run_bounded(connection, _fetch(connection, sql))
    except psycopg.Error as error:
        failure = explain_query(error, target_name)
        raise ProbeFailed(failure.reason, failure.sentence) from None
    if row is None:
        raise ProbeFailed(Reason.GARBAGE, f"{target_name} answered nothing")
    return row[0]


async def _fetch(connection: Connection, sql: str) -> tuple[Any, ...] | None:
    async with connection.cursor() as cursor:
        await cursor.execute(sql.encode())
        while cursor.nextset():  # a SET may stand before the question, in the same round trip
            pass
        return await cursor.fetchone()


# ------------------------------------------------------------------ what failures mean

_GARBAGE = "does not answer as Postgres"
_CLOSED = "closed the connection in the middle"
_STARTING = "is starting up and takes no connections yet"
_TEXTS: tuple[tuple[str, Reason, str], ...] = (
    (r"database system is (starting up|in recovery mode|not yet accepting)", Reason.STARTING, _STARTING),
    (r"database system is not accepting", Reason.STARTING, "is in recovery and takes no connections"),
    (r"database system is shutting down|terminating connection due to", Reason.STOPPING, "is shutting down"),
    (r"too many clients|remaining connection slots|too many connections", Reason.FULL, "has no connection left"),
    (r"password authentication failed|no password supplied", Reason.LOGIN, "refuses the login: wrong or missing password"),
    (r"authentication failed|no pg_hba.conf entry|pg_hba.conf rejects", Reason.LOGIN, "refuses the login: {words}"),
    (r'role ".*" (does not exist|is not permitted)', Reason.LOGIN, "refuses the login: {words}"),
    (r'database ".*" (does not exist|is not currently)|for database ".*"', Reason.NO_DATABASE, "does not give the database: {words}"),
    (r"closed the connection|connection reset|broken pipe|\bEOF\b|could not (receive|send) data", Reason.CLOSED, _CLOSED),
    (r"invalid response to SSL|expected authentication request|error response during SSL", Reason.GARBAGE, _GARBAGE),
    (r"unexpected message|lost synchronization|invalid message|unexpected response|insufficient data", Reason.GARBAGE, _GARBAGE),
    (r"does not support SSL", Reason.TLS, "offers no TLS, but the connection string demands it"),
    (r"certificate|\bSSL\b|sslmode|private key", Reason.TLS, "is not trusted or does not speak TLS as expected: {words}"),
    (r"connection refused", Reason.REFUSED, "refuses connections"),
    (r"no such file or directory", Reason.REFUSED, "does not exist: nothing listens there"),
    (r"no route to host|host is down", Reason.UNREACHABLE, "cannot be reached: no route to the host"),
    (r"timeout expired|timed out", Reason.TIMEOUT, "does not answer: the connection timed out"),
    (r"resource temporarily unavailable", Reason.TIMEOUT, "takes no more connections: its queue is full"),
    (r"network is unreachable|permission denied|too many open files|cannot assign", Reason.LOCAL, "cannot be asked from here: {words}"),
)
"""libpq's own words and the server's English ones, first match wins. `{words}`: what was said."""

_CODES: dict[str, tuple[Reason, str]] = {
    "57P03": (Reason.STARTING, "takes no connections now"),
    "57P01": (Reason.STOPPING, "is shutting down"),
    "57P02": (Reason.STOPPING, "has crashed and begins anew"),
    "57014": (Reason.TIMEOUT, "did not finish the question in time"),
    "53300": (Reason.FULL, "has no connection left"),
    "3D000": (Reason.NO_DATABASE, "has no such database"),
    "28P01": (Reason.LOGIN, "refuses the login: wrong or missing password"),
    "28000": (Reason.LOGIN, "refuses the login"),
    "42501": (Reason.LOGIN, "does not let this role ask (GRANT pg_monitor): {words}"),
}


def explain_text(text: str, name: str) -> Failure | None:
    """The failure that libpq's words mean; None: not known (the server may speak another language)."""
    said = _said(text)
    for pattern, reason, sentence in _TEXTS:
        if re.search(pattern, said, re.IGNORECASE):
            return Failure(reason, f"{name} {sentence.format(words=said)}")
    return None


def _said(text: str) -> str:
    """What was said, without the names of host and port before it (they are anything) and without the severity."""
    first = re.sub(r'connection to server (at|on socket) ".*?".*? failed: ', "", text.removeprefix("connection failed: "))
    return clean(re.sub(r"^(connection is bad: )?\s*((FATAL|ERROR):\s+)?", "", first))


def explain_query(error: psycopg.Error, name: str) -> Failure:
    """The failure that an error of a running question means."""
    known = _CODES.get(error.sqlstate or "")
    words = _said(str(error))
    if known is not None:
        return Failure(known[0], f"{name} {known[1].format(words=words)}")
    if error.sqlstate is None:
        return explain_text(str(error), name) or Failure(Reason.CLOSED, f"{name} broke off the connection: {words}")
    return Failure(Reason.FAILED, f"{name} answered with an error: {words}")


async def _explain_connect(error: psycopg.Error, target: Target, address: str | None) -> Failure:
    """By libpq's words, else by the code that the server gives in the plain protocol, else in the server's own words, as our fault."""
    text = str(error)
    known = explain_text(text, target.name)
    if known is not None:
        return known
    state = await _plain_sqlstate(target, address)
    if isinstance(state, Failure):
        return state
    if state in _CODES and _CODES[state][0] not in OURS:
        reason, sentence = _CODES[state]
        return Failure(reason, f"{target.name} {sentence}")
    return Failure(Reason.LOGIN, f"{target.name} does not let us in: {_said(text)}")


async def _plain_sqlstate(target: Target, address: str | None) -> str | Failure:
    """The code with which the server refuses a plain start-up, empty if it does not refuse, or how that question failed."""
    garbage = Failure(Reason.GARBAGE, f"{target.name} does not answer as Postgres")
    try:
        async with asyncio.timeout(_PLAIN_QUESTION_S):
            kind, body = await _plain_startup(target, address)
    except OSError as error:
        return explain_os_error(error, target.name)
    except (EOFError, ValueError):
        return garbage
    if kind == b"R":
        return ""
    codes = [part[1:] for part in body.split(b"\0") if part[:1] == b"C"]
    return codes[0].decode("ascii", "replace") if kind == b"E" and codes else garbage


async def _plain_startup(target: Target, address: str | None) -> tuple[bytes, bytes]:
    """Type and body of the server's first message."""
    said = await _exchange(target, address, target.startup_packet, _first_message_bytes)
    return said[:1], said[5:]


def _first_message_bytes(said: bytes) -> int:
    """How long the first message is, as far as that is known. ValueError: it is none of a server's to a newcomer."""
    if len(said) < 5:
        return 5
    size = int.from_bytes(said[1:5], "big") - 4
    if said[:1] not in {b"R", b"E"} or not 0 <= size <= 8192:
        raise ValueError("not a start-up answer")
    return 5 + size


async def _exchange(target: Target, address: str | None, packet: bytes, wanted_bytes: Callable[[bytes], int]) -> bytes:
    """What the server says first to `packet`, over a connection of its own. By hand: this runs for every reused connection."""
    loop = asyncio.get_running_loop()
    family = socket.AF_UNIX if address is None else socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as handle:
        handle.settimeout(0)
        await loop.sock_connect(handle, f"{target.host}/.s.PGSQL.{target.port}" if address is None else (address, target.port))
        await loop.sock_sendall(handle, packet)
        said = b""
        while (missing := wanted_bytes(said) - len(said)) > 0:
            part = await loop.sock_recv(handle, missing)
            if not part:
                raise EOFError("hung up")
            said += part
        return said


async def takes_newcomers(connection: Connection, target: Target) -> bool:
    """Whether the server of `connection` takes a new connection up to the login; False: connect, to see why not. The caller has a deadline.

    It has to fork, find a free slot and ask for the password, which it does not get: it logs nothing of that. Over TLS the question is only
    whether it talks TLS. A login without a password is no work that could be saved: then the answer is False.
    """
    pgconn = connection.pgconn
    if not pgconn.used_password:
        return False
    address = None if target.is_socket else connection.info.hostaddr
    try:
        if pgconn.ssl_in_use:
            return await _exchange(target, address, _TLS_REQUEST, lambda _: 1) == b"S"
        kind, body = await _plain_startup(target, address)
    except (OSError, EOFError, ValueError):
        return False
    return kind == b"R" and body[:4] != _LET_IN


# ------------------------------------------------------------------ for observers


@dataclass(frozen=True, slots=True)
class Writable:
    """Whether a server takes writes, as seen from here. None: cannot tell, because the fault is ours or it has no place for us."""

    writable: bool | None
    reason: Reason | None
    """Why not, or why nobody can tell; None: it takes writes."""
    sentence: str
    latency_s: float = 0.0


_IN_RECOVERY = "SELECT pg_is_in_recovery()"


async def is_writable(target: Target, timeout_s: float) -> Writable:
    """Ask one server over a fresh connection whether it takes writes. Never raises (but cancellation); ends within about `timeout_s`.

    False also where nothing usable answers (refused, timeout, starting, garbage): from here it cannot be written to. A full server
    may well take the writes of others, so that is None.
    """
    progress = Progress(RunLog())
    try:
        async with asyncio.timeout(timeout_s):
            in_recovery = await _ask_recovery(target, timeout_s, progress)
    except ProbeFailed as failed:
        return _not_seen(failed.failure, progress)
    except TimeoutError:
        return _not_seen(late(target.name, timeout_s, progress), progress)
    if in_recovery:
        return _seen(Reason.READ_ONLY, f"{target.name} is in recovery: it takes no writes", progress)
    return _seen(None, f"{target.name} takes writes", progress)


async def _ask_recovery(target: Target, timeout_s: float, progress: Progress) -> bool:
    connection = await connect(target, progress)
    try:
        progress.enter("asking whether it is in recovery")
        return bool(await ask(connection, bounded_sql(_IN_RECOVERY, timeout_s), target.name))
    finally:
        await connection.close()


def bounded_sql(sql: str, timeout_s: float) -> str:
    """`sql` with a limit of the server's own before it, so that no backend stays behind when we have gone."""
    return f"SET statement_timeout = {max(1, round(timeout_s * 1000))}; {sql}"


def _seen(reason: Reason | None, sentence: str, progress: Progress) -> Writable:
    return Writable(reason is None, reason, sentence, progress.elapsed_s)


def _not_seen(failure: Failure, progress: Progress) -> Writable:
    answer = None if failure.reason in OURS or failure.reason is Reason.FULL else False
    return Writable(answer, failure.reason, failure.sentence, progress.elapsed_s)
