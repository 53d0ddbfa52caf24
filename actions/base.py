"""The contract of every action: a change of one watched system, done so that doing it twice is harmless.

An action knows its system and nothing of leases, rules or the agent. Whoever runs it gives it a deadline, journals its steps and
verifies the result. Adding a system is one file beside this one: it is found by its name, or by the entry point `quorate.actions`.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

ResultT = TypeVar("ResultT")


class ActionError(Exception):
    """The action could not be done. Its text is one sentence for a person; what was begun is harmless to begin again."""


class ActionTimeout(ActionError):
    """The deadline passed; programs that were begun were ended by force. What the service itself goes on doing, the sentence says."""


class ActionTooLate(ActionError):
    """The permission ended before the irreversible step: that step was not done."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What whoever runs an action lends it: permission for the irreversible, and a place to note its steps.

    `permit` raises ActionTooLate when the permission has ended; an action calls it right before and right after an irreversible step.
    `step` makes a step's name durable BEFORE the step is done; a crash between any two steps must be harmless.
    """

    permit: Callable[[], None]
    step: Callable[[str], Awaitable[None]]


class Action(abc.ABC, Generic[ResultT]):
    """One change, wanted as a state: apply it, see whether it is so, undo it. What is learnt by applying it is its result."""

    name: str

    @abc.abstractmethod
    async def is_done(self) -> bool:
        """Whether the wanted state is there already. Reads only."""

    @abc.abstractmethod
    async def apply(self, guard: Guard) -> ResultT:
        """Bring the wanted state about. Raises ActionError; never leaves something half-done that a repeat would not mend."""

    @abc.abstractmethod
    async def verify(self) -> None:
        """Raise ActionError unless the wanted state is really there, asked anew from the system itself."""

    @abc.abstractmethod
    async def undo(self) -> None:
        """Bring the safe state about (for a service: not writable). Raises ActionError."""
