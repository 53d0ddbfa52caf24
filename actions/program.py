"""Runs one program to its end: within a deadline, in a session of its own that is killed whole when it passes, its output kept bounded.

Never a shell. What a program left running when it ended by itself it left on purpose; that is not touched, and not waited for. Shared by
all actions that run programs; what a program is for, and what its end means, they know.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from typing import TypedDict, Unpack

_KILL_S = 0.5


class Rights(TypedDict, total=False):
    """As whom it runs; empty: as this process."""

    user: int
    group: int
    extra_groups: list[int]


class Tail:
    """The end of what a program printed, both streams: at most `most` bytes. Whoever made it may read it even after a cancel."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.content = bytearray()

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace").replace("\r", "\n")

    def take(self, handle: int) -> bool:
        """Take what the pipe holds now; False when that was nothing."""
        try:
            chunk = os.read(handle, self.most)
        except BlockingIOError:
            return False
        if not chunk:
            asyncio.get_running_loop().remove_reader(handle)
        self.content += chunk
        del self.content[: -self.most]
        return bool(chunk)


async def run_to_end(
    command: tuple[str, ...], environment: Mapping[str, str], timeout_s: float, said: Tail, *, umask: int = -1, **rights: Unpack[Rights]
) -> int:
    """The exit code, negative for a signal. Raises OSError when it cannot be run, TimeoutError when it was ended at its deadline."""
    reading, writing = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
            cwd="/",
            env=dict(environment),
            umask=umask,
            **rights,
        )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    os.set_blocking(reading, False)
    loop = asyncio.get_running_loop()
    loop.add_reader(reading, said.take, reading)
    try:
        async with asyncio.timeout(timeout_s):
            return await process.wait()
    finally:
        await _kill_group(process)
        loop.remove_reader(reading)
        while said.take(reading):  # what it wrote before it ended; what it left running may hold the pipe open
            pass
        os.close(reading)


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    """SIGKILL to all of its process group, unless it ended by itself. It is this process' own child, so its number is still its own."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=_KILL_S)
