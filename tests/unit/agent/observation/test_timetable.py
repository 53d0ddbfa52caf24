from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.instant import NANOSECONDS, Instant
from agent.observation.timetable import FIRST_WITHIN_S, JITTER, Timetable

START = Instant(10**15, 10**15)


def ticks(table: Timetable, for_s: float, fraction: float = 0.0, late_s: float = 0.0) -> list[float]:
    """When "a" was due within `for_s`, each tick being taken `late_s` after it came."""
    now, taken = START, []
    while (now.boot_ns - START.boot_ns) / NANOSECONDS <= for_s:
        wait_s = table.wait_s(now)
        assert wait_s is not None
        now = now.after(wait_s + late_s)
        if table.take_due(now, fraction):
            taken.append((now.boot_ns - START.boot_ns) / NANOSECONDS)
    return taken


def test_the_first_run_comes_soon_and_the_grid_is_spread_over_the_interval() -> None:
    for spread in (0.0, 0.3, 0.99):
        table = Timetable()
        table.enter("a", 60.0, START, spread)
        first, second, third = ticks(table, 150.0)[:3]
        assert first == spread * FIRST_WITHIN_S
        assert 30.0 <= second - first <= 90.0
        assert round(third - second, 6) == 60.0


@settings(deadline=None)
@given(st.floats(0.05, 60), st.floats(0, 0.999), st.floats(0, 0.999), st.floats(0, 0.4))
def test_the_rate_is_fixed_however_late_each_tick_is_taken(every_s: float, spread: float, fraction: float, late: float) -> None:
    table = Timetable()
    table.enter("a", every_s, START, spread)
    taken = ticks(table, 40 * every_s, fraction, late * every_s)[1:]
    steps = [after - before for before, after in pairwise(taken)]
    assert all(abs(step - every_s) <= (JITTER + 1e-6) * every_s for step in steps)
    assert abs((taken[-1] - taken[0]) - (len(taken) - 1) * every_s) <= (JITTER + 1e-6) * every_s


def test_missed_ticks_are_skipped_and_not_made_up_for() -> None:
    table = Timetable()
    table.enter("a", 1.0, START, 0.5)
    ticks(table, 3.0)
    later = START.after(100.25)
    assert table.take_due(later, 0.0) == ("a",)
    assert table.take_due(later, 0.0) == ()
    wait_s = table.wait_s(later)
    assert wait_s is not None
    assert 0 < wait_s <= 1.0


def test_the_one_that_is_due_longest_comes_first() -> None:
    table = Timetable()
    table.enter("late", 5.0, START, 0.9)
    table.enter("early", 5.0, START, 0.1)
    assert table.take_due(START.after(1.0), 0.0) == ("early", "late")


def test_a_removed_name_is_due_no_more() -> None:
    table = Timetable()
    table.enter("a", 5.0, START, 0.0)
    table.remove("a")
    table.remove("a")
    assert table.wait_s(START) is None
    assert table.take_due(START.after(9.0), 0.0) == ()
