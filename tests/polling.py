"""The one place where a test waits: poll until something is so, fail when the time is over. A fixed sleep is a guess that flakes."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")

POLL_S = 0.02


def eventually(condition: Callable[[], T], within_s: float = 10.0, what: str = "") -> T:
    """The first true answer of `condition`; AssertionError with `what` and the last answer after `within_s`. Its errors go through."""
    deadline_s = time.monotonic() + within_s
    while not (answer := condition()):
        assert time.monotonic() < deadline_s, _complaint(condition, within_s, what, answer)
        time.sleep(POLL_S)
    return answer


@overload
async def eventually_async(condition: Callable[[], Coroutine[Any, Any, T]], within_s: float = 10.0, what: str = "") -> T: ...
@overload
async def eventually_async(condition: Callable[[], T], within_s: float = 10.0, what: str = "") -> T: ...
async def eventually_async(condition: Callable[[], object], within_s: float = 10.0, what: str = "") -> object:
    """The same while the event loop runs on; `condition` may be a coroutine function, and one call of it may take `within_s` at most."""
    deadline_s = time.monotonic() + within_s
    while not (answer := await _ask(condition, within_s)):
        assert time.monotonic() < deadline_s, _complaint(condition, within_s, what, answer)
        await asyncio.sleep(POLL_S)
    return answer


async def _ask(condition: Callable[[], object], within_s: float) -> object:
    answer = condition()
    if inspect.isawaitable(answer):
        return await asyncio.wait_for(answer, within_s)
    return answer


def _complaint(condition: Callable[[], object], within_s: float, what: str, answer: object) -> str:
    return f"not within {within_s} s: {what or getattr(condition, '__qualname__', condition)}; the last answer was {answer!r}"


async def holds_async(condition: Callable[[], object], for_s: float, what: str = "") -> None:
    """Watch `condition` for `for_s` seconds; AssertionError with `what` as soon as it is false."""
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        assert condition(), f"held not for {for_s} s: {what or getattr(condition, '__qualname__', condition)}"
        await asyncio.sleep(POLL_S)
