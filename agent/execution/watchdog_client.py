"""The agent's side of the watchdog: find it or start it, and speak with it.

One request at a time; each has a deadline. An answer that does not come leaves it UNKNOWN whether the request was taken: WatchdogError is
raised, and the connection is given up, so that a late answer is never taken for another one. The death of the watchdog is noticed as soon
as its socket closes. This never ends the watchdog: it has to outlive the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import agent
from agent.clock import Clock, boot_id
from agent.errors import WatchdogError
from agent.instant import Instant, remaining_s
from agent.watchdog import protocol
from agent.watchdog.protocol import Answer, Request

START_TIMEOUT_S = 3.0
TIMEOUT_S = 2.0
FENCE_MARGIN_S = 1.0
"""A fence is answered after fence_budget at the latest; so much more is given to the answer."""
POLL_S = 0.01
LARGEST_LOG = 256 * 1024
KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG")
"""All that a started watchdog gets of the agent's environment: no secret, no notification socket."""

_Answer = TypeVar("_Answer", bound=Answer)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A deadline that the watchdog has in force."""

    epoch: int
    deadline: Instant
    nonce: str


@dataclass(frozen=True, slots=True)
class Armed:
    """What the watchdog holds for a group. `paused`: suspended in this epoch; the deadline does not pass until it is handed over anew."""

    epoch: int
    deadline: Instant
    nonce: str
    paused: bool = False


@dataclass(frozen=True, slots=True)
class FenceResult:
    """How a fence ended. `left` = 0 is the proof that nothing of the service lives."""

    left: int
    killed: int


class WatchdogClient:
    """A connection to the watchdog of one state folder. `on_death` is called once for each connection that is lost, from the loop."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._socket: socket.socket | None = None
        self._pending: asyncio.Future[bytes] | None = None
        self._turn = asyncio.Lock()
        self._child: int | None = None
        self._greeting: protocol.Greeting | None = None
        self._budgets: dict[str, float] = {}
        self.on_death: Callable[[], None] | None = None

    @property
    def alive(self) -> bool:
        """Whether a watchdog that was greeted is still connected."""
        return self._socket is not None and self._greeting is not None

    @property
    def greeting(self) -> protocol.Greeting | None:
        """Who answers, and which protections of its own it has; None without a connection."""
        return self._greeting if self.alive else None

    # ------------------------------------------------------------------ finding it

    async def connect(self, *, spawn: bool) -> None:
        """Connect; with `spawn`, start a watchdog if none answers. WatchdogError after 3 s, or if it is none that can be relied on."""
        if self.alive:
            return
        self._reap()
        end = self._clock.now().after(START_TIMEOUT_S)
        connection = self._try_connect()
        if connection is None and spawn:
            await asyncio.to_thread(self._start)
            while connection is None and remaining_s(end, self._clock.now()) > 0:
                await asyncio.sleep(POLL_S)
                connection = self._try_connect()
        if connection is None:
            raise WatchdogError(f"no watchdog answers in {self._state_dir}{self._last_words() if spawn else ''}")
        self._socket = connection
        asyncio.get_running_loop().add_reader(connection, self._readable)
        await self._greet()

    def _try_connect(self) -> socket.socket | None:
        """Connect through /proc: a socket's path has room for 107 bytes only."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        folder = -1
        try:
            folder = os.open(self._state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            connection.connect(f"/proc/self/fd/{folder}/{protocol.SOCKET}")
        except OSError:
            connection.close()
            return None
        finally:
            if folder >= 0:
                os.close(folder)
        return connection

    async def _greet(self) -> None:
        try:
            greeting = await self._ask(protocol.Hello(), protocol.Greeting, TIMEOUT_S)
            self._check(greeting)
        except WatchdogError:
            self._hang_up()
            raise
        self._greeting = greeting

    @staticmethod
    def _check(greeting: protocol.Greeting) -> None:
        """Two processes mean the same moment only in one boot and one time namespace."""
        if greeting.protocol != protocol.VERSION:
            raise WatchdogError(f"the watchdog (pid {greeting.pid}) speaks protocol {greeting.protocol}, this agent {protocol.VERSION}")
        if greeting.boot_id != boot_id():
            raise WatchdogError(f"the watchdog (pid {greeting.pid}) counts from another boot")
        if greeting.time_namespace != _time_namespace():
            raise WatchdogError(f"the watchdog (pid {greeting.pid}) lives in another time namespace: its clocks are not ours")

    def _start(self) -> None:
        """Start it in a session of its own, with nothing of ours but a log file."""
        log = self._state_dir / protocol.LOG
        program = Path(agent.__file__).with_name("__main__.py")
        command = [sys.executable, "-I", "-S", str(program), "watchdog", "--state-dir", str(self._state_dir.absolute())]
        try:
            if log.exists() and log.stat().st_size > LARGEST_LOG:
                log.replace(log.with_suffix(".log.old"))
            self._child = os.posix_spawn(
                sys.executable,
                command,
                {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ},
                setsid=True,
                setsigmask=(),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                    (os.POSIX_SPAWN_DUP2, 2, 1),
                ],
            )
        except OSError as error:
            raise WatchdogError(f"the watchdog cannot be started: {error.strerror} ({error.filename or self._state_dir})") from error

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self._state_dir / protocol.LOG).read_bytes()[-1000:].decode("utf-8", "replace").splitlines()
            return f"; its last words: {lines[-1]}" if lines else ""
        return ""

    def _reap(self) -> bool:
        """A watchdog that we started is our child: take it off the list when it is dead. Whether it still lives."""
        if self._child is None:
            return False
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(self._child, os.WNOHANG)[0] == 0:
                return True
        self._child = None
        return False

    # ------------------------------------------------------------------ what can be asked of it

    async def register(self, group: str, data_dir: Path, uid: int, fence_budget_s: float, addresses: tuple[str, ...] = ()) -> None:
        """Have a service guarded: held from now on, fenced when its deadline passes. The same again is harmless.

        `addresses`, such as `192.0.2.100/24`, are taken off this host once the service is fenced.
        """
        request = _registration(group, data_dir, uid, fence_budget_s, addresses)
        await self._ask(request, protocol.Done, TIMEOUT_S)
        self._budgets[group] = fence_budget_s

    async def hand_over(self, group: str, epoch: int, deadline: Instant, nonce: str, timeout_s: float) -> Acknowledged:
        """Arm or move the deadline; what is in force then. WatchdogError: refused, or unknown."""
        request = protocol.HandOver(group, epoch, deadline.boot_ns, deadline.raw_ns, nonce)
        answer = await self._ask(request, protocol.Acknowledged, timeout_s)
        if (answer.epoch, answer.boot_ns, answer.raw_ns, answer.nonce) != (epoch, deadline.boot_ns, deadline.raw_ns, nonce):
            self._lose()
            raise WatchdogError("the watchdog acknowledged another deadline than it was given")
        return Acknowledged(epoch, deadline, nonce)

    async def adopt(self, group: str) -> Armed | None:
        """What is armed (or paused) for this group; None: nothing, or it is being fenced."""
        report = await self._ask(protocol.Adopt(group), protocol.GroupReport, TIMEOUT_S)
        if report.phase not in {"armed", "paused"}:
            return None
        return Armed(report.epoch, Instant(report.boot_ns, report.raw_ns), report.nonce, report.phase == "paused")

    async def fence_now(self, group: str) -> FenceResult:
        """Kill the service now; answered when it is proven dead, or after its fence_budget. Nothing is armed afterwards."""
        answer = await self._ask(
            protocol.FenceNow(group), protocol.Fenced, self._budgets.get(group, protocol.LONGEST_BUDGET_S) + FENCE_MARGIN_S
        )
        return FenceResult(answer.left, answer.killed)

    async def suspend(self, group: str, epoch: int) -> None:
        """After a pause of this epoch is committed: no deadline passes and nothing is held until the next hand_over."""
        await self._ask(protocol.Suspend(group, epoch), protocol.Done, TIMEOUT_S)

    async def release(self, group: str) -> None:
        """Disarm a service that is not writable (the watchdog looks itself). It is held from then on."""
        await self._ask(protocol.Release(group), protocol.Done, TIMEOUT_S)

    async def status(self) -> tuple[protocol.GroupReport, ...]:
        """Everything that it guards."""
        return (await self._ask(protocol.Status(), protocol.Report, TIMEOUT_S)).groups

    async def close(self) -> None:
        """End the connection; the watchdog and its deadlines stay."""
        self._hang_up()

    # ------------------------------------------------------------------ one request, one answer

    async def _ask(self, request: Request, kind: type[_Answer], timeout_s: float) -> _Answer:
        try:
            await asyncio.wait_for(self._turn.acquire(), timeout_s)
        except TimeoutError:
            raise WatchdogError("the watchdog is still busy with another request: this one was not sent") from None
        try:
            data = await self._exchange(protocol.encode(request), timeout_s)
        finally:
            self._turn.release()
        return self._read(data, kind)

    async def _exchange(self, message: bytes, timeout_s: float) -> bytes:
        if self._socket is None:
            raise WatchdogError("there is no connection to the watchdog")
        answer = self._pending = asyncio.get_running_loop().create_future()
        try:
            self._socket.send(message)
            return await asyncio.wait_for(answer, timeout_s)
        except asyncio.CancelledError:
            self._pending = None
            self._hang_up()  # its answer would be taken for the next one's
            raise
        except OSError as error:  # a timeout is one, too
            self._pending = None
            self._lose()
            raise WatchdogError("the watchdog did not answer: whether it took the request is unknown") from error
        finally:
            self._pending = None

    def _read(self, data: bytes, kind: type[_Answer]) -> _Answer:
        try:
            answer = protocol.decode_answer(data)
        except protocol.Malformed as error:
            self._lose()
            raise WatchdogError(f"the watchdog answered nonsense: {error}") from None
        if isinstance(answer, protocol.Refused):
            raise WatchdogError(f"the watchdog refused: {answer.sentence}")
        if not isinstance(answer, kind):
            self._lose()
            raise WatchdogError(f"the watchdog answered {type(answer).__name__} where {kind.__name__} belongs")
        return answer

    def _readable(self) -> None:
        """An answer, or the end of the connection."""
        if self._socket is None:
            return
        try:
            data = self._socket.recv(protocol.LARGEST_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or self._pending is None:
            self._lose()
        elif not self._pending.done():
            self._pending.set_result(data)

    def _lose(self) -> None:
        """The connection is gone or cannot be trusted any more."""
        was_alive = self.alive
        self._hang_up()
        if was_alive and self.on_death is not None:
            self.on_death()

    def _hang_up(self) -> None:
        connection, self._socket, self._greeting = self._socket, None, None
        if connection is not None:
            asyncio.get_running_loop().remove_reader(connection)
            connection.close()
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(ConnectionResetError("the watchdog's socket closed"))


def _registration(group: str, data_dir: Path, uid: int, fence_budget_s: float, addresses: tuple[str, ...]) -> protocol.Register:
    request = protocol.Register(group, os.path.realpath(data_dir), uid, fence_budget_s, addresses)
    try:
        protocol.check_registration(request)
    except protocol.Malformed as error:
        raise WatchdogError(f"the watchdog cannot guard {data_dir}: {error}") from None
    return request


def _time_namespace() -> int:
    with contextlib.suppress(OSError):
        return Path("/proc/self/ns/time").stat().st_ino
    return 0
