"""Every rule of a deadline, and a machine that tries to break them in any order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.watchdog import deadline as rules
from agent.watchdog.deadline import NANOSECONDS, Deadline, GroupState, Moment, Refusal, Target

TARGET = Target("/data", 1000, 0.5)
FRESH = GroupState(TARGET)


def at(seconds: float) -> Moment:
    return Moment(int(seconds * NANOSECONDS), int(seconds * NANOSECONDS))


def until(seconds: float, epoch: int = 1, nonce: str = "n") -> Deadline:
    return Deadline(epoch, at(seconds), nonce)


def armed(seconds: float = 5, epoch: int = 1) -> GroupState:
    state = rules.hand_over(FRESH, until(seconds, epoch), at(0), proven_not_writable=True)
    assert isinstance(state, GroupState)
    return state


def wish(state: GroupState, new: Deadline, now: Moment, *, proven: bool = False) -> GroupState | Refusal:
    return rules.hand_over(state, new, now, proven_not_writable=proven)


def test_a_fresh_group_is_held() -> None:
    assert rules.must_hold(FRESH, at(0))
    assert not rules.is_due(FRESH, at(0))
    assert rules.is_idle(FRESH)


def test_a_service_proven_not_writable_is_armed() -> None:
    state = armed(5, epoch=7)
    assert state.deadline == until(5, 7)
    assert state.highest_epoch == 7
    assert rules.is_valid(state, at(4.9))
    assert not rules.must_hold(state, at(4.9))
    assert not rules.is_idle(state)


def test_a_service_that_may_be_writable_is_not_armed() -> None:
    assert wish(FRESH, until(5), at(0)) is Refusal.NOT_PROVEN


@pytest.mark.parametrize("now", [Moment(at(5).boot_ns, 0), Moment(0, at(5).raw_ns), at(5)])
def test_a_deadline_passes_when_either_clock_says_so(now: Moment) -> None:
    state = armed(5)
    assert rules.is_due(state, now)
    assert rules.must_hold(state, now)
    assert rules.left_ns(at(5), now) == 0


def test_left_is_told_by_the_nearer_clock() -> None:
    assert rules.left_ns(at(5), Moment(at(4).boot_ns, at(1).raw_ns)) == NANOSECONDS


def test_inside_its_epoch_it_moves_forwards_without_proof() -> None:
    moved = wish(armed(5), until(6, nonce="m"), at(1))
    assert isinstance(moved, GroupState)
    assert moved.deadline == until(6, nonce="m")


def test_the_same_deadline_again_is_no_error() -> None:
    assert wish(armed(5), until(5), at(1)) == armed(5)


@pytest.mark.parametrize(
    "new", [until(4), Deadline(1, Moment(at(4).boot_ns, at(9).raw_ns), "n"), Deadline(1, Moment(at(9).boot_ns, at(4).raw_ns), "n")]
)
def test_it_never_moves_backwards_on_either_clock(new: Deadline) -> None:
    assert wish(armed(5), new, at(1)) is Refusal.BACKWARDS


def test_a_deadline_that_passed_does_not_move() -> None:
    assert wish(armed(5), until(9), at(5)) is Refusal.PASSED


def test_a_passed_deadline_latches_until_the_service_is_proven_fenced() -> None:
    latched = rules.expire(armed(5), at(5))
    assert latched.latched
    assert rules.must_hold(latched, at(0))
    for new, proven in ((until(9), False), (until(9), True), (until(9, epoch=2), True)):
        assert wish(latched, new, at(6), proven=proven) is Refusal.LATCHED
    again = wish(rules.prove_fenced(latched), until(9), at(6), proven=True)
    assert isinstance(again, GroupState)
    assert rules.is_valid(again, at(6))


def test_expire_touches_nothing_that_is_not_due() -> None:
    for state in (FRESH, armed(5), rules.demand_fence(armed(5))):
        assert rules.expire(state, at(4)) == state


def test_after_the_fence_the_same_epoch_needs_proof_again() -> None:
    fenced = rules.prove_fenced(rules.expire(armed(5), at(5)))
    assert wish(fenced, until(9), at(6)) is Refusal.NOT_PROVEN


def test_a_newer_epoch_is_armed_only_for_a_service_proven_not_writable() -> None:
    assert wish(armed(5), until(6, epoch=2), at(1)) is Refusal.NOT_PROVEN
    state = wish(armed(5), until(6, epoch=2), at(1), proven=True)
    assert isinstance(state, GroupState)
    assert state.highest_epoch == 2


def test_an_older_epoch_is_refused_even_with_proof() -> None:
    assert wish(armed(5, epoch=3), until(6, epoch=2), at(1), proven=True) is Refusal.OLDER_EPOCH
    released = rules.disarm(armed(5, epoch=3), at(1), proven_not_writable=True)
    assert isinstance(released, GroupState)
    assert wish(released, until(6, epoch=2), at(1), proven=True) is Refusal.OLDER_EPOCH


def test_a_deadline_already_over_is_refused() -> None:
    assert wish(FRESH, until(5), at(5), proven=True) is Refusal.ALREADY_OVER


@pytest.mark.parametrize("far", [at(601), Moment(at(601).boot_ns, at(5).raw_ns), Moment(at(5).boot_ns, at(601).raw_ns)])
def test_a_deadline_absurdly_far_ahead_is_refused(far: Moment) -> None:
    assert wish(FRESH, Deadline(1, far, "n"), at(0), proven=True) is Refusal.TOO_FAR
    assert wish(armed(5), Deadline(1, far, "n"), at(0)) is Refusal.TOO_FAR


def test_release_needs_proof_and_leaves_it_held() -> None:
    assert rules.disarm(armed(5), at(1), proven_not_writable=False) is Refusal.NOT_PROVEN
    assert rules.disarm(armed(5), at(5), proven_not_writable=True) is Refusal.PASSED
    assert rules.disarm(rules.demand_fence(armed(5)), at(1), proven_not_writable=True) is Refusal.LATCHED
    state = rules.disarm(armed(5), at(1), proven_not_writable=True)
    assert isinstance(state, GroupState)
    assert rules.must_hold(state, at(1))
    assert rules.is_idle(state)


def test_a_pause_stops_the_deadline_and_the_hold_until_it_is_armed_again() -> None:
    paused = rules.suspend(armed(5), 1, at(1))
    assert isinstance(paused, GroupState)
    assert not rules.is_due(paused, at(99))
    assert not rules.must_hold(paused, at(99))
    assert rules.expire(paused, at(99)) == paused
    assert not rules.is_idle(paused)
    resumed = wish(paused, until(105), at(100))
    assert isinstance(resumed, GroupState)
    assert rules.is_valid(resumed, at(100))
    assert rules.is_due(resumed, at(105))


def test_a_pause_belongs_to_its_epoch() -> None:
    assert rules.suspend(FRESH, 1, at(0)) is Refusal.NOT_ARMED
    assert rules.suspend(armed(5, epoch=2), 1, at(0)) is Refusal.NOT_ARMED
    assert rules.suspend(armed(5), 1, at(5)) is Refusal.PASSED
    assert rules.suspend(rules.demand_fence(armed(5)), 1, at(0)) is Refusal.LATCHED
    paused = rules.suspend(armed(5), 1, at(1))
    assert isinstance(paused, GroupState)
    assert wish(paused, until(9, epoch=2), at(2)) is Refusal.NOT_PROVEN


def test_a_fence_that_is_asked_for_ends_arming_and_pause_alike() -> None:
    paused = rules.suspend(armed(5), 1, at(1))
    assert isinstance(paused, GroupState)
    for state in (FRESH, armed(5), paused):
        demanded = rules.demand_fence(state)
        assert demanded.latched
        assert rules.must_hold(demanded, at(1))
        assert rules.is_idle(rules.prove_fenced(demanded))


def test_move_alone_refuses_what_is_not_armed() -> None:
    assert rules.move(FRESH, until(5)) is Refusal.NOT_ARMED


def test_every_refusal_has_a_sentence_of_its_own() -> None:
    assert len({refusal.value for refusal in Refusal}) == len(Refusal.__members__)


class Breaker(RuleBasedStateMachine):
    """Any order of calls, on clocks that run apart: nothing extends a passed deadline or carries one into another epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.state = FRESH
        self.now = at(0)
        self.over: Moment | None = None
        """A deadline that passed and whose service is not yet proven fenced or not writable."""

    @rule(boot=st.integers(0, 3 * NANOSECONDS), raw=st.integers(0, 3 * NANOSECONDS))
    def time_goes_on(self, boot: int, raw: int) -> None:
        self.now = Moment(self.now.boot_ns + boot, self.now.raw_ns + raw)
        if self.state.deadline and not self.state.suspended and rules.has_passed(self.state.deadline.at, self.now):
            self.over = self.state.deadline.at

    @rule()
    def the_loop_turns(self) -> None:
        self.state = rules.expire(self.state, self.now)

    @rule(epoch=st.integers(1, 4), boot=st.integers(-2, 8), raw=st.integers(-2, 8), proven=st.booleans())
    def the_agent_hands_over(self, epoch: int, boot: int, raw: int, *, proven: bool) -> None:
        new = Deadline(epoch, Moment(self.now.boot_ns + boot * NANOSECONDS, self.now.raw_ns + raw * NANOSECONDS), "x")
        before = self.state
        result = rules.hand_over(before, new, self.now, proven_not_writable=proven)
        if isinstance(result, Refusal):
            return
        assert self.over is None, "a passed deadline was extended"
        assert not rules.has_passed(new.at, self.now)
        assert epoch >= before.highest_epoch, "an older epoch was armed"
        if not proven:
            assert before.deadline is not None, "armed without proof"
            assert before.deadline.epoch == epoch, "moved across epochs"
            assert new.at.boot_ns >= before.deadline.at.boot_ns, "moved backwards"
            assert new.at.raw_ns >= before.deadline.at.raw_ns, "moved backwards"
        self.state = result

    @rule(epoch=st.integers(1, 4))
    def the_agent_pauses(self, epoch: int) -> None:
        result = rules.suspend(self.state, epoch, self.now)
        if isinstance(result, GroupState):
            assert self.over is None, "a pause revived a passed deadline"
            self.state = result

    @rule(proven=st.booleans())
    def the_agent_releases(self, *, proven: bool) -> None:
        result = rules.disarm(self.state, self.now, proven_not_writable=proven)
        if isinstance(result, GroupState):
            assert proven
            assert self.over is None
            self.state = result

    @rule()
    def the_agent_asks_for_a_fence(self) -> None:
        self.state = rules.demand_fence(self.state)

    @rule()
    def the_tree_is_seen_dead(self) -> None:
        if self.state.latched:
            self.state = rules.prove_fenced(self.state)
            self.over = None

    @invariant()
    def what_is_over_stays_over(self) -> None:
        if self.over is not None:
            assert not rules.is_valid(self.state, self.now)
            assert rules.must_hold(self.state, self.now)


Breaker.TestCase.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
TestBreaker = Breaker.TestCase
