"""Finding and killing a service's processes, without forking, without the network, without asking the service.

A service is every process of its user whose working directory IS the data directory (compared by device and inode, so symbolic links,
bind mounts and containers do not matter). A pid alone is never believed: by now it may be somebody else's (holes.md A19). Parents are
killed before their children, so the postmaster, which alone makes new ones, goes first. Nothing here reads the service's own files: its
disk may hang, and the fence must not hang with it; /proc never does. Zombies have no working directory any more, and no open files: they
do not count. A process that the kernel cannot end (state D, a frozen cgroup of version 1) counts as left.

Only processes of the wanted owner are looked at closely: another user's working directory may be on a network file system that hangs.
"""
# pathlib would cost 1 MB of locked memory:
# ruff: noqa: PTH115, PTH116

from __future__ import annotations

import errno
import functools
import os
import signal
import time
from typing import NamedTuple

from agent.watchdog.deadline import NANOSECONDS

PAUSE_S = 0.001
"""Between two blows: a killed process needs about a millisecond to be gone."""
CLEAN_LOOKS = 3
"""A look may miss a child that was born after its list was made, of a parent that ended before it was looked at."""


class Place(NamedTuple):
    """The data directory as the kernel knows it, and who may own a process of the service."""

    device_inode: tuple[int, int] | None
    """None: the directory is not there now."""
    deleted_text: str
    """What the kernel calls the working directory of a process whose data directory was removed under it."""
    owners: frozenset[int]


class Killed(NamedTuple):
    """What became of a tree: processes still seen at the last look, and how many different ones were sent SIGKILL."""

    left: int
    killed: int


def members_of(data_dir: str, uid: int) -> tuple[int, ...]:
    """Pids of the service that works in `data_dir`: processes of `uid` (as root, of the directory's owner too), parents first."""
    return _parents_first(_scan(_place(data_dir, uid)))


def strike(data_dir: str, uid: int) -> tuple[int, ...]:
    """One look and one SIGKILL for each process seen; the pids. Never waits."""
    place = _place(data_dir, uid)
    found = _parents_first(_scan(place))
    for pid in found:
        _kill(pid, place)
    return found


def kill_tree(data_dir: str, uid: int, budget_s: float) -> Killed:
    """Strike until CLEAN_LOOKS in a row find nothing, or the budget is used up."""
    end_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) + int(budget_s * NANOSECONDS)
    killed: set[int] = set()
    clean = 0
    while True:
        found = strike(data_dir, uid)
        killed.update(found)
        clean = 0 if found else clean + 1
        if clean >= CLEAN_LOOKS or time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) >= end_ns:
            return Killed(len(found), len(killed))
        time.sleep(PAUSE_S)


def start_ticks(pid: int) -> int:
    """When a process began, in clock ticks of this boot: pid and this together name it. Raises OSError."""
    return int(_stat_fields(pid)[19])


def age_s(pid: int) -> float:
    """How long a process has lived. Raises OSError."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks(pid) / os.sysconf("SC_CLK_TCK")


def title_of(pid: int) -> str:
    """The first word of its command line: for a child of Postgres, the title it gave itself. Empty when it is gone."""
    try:
        return _read_proc(f"/proc/{pid}/cmdline").split(b"\0", 1)[0].decode("utf-8", "replace")
    except OSError:
        return ""


def is_member(pid: int, data_dir: str, uid: int) -> bool:
    """Whether this pid is a living process of the service now."""
    return _belongs(pid, _place(data_dir, uid))


def _place(data_dir: str, uid: int) -> Place:
    owners = {uid}
    identity = None
    real = os.path.realpath(data_dir)
    try:
        found = os.stat(data_dir)
    except OSError:
        pass
    else:
        if real != "/":  # where every daemon works: a link that leads there is somebody's mistake
            identity = (found.st_dev, found.st_ino)
        if os.geteuid() == 0:
            owners.add(found.st_uid)  # Postgres starts for nobody else than its directory's owner
    return Place(identity, f"{real} (deleted)", frozenset(owners))


@functools.cache
def _proc() -> int:
    """/proc, opened once: a machine whose file table is full must not keep the fence from seeing."""
    return os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _scan(place: Place) -> list[int]:
    own = os.getpid()
    return [pid for name in os.listdir(_proc()) if name.isdigit() and (pid := int(name)) != own and _belongs(pid, place)]


def _belongs(pid: int, place: Place) -> bool:
    try:
        if os.stat(f"/proc/{pid}").st_uid not in place.owners:
            return False
        cwd = f"/proc/{pid}/cwd"
        seen = os.stat(cwd)
        return (seen.st_dev, seen.st_ino) == place.device_inode or os.readlink(cwd) == place.deleted_text
    except OSError:
        return False  # it ended, it is a zombie, or it is not ours to look at (and then not ours to kill)


def _parents_first(pids: list[int]) -> tuple[int, ...]:
    """In order of their depth in the tree that they form among themselves."""
    if len(pids) < 2:
        return tuple(pids)
    parents = {pid: _parent(pid) for pid in pids}

    def depth(pid: int) -> int:
        steps = 0
        while (pid := parents.get(pid, 0)) in parents and steps < len(parents):
            steps += 1
        return steps

    return tuple(sorted(pids, key=depth))


def _parent(pid: int) -> int:
    try:
        return int(_stat_fields(pid)[1])
    except (OSError, ValueError, IndexError):
        return 0


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat after the name (which may hold anything): state, parent and so on."""
    return _read_proc(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read_proc(path: str) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, 4096)
    finally:
        os.close(handle)


def _kill(pid: int, place: Place) -> None:
    """SIGKILL through a pidfd that is checked once more after it was opened, so that a pid used anew is never hit."""
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            _kill_by_number(pid)  # seen to belong here some microseconds ago; not to kill it would be worse
        return
    try:
        if _belongs(pid, place):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EINVAL}:
            _kill_by_number(pid)
    finally:
        os.close(handle)


def _kill_by_number(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return  # gone, or not ours: the next look says which
