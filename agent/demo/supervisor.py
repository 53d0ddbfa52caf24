"""A small supervisor for demo and tests: keeps programs running, each in a session of its own, and ends them all.

What systemd does in production (`Restart=always`, `RestartSec=100ms`). It never touches a process that it did not start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

RESTART_PAUSE_S = 0.1
STOP_TIMEOUT_S = 5.0
KILL_TIMEOUT_S = 1.0


@dataclass(slots=True)
class Program:
    """One program to keep running. Its output goes to `log`."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    restarts: int = 0
    pid: int | None = None
    wanted: bool = True


class Supervisor:
    """Runs programs until told otherwise. A program that ends is started again after RESTART_PAUSE_S."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.programs: dict[str, Program] = {}

    def start(self, program: Program) -> None:
        """Begin to keep this program running."""
        self.programs[program.name] = program
        self._tasks[program.name] = asyncio.create_task(self._keep(program), name=f"keep {program.name}")

    async def _keep(self, program: Program) -> None:
        while program.wanted:
            with program.log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *program.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **program.environment},
                    start_new_session=True,
                )
            program.pid = process.pid
            if not program.wanted:  # it was to end while it was being started
                process.kill()
            await process.wait()
            program.pid = None
            program.restarts += 1
            if program.wanted:
                await asyncio.sleep(RESTART_PAUSE_S)

    def send_signal(self, name: str, number: Signals) -> bool:
        """Send a signal to the running program; False when it does not run."""
        pid = self.programs[name].pid
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return True

    async def stop(self, name: str, number: Signals = Signals.SIGTERM) -> None:
        """End one program for good: by `number`, and by SIGKILL when that takes too long."""
        program = self.programs[name]
        program.wanted = False
        self.send_signal(name, Signals.SIGCONT)
        self.send_signal(name, number)
        task = self._tasks.pop(name)
        _, late = await asyncio.wait({task}, timeout=STOP_TIMEOUT_S)
        if late:
            self.send_signal(name, Signals.SIGKILL)
            await asyncio.wait({task}, timeout=KILL_TIMEOUT_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """End everything at once by SIGKILL: nobody shall act on what is being taken down."""
        for program in self.programs.values():
            program.wanted = False
        for name in self._tasks:
            self.send_signal(name, Signals.SIGKILL)
        for name in list(self._tasks):
            await self.stop(name, Signals.SIGKILL)
