from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.observation.rise_fall import RiseFall
from checks.base import Result, Status

LETTERS = {"h": Status.HEALTHY, "d": Status.DEGRADED, "u": Status.UNHEALTHY, "?": Status.UNKNOWN}


def verdicts(answers: str, rise: int = 2, fall: int = 3) -> str:
    state, shown = RiseFall(rise, fall), ""
    names = {status: letter for letter, status in LETTERS.items()}
    for letter in answers:
        state = state.step(Result(LETTERS[letter], ""))
        shown += names[state.status]
    return shown


@pytest.mark.parametrize(
    ("answers", "shown"),
    [
        ("h", "h"),
        ("u", "?"),
        ("uuu", "??u"),
        ("huu", "hhh"),
        ("huuu", "hhhu"),
        ("huuhuu", "hhhhhh"),
        ("huuuh", "hhhuu"),
        ("huuuhh", "hhhuuh"),
        ("huuuhuh", "hhhuuuu"),
        ("huuudd", "hhhuud"),
        ("hdu", "hdd"),
        ("h?", "h?"),
        ("h???", "h???"),
        ("huu?u", "hhh?h"),
        ("huuu?h", "hhhu?u"),
        ("huuu?u", "hhhu?u"),
        ("h?h", "h?h"),
    ],
)
def test_a_row_of_answers_gives_a_row_of_verdicts(answers: str, shown: str) -> None:
    assert verdicts(answers) == shown


def test_with_one_and_one_each_answer_counts_at_once() -> None:
    assert verdicts("uhuh?u", rise=1, fall=1) == "uhuh?u"


@settings(deadline=None)
@given(st.text("hd?", max_size=30), st.integers(1, 5), st.integers(1, 5))
def test_what_is_never_unhealthy_is_never_called_down(answers: str, rise: int, fall: int) -> None:
    assert "u" not in verdicts(answers, rise, fall)


@settings(deadline=None)
@given(st.text("hdu?", max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_a_verdict_turns_only_after_its_whole_row(answers: str, rise: int, fall: int) -> None:
    shown = verdicts(answers, rise, fall)
    for place, letter in enumerate(shown):
        was_down = "u" in shown[:place] and not set(shown[:place][shown[:place].rindex("u") :]) & {"h", "d"}
        if letter == "u" and not was_down:
            assert answers[: place + 1].endswith("u" * fall)
        if letter in "hd" and was_down:
            row = answers[place + 1 - rise : place + 1]
            assert len(row) == rise
            assert set(row) <= {"h", "d"}


def test_a_state_is_a_value() -> None:
    before = RiseFall(1, 1)
    before.step(Result(Status.HEALTHY, ""))
    assert before == RiseFall(1, 1)
