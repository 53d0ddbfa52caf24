"""What all Postgres actions share: one total deadline, and every failure told as an ActionError in one sentence.

Only a promotion makes a service writable, so only a promotion (and what runs it) has something to undo; the others leave it read-only.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psycopg

from actions.base import Action, ActionError, ActionTimeout, Guard
from actions.postgres_instance import PostgresInstance
from actions.postgres_session import PostgresSession, words_of

ResultT = TypeVar("ResultT")

KillTree = Callable[[Path, int, float], object]
"""Kills every process that works in a data directory and belongs to a user id, within a budget in seconds. It blocks."""


class PostgresAction(Action[ResultT]):
    """One change of one instance. Subclasses say what in `_apply`; deadline and errors are kept here."""

    timeout_s: float

    def __init__(self, instance: PostgresInstance, session: PostgresSession) -> None:
        self.instance = instance
        self.session = session

    @abc.abstractmethod
    async def _apply(self, guard: Guard) -> ResultT:
        """Do it. Any await may be cancelled; a repeat mends."""

    def lateness(self) -> str:
        """Why it may have taken too long, if something is known; empty: nothing."""
        return ""

    async def apply(self, guard: Guard) -> ResultT:
        """Bring the wanted state about within `timeout_s`. Raises ActionError."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._apply(guard)
        except TimeoutError:
            why = self.lateness()
            raise ActionTimeout(f"{self.name} took longer than {self.timeout_s:g} s{': ' if why else ''}{why}") from None
        except psycopg.Error as error:
            raise ActionError(f"{self.name}: Postgres refused: {words_of(error)}") from None
        except OSError as error:
            raise ActionError(f"{self.name}: {error.strerror or error} ({error.filename})") from None

    async def undo(self) -> None:
        """Nothing: this never makes the service writable, and what it began is harmless to begin again."""


async def never(_: str) -> None:
    """A step that nobody notes."""
