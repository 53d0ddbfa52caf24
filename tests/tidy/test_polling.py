"""Waiting ends when it is so, ends in time when it is not, and says what did not happen."""

from __future__ import annotations

import time

import pytest

from tests.polling import eventually, eventually_async


def test_the_answer_is_returned_when_it_comes() -> None:
    answers = iter([0, "", None, 7])
    assert eventually(lambda: next(answers)) == 7


def test_it_fails_in_time_and_names_what_did_not_happen() -> None:
    began_s = time.monotonic()
    with pytest.raises(AssertionError, match=r"not within 0.1 s: the moon is up; the last answer was 0"):
        eventually(lambda: 0, within_s=0.1, what="the moon is up")
    assert time.monotonic() - began_s < 5


def test_an_error_goes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 // 0)


async def test_the_same_in_an_event_loop() -> None:
    answers = iter([False, True])

    async def ask() -> bool:
        return next(answers)

    assert await eventually_async(ask)
    assert await eventually_async(lambda: 3) == 3
    with pytest.raises(AssertionError, match="not within"):
        await eventually_async(lambda: False, within_s=0.05)
