"""The server's processes as the kernel knows them: is it alive, which life is it, ask it to stop, clean up what a killed one left.

A pid alone is never believed: a process counts only when its working directory IS the data directory, and it is signalled through a pidfd
that is checked after it was opened. Nothing here kills a tree: fencing is the watchdog's own code, lent to the actions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from actions.postgres_files import read_bytes
from actions.postgres_instance import Postmaster

POLL_S = 0.005


def current_postmaster(data_dir: Path) -> Postmaster | None:
    """The living server's first process; None when there is none (zombies and strangers do not count)."""
    pid = _noted_pid(data_dir)
    if pid is None or not _works_in(pid, data_dir):
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        return Postmaster(pid, _start_ticks(pid))
    return None


def is_alive(postmaster: Postmaster, data_dir: Path) -> bool:
    """Whether this very life still goes on."""
    return current_postmaster(data_dir) == postmaster


def processes_of(data_dir: Path) -> tuple[int, ...]:
    """Every process that works in the data directory."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 (hundreds of names, often)
    return tuple(pid for pid in pids if _works_in(pid, data_dir))


def signal_postmaster(postmaster: Postmaster, data_dir: Path, number: signal.Signals) -> bool:
    """Send `number` to this very life; False when it is over. PermissionError when it is not ours to signal."""
    try:
        handle = os.pidfd_open(postmaster.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(postmaster, data_dir):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when `condition` holds. The caller keeps the deadline."""
    while not await condition():  # noqa: ASYNC110 (another process changes it: nothing here could set an event)
        await asyncio.sleep(POLL_S)


async def wait_until_gone(data_dir: Path) -> None:
    """Return when no process works in the data directory any more. The caller keeps the deadline."""

    async def gone() -> bool:
        return not await asyncio.to_thread(processes_of, data_dir)

    await until(gone)


def remove_stale_locks(data_dir: Path, socket_dir: Path, port: int) -> None:
    """Remove postmaster.pid and the socket's lock when they are this directory's and provably nobody's: nothing works here any more.

    Postgres itself trusts any living process of its user with the noted number: a number used anew, or a killed server that nobody has
    reaped yet. It also refuses an empty lock, which a server killed in its first instants leaves. The shared memory of the dead is found
    again by the directory's inode, so nothing is lost with the file.
    """
    lock, socket_lock = data_dir / "postmaster.pid", socket_dir / f".s.PGSQL.{port}.lock"
    if processes_of(data_dir):
        return
    if _is_empty(socket_lock) or _lines(socket_lock)[1:2] == [os.fsencode(data_dir.resolve())]:
        socket_lock.unlink(missing_ok=True)
    lock.unlink(missing_ok=True)


def _is_empty(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.stat().st_size == 0
    return False


def leftovers(program: str, argument: Path) -> tuple[int, ...]:
    """Processes of `program` that were called with `argument`: an earlier agent, killed in the middle, may have left one."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
    return tuple(pid for pid in pids if _was_called(pid, program, str(argument)))


async def end_leftovers(program: str, argument: Path) -> None:
    """SIGKILL them, so that two of them never write to one folder. The caller keeps the deadline."""
    while pids := leftovers(program, argument):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                handle = os.pidfd_open(pid)
                try:
                    if _was_called(pid, program, str(argument)):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                finally:
                    os.close(handle)
        await asyncio.sleep(POLL_S)


def nap(pid: int) -> int | None:
    """How often the process has gone to sleep of its own will, if it sleeps right now; None when it runs, or is gone.

    Twice the same number means that it slept all the time between.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["voluntary_ctxt_switches"]) if fields.get("State", "").split()[:1] == ["S"] else None


def signal_member(pid: int, data_dir: Path, number: signal.Signals) -> bool:
    """Signal one process of the server. When this returns True, the signal is pending there."""
    if pid <= 0 or not _works_in(pid, data_dir):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _noted_pid(data_dir: Path) -> int | None:
    try:
        return abs(int(_lines(data_dir / "postmaster.pid")[0]))
    except (ValueError, IndexError):
        return None


def _lines(path: Path) -> list[bytes]:
    try:
        return read_bytes(path, 4096).splitlines()
    except OSError:
        return []


def _works_in(pid: int, data_dir: Path) -> bool:
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", data_dir)  # noqa: PTH121 (by inode: links and mounts do not matter)
    except OSError:
        return False


def _start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])


def parent_of(pid: int) -> int | None:
    """The parent's pid; None when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _was_called(pid: int, program: str, argument: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.path.basename(words[0]) == os.fsencode(program) and os.fsencode(argument) in words  # noqa: PTH119 (bytes)
