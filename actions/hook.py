"""A fixed command of the operator's, run when this node was elected or defeated. Never a shell, never without an end.

It is a list of words from the configuration file: nothing is put together, nothing is expanded. It gets a small environment of its own,
with no secret of the agent's; it runs in a session of its own, so that its whole process group is ended when its time is over; of what it
prints the end is kept, for the log. It may be run again after a crash, so it had better be idempotent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from actions.base import Action, ActionError, ActionTimeout, Guard
from actions.program import Tail, run_to_end

KEPT_BYTES = 4096
LAST_WORDS = 200
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ")


class Role(StrEnum):
    """What this node has become, as QUORATE_ROLE says it."""

    ELECTED = "elected"
    DEFEATED = "defeated"


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a hook is told: the group, the epoch, what this node has become in it, and the node's name."""

    group: str
    epoch: int
    role: Role
    node: str

    @property
    def environment(self) -> Mapping[str, str]:
        """All that a hook gets."""
        kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        told = {"QUORATE_GROUP": self.group, "QUORATE_EPOCH": str(self.epoch), "QUORATE_ROLE": self.role.value, "QUORATE_NODE": self.node}
        return {**kept, **told}


class RunHook(Action[str]):
    """Run the command to its end; its result is its last words. Whether it was run is for the caller to remember."""

    name = "run_hook"

    def __init__(self, command: tuple[str, ...], timeout_s: float, occasion: Occasion) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._occasion = occasion
        self._ended_well = False

    async def is_done(self) -> bool:
        """Whether THIS run ended well."""
        return self._ended_well

    async def apply(self, guard: Guard) -> str:
        """Run it. Raises ActionTimeout (its process group was killed) and ActionError (it cannot be run, or its exit code was not 0)."""
        guard.permit()
        await guard.step("run_hook")
        said = Tail(KEPT_BYTES)
        try:
            code = await run_to_end(self._command, self._occasion.environment, self._timeout_s, said)
        except TimeoutError:  # an OSError, too: it goes first
            late = f"hook {self._command[0]} took longer than {self._timeout_s:g} s and was ended"
            raise ActionTimeout(f"{late}{_last_words(said)}") from None
        except OSError as error:
            raise ActionError(f"hook {self._command[0]} cannot be run: {error.strerror}") from None
        if code != 0:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
            raise ActionError(f"hook {self._command[0]} {how}{_last_words(said)}")
        self._ended_well = True
        return _last_words(said).removeprefix(": ")

    async def verify(self) -> None:
        if not self._ended_well:
            raise ActionError(f"hook {self._command[0]} has not ended well")

    async def undo(self) -> None:
        """Nothing: only the operator knows what undoes a hook; `on_defeated` is the place for it."""


def _last_words(said: Tail) -> str:
    """The last line that it printed, bounded and printable; empty: it said nothing."""
    lines = [line.strip() for line in said.text.splitlines() if line.strip()]
    text = "".join(c if c.isprintable() else "?" for c in lines[-1])[:LAST_WORDS] if lines else ""
    return f": {text}" if text else ""
