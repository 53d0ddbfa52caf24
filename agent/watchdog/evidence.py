"""Whether a Postgres takes writes, judged without the network and without asking it.

The witnesses: the state in global/pg_control, the status line of postmaster.pid, and /proc. Their traps:
- pg_control speaks of the last life until the startup process has written it: after a crash it says "in production" while a sealed
  server is only starting. So "in production" counts only for a server whose own lock file says `ready`, or that is no longer young and
  has no startup process.
- postmaster.pid of a killed server stays. Its status counts only if its pid is a living member of this very data directory.
- Only archive recovery (a standby) and the absence of every process are PROOF that nothing can be written; all else is unknown.

A disk may hang. These files are read only as far as they are in memory: a read that would wait for the disk says "unknown".
"""

from __future__ import annotations

import errno
import os
import struct
from enum import IntEnum

from agent.watchdog.process import age_s, is_member, members_of, title_of

YOUNG_S = 10.0
"""How long a server without a startup process may be on its way (it makes its shared memory) before its state is believed."""
STATUS_LINE = 7
READY = "ready"


class DbState(IntEnum):
    """Postgres' own DBState, as pg_control holds it (an int at byte 16 in every version since 8.0)."""

    STARTUP = 0
    SHUTDOWNED = 1
    SHUTDOWNED_IN_RECOVERY = 2
    SHUTDOWNING = 3
    IN_CRASH_RECOVERY = 4
    IN_ARCHIVE_RECOVERY = 5
    IN_PRODUCTION = 6


def is_writable(data_dir: str, uid: int) -> bool | None:
    """True: it takes writes. False: proven that it does not. None: cannot tell, so nobody may arm it and nobody may fence it for that."""
    state = control_state(data_dir)
    if state is DbState.IN_ARCHIVE_RECOVERY:
        return False
    members = members_of(data_dir, uid)
    if not members:
        return False
    return _judge_production(data_dir, members) if state is DbState.IN_PRODUCTION else None


def says_production(data_dir: str) -> bool:
    """The cheapest look: pg_control says "in production". Without that a service is never found writable; `is_writable` judges the rest."""
    return _read_state(data_dir) is DbState.IN_PRODUCTION


def lock_holder_lives(data_dir: str, uid: int) -> bool:
    """Whether the process named in the lock file is a living member: found without a scan of /proc."""
    pid = abs(_lock_file(data_dir)[0])
    return pid > 0 and is_member(pid, data_dir, uid)


def control_state(data_dir: str) -> DbState | None:
    """The state in pg_control, read twice alike; None: missing, torn, not in memory or no pg_control."""
    state = _read_state(data_dir)
    return state if state is not None and _read_state(data_dir) is state else None


def _read_state(data_dir: str) -> DbState | None:
    data = _read_cached(f"{data_dir}/global/pg_control", 20)
    if data is None or len(data) < 20:
        return None
    version, _, state = struct.unpack_from("=IIi", data, 8)
    try:
        return DbState(state) if 900 <= version <= 9999 else None
    except ValueError:
        return None


def _judge_production(data_dir: str, members: tuple[int, ...]) -> bool | None:
    """Whether a server is up behind a pg_control that says "in production"."""
    titles = {pid: title_of(pid) for pid in members}
    servers = [pid for pid, title in titles.items() if "postgres" in title or "postmaster" in title]
    if not servers:
        return None  # somebody's shell in the data directory
    pid, status = _lock_file(data_dir)
    if -pid in members:
        return True  # single-user mode: it has no startup process and no status
    if pid in members and status == READY:
        return True
    if any(_is_startup(titles[server]) for server in servers):
        return None
    return None if max(map(_age_s, servers)) < YOUNG_S else True


def _is_startup(title: str) -> bool:
    """`postgres: startup recovering …`, or with cluster_name `postgres: NAME: startup`."""
    return title.startswith("postgres: ") and (title.startswith("postgres: startup") or ": startup" in title)


def _age_s(pid: int) -> float:
    """0 for one that just ended."""
    try:
        return age_s(pid)
    except (OSError, ValueError, IndexError):
        return 0.0


def _lock_file(data_dir: str) -> tuple[int, str]:
    """Pid (negative: single-user) and status of postmaster.pid; (0, "") when there is none or it cannot be read."""
    lines = (_read_cached(f"{data_dir}/postmaster.pid", 4096) or b"").decode("utf-8", "replace").split("\n")
    try:
        pid = int(lines[0])
    except ValueError:
        return 0, ""
    return pid, lines[STATUS_LINE].strip() if len(lines) > STATUS_LINE else ""


def _read_cached(path: str, size: int) -> bytes | None:
    """The first bytes of a file if they are in memory; else None, and the kernel is asked to fetch them for the next look."""
    try:
        handle = _open(path)
    except OSError:
        return None
    buffer = bytearray(size)
    try:
        count = os.preadv(handle, [buffer], 0, os.RWF_NOWAIT)
    except OSError as error:
        count = _without_nowait(handle, buffer, error)
    finally:
        os.close(handle)
    return None if count < 0 else bytes(buffer[:count])


def _without_nowait(handle: int, buffer: bytearray, error: OSError) -> int:
    """Bytes read, or -1. A file system that does not know RWF_NOWAIT is read plainly: it lies in memory (tmpfs) or is rare."""
    try:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}:
            return os.preadv(handle, [buffer], 0)
        if error.errno == errno.EAGAIN:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_WILLNEED)
    except OSError:
        return -1
    return -1


def _open(path: str) -> int:
    """Opened without touching its access time, which could wait for a journal."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)
