"""Running Postgres' own programs: as the right user, within a deadline, each in a process group that is killed whole when it passes.

Never a shell; nothing of this environment that begins with PG reaches them; a password goes through the child's environment only, never on
a command line, and what a program prints is kept bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from actions.base import ActionError, ActionTimeout
from actions.postgres_instance import Login, PostgresInstance

KEPT_BYTES = 64 * 1024
_KILL_S = 0.5


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended, and the end of what it printed (both streams)."""

    code: int
    said: str

    @property
    def last_words(self) -> str:
        """The most telling line: the last error, else the last line at all."""
        lines = [line.strip() for line in self.said.splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "error:", "ERROR", "fatal:"))]
        return (telling or lines or [f"exit code {self.code}"])[-1]


class _Rights(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


async def run(
    instance: PostgresInstance, program: str, *arguments: str, timeout_s: float, login: Login | None = None, said: bytearray | None = None
) -> Finished:
    """Run one program to its end. Raises ActionTimeout and ActionError.

    `login`: its password goes into the child's environment. `said`: filled with the end of what it prints, for one who must know it even
    when this is cancelled.
    """
    path = find_program(instance, program)
    said = bytearray() if said is None else said
    reading, writing = os.pipe()
    try:
        process = await _spawn(path, arguments, writing, instance.os_user, login)
    except OSError as error:
        os.close(reading)
        raise ActionError(f"{path} cannot be run: {error.strerror}") from error
    finally:
        os.close(writing)
    os.set_blocking(reading, False)
    loop = asyncio.get_running_loop()
    loop.add_reader(reading, _read_tail, reading, said)
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
    except TimeoutError:
        last = _text(said)[-200:].strip()
        raise ActionTimeout(f"{program} took longer than {timeout_s:g} s and was ended{': ' if last else ''}{last}") from None
    finally:
        if process.returncode is None:
            await _kill_group(process)
        loop.remove_reader(reading)
        while _read_tail(reading, said):  # what it wrote before it ended; what it left running may hold the pipe open
            pass
        os.close(reading)
    return Finished(code, _text(said))


async def _spawn(
    path: Path, arguments: tuple[str, ...], output: int, os_user: str | None, login: Login | None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        str(path),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        cwd="/",
        env=_environment(login),
        umask=0o077,
        **_rights(os_user),
    )


def find_program(instance: PostgresInstance, program: str) -> Path:
    """Where `program` is: in bin_dir, else on PATH. Raises ActionError."""
    if instance.bin_dir is not None:
        return instance.bin_dir / program
    found = shutil.which(program)
    if found is None:
        raise ActionError(f"{program} is not on PATH: set postgres.bin_dir")
    return Path(found)


def _read_tail(handle: int, said: bytearray) -> bool:
    """Take what is there, keep the end of it; False when there is nothing now."""
    try:
        chunk = os.read(handle, KEPT_BYTES)
    except BlockingIOError:
        return False
    if not chunk:
        asyncio.get_running_loop().remove_reader(handle)
    said += chunk
    del said[:-KEPT_BYTES]
    return bool(chunk)


def _text(said: bytearray) -> str:
    return said.decode("utf-8", "replace").replace("\r", "\n")


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    """SIGKILL the program and every child of it; it is this process' own child, so its number is still its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=_KILL_S)


def _environment(login: Login | None) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    password = {} if login is None or login.password is None else {"PGPASSWORD": login.password}
    return {**kept, "LC_ALL": "C", **password}


def _rights(os_user: str | None) -> _Rights:
    """Drop root's rights; somebody else's process cannot change its user, and need not when it is that user."""
    if os_user is None or os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(os_user)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": os.getgrouplist(os_user, account.pw_gid)}
