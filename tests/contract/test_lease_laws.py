"""The laws of the lease, tried by hypothesis with clocks of different rates: sent <= committed <= seen, so the holder is over first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.coordination.lease import (
    RATE_ERROR,
    Attempt,
    LeaseRecord,
    LeaseState,
    Sight,
    Tenure,
    Terms,
    is_expired,
    look,
    settle,
    with_attempt,
)
from agent.instant import Instant, has_passed

PLAIN = LeaseRecord("pg", "a", "boot-1", 3, 7, "n7", Terms(5.0, 0.5), LeaseState.HELD, ("a", "b", "c"), 2)


@dataclass(frozen=True)
class DriftingClocks:
    """Two clocks of one machine: they start anywhere, and each goes at its own constant rate within RATE_ERROR."""

    boot_start_ns: int
    raw_start_ns: int
    boot_rate: float
    raw_rate: float

    def at(self, real_s: float) -> Instant:
        return Instant(self.boot_start_ns + int(real_s * 1e9 * self.boot_rate), self.raw_start_ns + int(real_s * 1e9 * self.raw_rate))

    def moment_after_s(self, real_s: float, wait_s: float) -> float:
        """The real time at which both clocks have counted `wait_s` since `real_s`."""
        return real_s + wait_s / min(self.boot_rate, self.raw_rate) + TOLERANCE_S


TOLERANCE_S = 1e-6
"""Nanoseconds are whole numbers and floats are rounded; a microsecond is far below any fence's precision."""
rates = st.sampled_from([1 - RATE_ERROR, 1.0, 1 + RATE_ERROR]) | st.floats(1 - RATE_ERROR, 1 + RATE_ERROR)
starts = st.integers(0, 10**15)
clocks = st.builds(DriftingClocks, starts, starts, rates, rates) | st.sampled_from(
    [DriftingClocks(0, 10**15, rate, rate) for rate in (1 - RATE_ERROR, 1 + RATE_ERROR)]
)
terms = st.builds(Terms, st.sampled_from([0.5, 1.0, 5.0, 10.0]), st.sampled_from([0.0, 0.5, 2.0]))


@given(clocks, clocks, terms, st.floats(0, 5), st.floats(0, 5))
def test_at_the_moment_a_lease_expires_its_holder_is_over_and_fenced(
    holder: DriftingClocks, observer: DriftingClocks, of_record: Terms, commit_s: float, see_s: float
) -> None:
    record, seen_s = replace(PLAIN, terms=of_record), commit_s + see_s
    tenure = Tenure(record, 1, "session", holder.at(0))
    sight = look(None, record, 1, observer.at(seen_s), after_gap=False)
    expires_s = observer.moment_after_s(seen_s, sight.wait_s)
    assert is_expired(sight, Terms(0.1, 0.0), observer.at(expires_s))
    assert not is_expired(sight, Terms(0.1, 0.0), observer.at(expires_s - 10 * TOLERANCE_S))
    assert tenure.deadline is not None
    assert has_passed(tenure.deadline.after(of_record.fence_budget_s - 10 * TOLERANCE_S), holder.at(expires_s))


@dataclass
class World:
    """One holder, one store, one observer. Renewals commit, get lost, or lose their answer; the terms change between them."""

    holder: DriftingClocks
    observer: DriftingClocks
    adopted: bool
    terms: Terms
    now_s: float = 0.0
    seen_s: float = 0.0
    in_flight: list[tuple[LeaseRecord, int]] = field(default_factory=list)
    tenure: Tenure = field(init=False)
    stored: tuple[LeaseRecord, int] = field(init=False)
    sight: Sight | None = None

    def __post_init__(self) -> None:
        record = replace(PLAIN, terms=self.terms)
        dated = Tenure(record, 1, "session", self.holder.at(0))
        self.tenure = replace(dated, dated=None, adopted_deadline=dated.deadline) if self.adopted else dated
        self.stored = (record, 1)

    def send(self, new: Terms, fate: str) -> None:
        sequence = self.tenure.last_sequence + 1
        record, over = replace(PLAIN, sequence=sequence, nonce=f"n{sequence}", terms=new), self.tenure.index
        self.tenure = with_attempt(self.tenure, Attempt(record, self.holder.at(self.now_s)))
        if fate == "delayed":
            self.in_flight.append((record, over))
        elif fate != "lost":
            self.commit(record, over)
        if fate == "answered" and over + 1 == self.stored[1]:
            self.read_back()

    def commit(self, record: LeaseRecord, over: int) -> None:
        if over == self.stored[1]:
            self.stored = (record, over + 1)

    def land(self) -> None:
        """A write that was held up on its way arrives."""
        if self.in_flight:
            self.commit(*self.in_flight.pop(0))

    def read_back(self) -> None:
        settled = settle(self.tenure, *self.stored)
        assert settled is not None, "nobody else writes here"
        self.tenure = settled

    def observe(self, after_gap: bool) -> None:
        seen = self.observer.at(self.now_s)
        self.sight = look(self.sight, *self.stored, seen, after_gap)
        if self.sight.since == seen:
            self.seen_s = self.now_s

    def check(self) -> None:
        """If nothing more happens: at the first moment at which the lease could be taken over, its holder is over."""
        if self.sight is None or self.sight.index != self.stored[1]:
            return  # a takeover would fail: the lease has moved since it was seen
        expires_s = max(self.now_s, self.observer.moment_after_s(self.seen_s, self.sight.wait_s))
        assert is_expired(self.sight, Terms(0.1, 0.0), self.observer.at(expires_s))
        deadline = self.tenure.deadline
        assert deadline is not None
        assert has_passed(deadline.after(-10 * TOLERANCE_S), self.holder.at(expires_s))


steps = st.one_of(
    st.tuples(st.just("send"), terms, st.sampled_from(["answered", "unanswered", "delayed", "lost"])),
    st.tuples(st.just("land")),
    st.tuples(st.just("read_back")),
    st.tuples(st.just("observe"), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 1.0, 3.0])),
)


@settings(max_examples=500, deadline=None)
@given(clocks, clocks, st.booleans(), terms, st.lists(steps, max_size=12))
def test_no_order_of_lost_writes_and_changed_terms_lets_an_observer_be_first(
    holder: DriftingClocks, observer: DriftingClocks, adopted: bool, first: Terms, script: list[tuple[Any, ...]]
) -> None:
    world = World(holder, observer, adopted, first)
    for name, *arguments in script:
        if name == "pass":
            world.now_s += arguments[0]
        else:
            getattr(world, name)(*arguments)
        world.check()
