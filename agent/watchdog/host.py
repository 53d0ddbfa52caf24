"""What the watchdog takes from the machine: the clocks, its own protection, a way to speak.

Every protection is tried and none is demanded: an ordinary user has none of them, and a watchdog without them is better than none. What
was refused is said in `hello` and `status`. Speaking must never block or end the watchdog: a terminal that is gone, a pipe that nobody
reads and a full disk are all the same to it.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import stat
import time
from typing import NamedTuple

from agent.watchdog.deadline import Moment

MLOCK_FLAGS = 1 | 2 | 4  # what is mapped, what will be mapped, each page as soon as it was touched: untouched code stays on disk
PRIORITY = 50
LARGEST_LOG = 256 * 1024
LONGEST_LINE = 500


class Privileges(NamedTuple):
    """Each `yes`, or why not."""

    memory_locked: str
    real_time: str
    oom_protected: str


def moment() -> Moment:
    """Now, by both clocks."""
    return Moment(time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW))


def boot_id() -> str:
    """The kernel's name for this boot."""
    handle = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, 64).decode("ascii").strip()
    finally:
        os.close(handle)


def time_namespace() -> int:
    """The inode of the time namespace: two processes mean the same moment only when it is equal. 0: the kernel has none."""
    try:
        return os.stat("/proc/self/ns/time").st_ino  # noqa: PTH116 - pathlib would cost 1 MB of locked memory
    except OSError:
        return 0


def take_privileges() -> Privileges:
    """Lock the memory, ask for real-time priority, keep the out-of-memory killer away."""
    return Privileges(_lock_memory(), _be_real_time(), _avoid_oom_killer())


def _lock_memory() -> str:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return "yes" if libc.mlockall(MLOCK_FLAGS) == 0 else os.strerror(ctypes.get_errno())
    except (OSError, AttributeError) as error:
        return str(error)


def _be_real_time() -> str:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except OSError as error:
        return str(error.strerror)
    return "yes"


def _avoid_oom_killer() -> str:
    try:
        handle = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, b"-1000")
        finally:
            os.close(handle)
    except OSError as error:
        return str(error.strerror)
    return "yes"


def fill_standard_streams() -> None:
    """Put /dev/null where 0, 1 or 2 is closed: else the next file opened would sit there, and lines for people would be written into it."""
    for handle in range(3):
        try:
            os.fstat(handle)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # takes the lowest free number, which is this one


def complain(text: str) -> None:
    """Why it does not start, for the person who called it."""
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        return


class Voice:
    """Lines for people on standard error. The log that the agent made for us (a file we are told of) is emptied when it grows too long."""

    def __init__(self, own_log: tuple[int, int] | None) -> None:
        self._poll = select.poll()
        self._own_log = own_log

    def say(self, line: str) -> None:
        """One line, or nothing at all if that would wait."""
        text = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} watchdog[{os.getpid()}]: {line[:LONGEST_LINE]}\n"
        try:
            self._poll.register(2, select.POLLOUT)
            if any(events == select.POLLOUT for _, events in self._poll.poll(0)):
                self._bound()
                os.write(2, text.encode("utf-8", "backslashreplace"))
        except OSError:
            return  # the terminal, the reader or the room on the disk is gone; the fences stand all the same

    def _bound(self) -> None:
        found = os.fstat(2)
        if stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) == self._own_log and found.st_size > LARGEST_LOG:
            os.ftruncate(2, 0)


class Supervisor:
    """systemd's notifications, if it asked for them: one datagram each."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        wanted = os.environ.pop("WATCHDOG_USEC", "")
        mine = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every_ns = int(wanted) * 1000 // 3 if wanted.isdigit() and mine else 0
        self._next_ns = 0

    def ready(self) -> None:
        """The service is up."""
        self._send(b"READY=1")

    def alive(self, now: Moment) -> None:
        """Three times in each interval that systemd watches."""
        if self._every_ns and now.raw_ns >= self._next_ns:
            self._next_ns = now.raw_ns + self._every_ns
            self._send(b"WATCHDOG=1")

    def wait_ms(self, now: Moment) -> int:
        """How long the loop may sleep without being late for systemd."""
        return max(0, self._next_ns - now.raw_ns) // 1_000_000 if self._every_ns else 60_000

    def _send(self, message: bytes) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(message, address)
        except OSError:
            return
