"""Where a test may have an agent die: at a named step of a command, once, by SIGKILL, as a power cut would have it.

Only an agent that was started with QUORATE_CRASH_POINT=COMMAND/STEP has such a point; it dies when the step has been noted in the journal
and before it is done. A marker in the state folder makes it die once, so that its successor gets on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "QUORATE_CRASH_POINT"


class CrashPoint:
    """The crash point of this agent, if it was started with one."""

    def __init__(self, environment: Mapping[str, str], state_dir: Path) -> None:
        self._wanted = environment.get(VARIABLE, "")
        self._marker = state_dir / "crashed"

    def passing(self, command: str, step: str) -> None:
        """Die here, if this is the point and nobody died here before."""
        if self._wanted != f"{command}/{step}":
            return
        try:
            self._marker.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
