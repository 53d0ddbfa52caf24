"""The guard of a test that is about something else: everything is permitted and nobody notes the steps."""

from __future__ import annotations

from actions.base import Guard


async def no_step(_: str) -> None:
    """Nobody notes it."""


GUARD = Guard(permit=lambda: None, step=no_step)
