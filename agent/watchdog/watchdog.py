"""The watchdog's process: `quorate watchdog --state-dir DIR`. One a node; it outlives the agent and never trusts it to be alive.

One thread, one loop: fence what is due, answer what was asked, sleep until the next deadline or look. No fork, no network, no agent; only
the standard library, so that it stays small enough to be locked in memory. It refuses to end while it is the only one who would fence.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from types import FrameType

from agent.watchdog import host
from agent.watchdog.deadline import NANOSECONDS, Moment
from agent.watchdog.door import Door
from agent.watchdog.folder import Folder, FolderError
from agent.watchdog.guard import Guard
from agent.watchdog.process import start_ticks, strike
from agent.watchdog.protocol import (
    LOG,
    VERSION,
    Adopt,
    Answer,
    FenceNow,
    Greeting,
    HandOver,
    Hello,
    Register,
    Release,
    Request,
    Suspend,
)

USAGE = """\
usage: quorate watchdog --state-dir DIR

Guards the services of this node: it kills a service whose deadline passed, and any writable one that has no deadline.
DIR is the node's own state folder, the same as the agent's (state_dir/NODE; it must exist); one watchdog a folder.
Run it as the agent's user or root. To take a VIP off it needs CAP_NET_ADMIN.

example: quorate watchdog --state-dir /var/lib/quorate/pg1
"""
EXIT_OK, EXIT_REFUSED, EXIT_USAGE = 0, 1, 64
IGNORED = ("SIGHUP", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGTSTP", "SIGTTIN", "SIGTTOU")
PAUSE_AFTER_FAULT_S = 0.01
ENDING = ("SIGTERM", "SIGINT", "SIGQUIT")


class Watchdog:
    """Everything of one process, wired together."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._voice = host.Voice(folder.identity_of(LOG))
        self._supervisor = host.Supervisor()
        self._guard = Guard(self._voice.say, folder.keep_groups)
        self._waiting: list[tuple[socket.socket, str]] = []
        """Clients that asked for a fence, and for which group."""
        self._asked_to_end = False
        self._next_check_ns = 0
        self._privileges = host.Privileges("no", "no", "no")
        self._door = Door(folder.listen(), self._handle)

    def run(self) -> int:
        """Guard until asked to end, when that is safe. The exit code."""
        self._prepare()
        while True:
            try:
                if self._turn():
                    return EXIT_OK
            except Exception as error:  # noqa: BLE001 - whatever it is (no memory, a fault of ours): nobody else would fence
                self._voice.say(f"a turn failed and is tried again: {error!r}")
                time.sleep(PAUSE_AFTER_FAULT_S)

    def _turn(self) -> bool:
        """Fence and hold, then wait and answer. Whether to end."""
        self._guard.turn()
        now = host.moment()
        self._answer_waiting(now)
        self._supervisor.alive(now)
        if self._may_end(now):
            return True
        self._door.wait_and_serve(self._wait_ms(now))
        return False

    def _prepare(self) -> None:
        wake, self._wake_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for name in ENDING:
            signal.signal(getattr(signal, name), self._note_end)
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        self._door.also_wake_for(wake)
        try:
            self._guard.remember(self._folder.read_groups())
        except FolderError as error:
            self._voice.say(f"{error}: nothing is held until an agent registers")
        self._privileges = host.take_privileges()
        strike(self._folder.path, (1 << 32) - 2)  # nobody's: brings the code and the memory of a fence in before they are needed
        gc.collect()
        gc.freeze()
        self._voice.say(
            f"guarding {self._folder.path}; memory locked: {self._privileges.memory_locked}; real-time: {self._privileges.real_time}; "
            f"spared by the OOM killer: {self._privileges.oom_protected}"
        )
        self._supervisor.ready()

    def _note_end(self, _number: int, _frame: FrameType | None) -> None:
        self._asked_to_end = True

    def _wait_ms(self, now: Moment) -> int:
        """Rounded up, so that the loop does not spin through a deadline's last millisecond."""
        return min(-(-self._guard.wait_ns(now) // 1_000_000), self._supervisor.wait_ms(now))

    def _may_end(self, now: Moment) -> bool:
        if self._asked_to_end:
            self._asked_to_end = False
            why_not = self._guard.is_needed()
            if not why_not:
                self._voice.say("ending, as asked: nothing is held from now on")
                return True
            self._voice.say(f"refusing to end: {why_not}")
        if now.raw_ns < self._next_check_ns:
            return False
        self._next_check_ns = now.raw_ns + NANOSECONDS
        if self._guard.is_idle() and not self._folder.is_ours():
            self._voice.say("ending: the state folder was removed or replaced, and nothing is armed")
            return True
        return False

    def _answer_waiting(self, now: Moment) -> None:
        for client, group in tuple(self._waiting):
            fenced = self._guard.fenced(group, now)
            if fenced is not None:
                self._waiting.remove((client, group))
                self._door.answer(client, fenced)

    def _handle(self, client: socket.socket, request: Request) -> Answer | None:
        if isinstance(request, HandOver):
            return self._guard.hand_over(request)
        if isinstance(request, FenceNow):
            return self._fence_now(client, request.group)
        if isinstance(request, Hello):
            return self._greeting()
        if isinstance(request, Register):
            return self._guard.register(request)
        if isinstance(request, Adopt):
            return self._guard.report_on(request.group)
        if isinstance(request, Suspend):
            return self._guard.suspend(request)
        if isinstance(request, Release):
            return self._guard.release(request)
        return self._guard.report()

    def _fence_now(self, client: socket.socket, group: str) -> Answer | None:
        refused = self._guard.fence_now(group)
        if refused is None and (client, group) not in self._waiting:
            self._waiting.append((client, group))
        return refused

    def _greeting(self) -> Greeting:
        return Greeting(VERSION, os.getpid(), start_ticks(os.getpid()), host.boot_id(), host.time_namespace(), *self._privileges)

    def close(self) -> None:
        """End the connections; the agents see it at once."""
        self._door.close()
        self._folder.close()


def main(argv: list[str]) -> int:
    """Run the watchdog; `argv` is what follows the verb. The exit code: 0 ended as asked, 1 refused to start, 64 wrong usage."""
    host.fill_standard_streams()
    if argv in (["--help"], ["-h"]):
        sys.stdout.write(USAGE)
        return EXIT_OK
    path = _state_dir_of(argv)
    if path is None:
        host.complain("quorate watchdog: wants --state-dir DIR and nothing else; see quorate watchdog --help\n")
        return EXIT_USAGE
    for name in IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        watchdog = Watchdog(Folder(path))
    except FolderError as error:
        host.complain(f"quorate watchdog: {error}\n")
        return EXIT_REFUSED
    os.chdir("/")
    try:
        return watchdog.run()
    finally:
        watchdog.close()


def _state_dir_of(argv: list[str]) -> str | None:
    """The folder named by `--state-dir DIR` or `--state-dir=DIR`; None: wrong usage."""
    if len(argv) == 2 and argv[0] == "--state-dir":
        return argv[1] or None
    if len(argv) == 1 and argv[0].startswith("--state-dir="):
        return argv[0].partition("=")[2] or None
    return None
