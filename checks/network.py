"""What every check over a network needs: names looked up without blocking, failures named, one deadline around all of it.

A failure is either the target's (it refuses, hangs, talks nonsense: UNHEALTHY) or ours (a wrong password, an unknown name, no trust in
its certificate: UNKNOWN), because a check that could not ask must never count as down. Sentences never hold a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from checks.base import Result, RunLog, Status


class Reason(StrEnum):
    """Why a target could not be asked or did not answer well. Those of OURS say nothing of the target."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    CLOSED = "closed"
    GARBAGE = "garbage"
    STARTING = "starting"
    STOPPING = "stopping"
    FULL = "full"
    FAILED = "failed"
    """It answered with an error of its own."""
    READ_ONLY = "read_only"
    UNRESOLVED = "unresolved"
    LOGIN = "login"
    NO_DATABASE = "no_database"
    TLS = "tls"
    LOCAL = "local"
    """Something of this host or of the options: no file descriptors, no route, a file that cannot be read."""


OURS = frozenset({Reason.UNRESOLVED, Reason.LOGIN, Reason.NO_DATABASE, Reason.TLS, Reason.LOCAL})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no good answer, in one sentence."""

    reason: Reason
    sentence: str

    @property
    def status(self) -> Status:
        """UNKNOWN where the fault is ours, else UNHEALTHY."""
        return Status.UNKNOWN if self.reason in OURS else Status.UNHEALTHY


class ProbeFailed(Exception):
    """Ends a probe with a failure that is already explained."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.failure = Failure(reason, sentence)


_BY_ERRNO = {
    errno.ECONNREFUSED: (Reason.REFUSED, "{target} refuses connections"),
    errno.ENOENT: (Reason.REFUSED, "{target} does not exist: nothing listens there"),
    errno.ETIMEDOUT: (Reason.TIMEOUT, "{target} does not answer: the connection timed out"),
    errno.EAGAIN: (Reason.TIMEOUT, "{target} takes no more connections: its queue is full"),
    errno.EHOSTUNREACH: (Reason.UNREACHABLE, "{target} cannot be reached: no route to the host"),
    errno.EHOSTDOWN: (Reason.UNREACHABLE, "{target} cannot be reached: its host is down"),
    errno.ECONNRESET: (Reason.CLOSED, "{target} closed the connection in the middle"),
    errno.ECONNABORTED: (Reason.CLOSED, "{target} closed the connection in the middle"),
    errno.EPIPE: (Reason.CLOSED, "{target} closed the connection in the middle"),
    errno.ENETUNREACH: (Reason.LOCAL, "this host has no route to {target}"),
    errno.ENETDOWN: (Reason.LOCAL, "this host's network is down"),
    errno.EMFILE: (Reason.LOCAL, "this process has no file descriptors left to ask {target}"),
    errno.ENFILE: (Reason.LOCAL, "this host has no file descriptors left to ask {target}"),
    errno.EADDRNOTAVAIL: (Reason.LOCAL, "this host has no free local address or port to ask {target}"),
    errno.EACCES: (Reason.LOCAL, "this host does not permit to connect to {target}"),
    errno.EPERM: (Reason.LOCAL, "this host does not permit to connect to {target}"),
}


def explain_os_error(error: OSError, target: str) -> Failure:
    """The failure that an error of the socket layer means for `target`."""
    if isinstance(error, socket.gaierror):
        return Failure(Reason.UNRESOLVED, f"the name of {target} cannot be resolved: {error.strerror}")
    number = error.errno if error.errno is not None else errno.ETIMEDOUT if isinstance(error, TimeoutError) else 0
    reason, template = _BY_ERRNO.get(number, (Reason.LOCAL, "cannot connect to {target}: " + clean(error.strerror or type(error).__name__)))
    return Failure(reason, template.format(target=target))


def clean(text: str, limit: int = 200) -> str:
    """Text from outside as one bounded printable line."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 10 * limit])
    line = " ".join(printable.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


@dataclass(slots=True)
class Progress:
    """Where a probe is: what its deadline cuts short decides whose fault that is."""

    log: RunLog
    step: str = "start"
    ours: Reason | None = None
    started: float = field(default_factory=time.monotonic)

    def enter(self, step: str, *, ours: Reason | None = None) -> None:
        """A new step begins; `ours`: a deadline that passes in it is our fault, for this reason."""
        self.step, self.ours = step, ours
        self.log.add(f"{self.elapsed_s:.3f} s: {step}")

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started


def abort(transport: asyncio.WriteTransport) -> None:
    """End a connection at once, also one that is gone already."""
    with contextlib.suppress(AttributeError):  # before Python 3.11.4 that of a TLS transport raises one then
        transport.abort()


async def within(target: str, timeout_s: float, progress: Progress, question: Awaitable[Result]) -> Result:
    """`question`'s Result, or its failure, or its deadline as a Result: never an exception (but cancellation)."""
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            result = await question
    except ProbeFailed as failed:
        result = _as_result(failed.failure)
    except OSError as error:
        cut_short = isinstance(error, TimeoutError) and deadline.expired()
        result = _as_result(late(target, timeout_s, progress) if cut_short else explain_os_error(error, target))
    except Exception as error:  # noqa: BLE001 (a check never raises: what nobody foresaw is our own fault, and says so)
        result = _as_result(Failure(Reason.LOCAL, f"the check of {target} itself failed: {type(error).__name__}"))
    latency_s = progress.elapsed_s
    progress.log.add(f"{latency_s:.3f} s: {result.status}: {result.sentence}")
    return replace(result, latency_s=latency_s, log=tuple(progress.log.lines))


def _as_result(failure: Failure) -> Result:
    return Result(failure.status, failure.sentence)


def late(target: str, timeout_s: float, progress: Progress) -> Failure:
    """The failure of a deadline that passed in the step that `progress` is in."""
    if progress.ours is Reason.UNRESOLVED:
        return Failure(Reason.UNRESOLVED, f"the name of {target} was not resolved within {timeout_s:g} s: the name service does not answer")
    return Failure(progress.ours or Reason.TIMEOUT, f"{target} gave no answer within {timeout_s:g} s ({progress.step})")


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`. ValueError says what was expected."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or host != host.strip() or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= 65535:
        raise ValueError("expected HOST:PORT, such as 192.0.2.1:443, db.example.test:5432 or [2001:db8::1]:443")
    return host, int(port)


Lookup = Callable[[str], list[str]]


def _getaddrinfo(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Resolver:
    """Looks names up in threads of its own: a name service that hangs costs one thread a name, and never the loop or its executor."""

    def __init__(self, lookup: Lookup = _getaddrinfo) -> None:
        self._lookup = lookup
        self._pending: dict[tuple[int, str], asyncio.Future[list[str]]] = {}

    async def resolve(self, host: str) -> list[str]:
        """The addresses of `host`, at least one. Raises ProbeFailed(UNRESOLVED); the caller keeps the deadline."""
        if is_address(host):
            return [host]
        loop = asyncio.get_running_loop()
        key = (id(loop), host)
        answer = self._pending.get(key)
        if answer is None:
            answer = self._pending[key] = loop.create_future()
            threading.Thread(target=self._look_up, args=(host, key, loop, answer), daemon=True, name=f"lookup {host}"[:15]).start()
        try:
            return await asyncio.shield(answer)
        except OSError as error:
            raise ProbeFailed(Reason.UNRESOLVED, f"the host name {host} cannot be resolved: {error.strerror or error}") from None
        except UnicodeError:
            raise ProbeFailed(Reason.UNRESOLVED, f"{clean(host)} is not a host name") from None

    def _look_up(self, host: str, key: tuple[int, str], loop: asyncio.AbstractEventLoop, answer: asyncio.Future[list[str]]) -> None:
        addresses: list[str] = []
        problem: Exception | None = None
        try:
            addresses = self._lookup(host)
        except (OSError, UnicodeError) as error:
            problem = error
        self._pending.pop(key, None)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_settle, answer, addresses, problem)


def _settle(answer: asyncio.Future[list[str]], addresses: list[str], problem: Exception | None) -> None:
    if answer.done():
        return
    if problem is None:
        answer.set_result(addresses)
    else:
        answer.set_exception(problem)
        answer.exception()  # nobody may be waiting any more


def is_address(host: str) -> bool:
    """Whether `host` is a literal IP address."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


RESOLVER = Resolver()
"""The process's own: one lookup a name at a time, whoever asks."""
