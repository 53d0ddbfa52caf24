from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.instant import Instant, has_passed, holder_elapsed_s, observer_elapsed_s, remaining_s

instants = st.builds(Instant, st.integers(0, 10**18), st.integers(0, 10**18))
durations_s = st.floats(0, 10**6)


def test_after_moves_both_clocks_and_a_negative_time_goes_back() -> None:
    assert Instant(1, 2).after(1.5) == Instant(1_500_000_001, 1_500_000_002)
    assert Instant(10**9, 2 * 10**9).after(-1) == Instant(0, 10**9)


def test_earlier_is_chosen_by_each_clock_on_its_own() -> None:
    assert Instant(1, 9).earlier(Instant(5, 2)) == Instant(1, 2)


def test_a_holder_counts_the_faster_clock_and_an_observer_the_slower() -> None:
    since, now = Instant(0, 0), Instant(3 * 10**9, 2 * 10**9)
    assert holder_elapsed_s(since, now) == 3
    assert observer_elapsed_s(since, now) == 2


def test_a_deadline_is_over_as_soon_as_one_clock_says_so() -> None:
    deadline = Instant(100, 100)
    assert not has_passed(deadline, Instant(99, 99))
    assert has_passed(deadline, Instant(100, 0))
    assert has_passed(deadline, Instant(0, 100))


def test_remaining_is_what_the_nearer_clock_says_and_never_negative() -> None:
    deadline = Instant(3 * 10**9, 5 * 10**9)
    assert remaining_s(deadline, Instant(10**9, 10**9)) == 2
    assert remaining_s(deadline, Instant(4 * 10**9, 0)) == 0


@given(instants, instants, durations_s)
def test_remaining_is_zero_exactly_when_the_deadline_has_passed(since: Instant, now: Instant, duration_s: float) -> None:
    deadline = since.after(duration_s)
    assert has_passed(deadline, now) == (remaining_s(deadline, now) == 0)


@given(instants, instants)
def test_an_observer_never_counts_more_than_a_holder(since: Instant, now: Instant) -> None:
    assert observer_elapsed_s(since, now) <= holder_elapsed_s(since, now)
