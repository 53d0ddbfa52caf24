"""A server of one process in a folder of its own, for a test: started with a log beside it, frozen, killed; nothing stays of it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.freezing import freeze

STOP_TIMEOUT_S = 15.0


class OneProcess:
    """What every such server shares: its folder and its process' life."""

    def __init__(self, name: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"q-{name}-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def log_file(self) -> Path:
        return self.directory / "log"

    def run(self, *command: str | Path) -> None:
        """Start the process. What it prints goes into its log."""
        arguments: Sequence[str | Path] = command
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def freeze(self) -> None:
        """It takes connections (its kernel does) and never answers."""
        assert self._process is not None
        freeze(self._process.pid)

    def ask_to_stop(self) -> None:
        """SIGTERM; it goes on for its grace time."""
        assert self._process is not None
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None
