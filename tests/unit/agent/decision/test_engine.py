from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.decision import safeguards
from agent.decision.command import DropRoutes, FenceService, PromoteService, TakeLease
from agent.decision.context import Context
from agent.decision.engine import ENGINES, Decision, decide
from agent.decision.memory import Memory
from agent.decision.situation import Situation
from agent.instant import Instant
from tests.scenarios.anything import scenes
from tests.scenarios.building import Scene, scene

PATIENT = settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
CLOCK_SLACK_NS = 3
"""A wake-up may be this much later than the bound it is for: bounds are compared as floats."""
Seen = tuple[Scene, Memory]


def decided(seen: Seen) -> Decision:
    return decide(seen[1], seen[0].view, seen[0].now)


def context(seen: Seen) -> Context:
    return Context(seen[0].view, decided(seen).memory, ENGINES["postgres"], seen[0].now)


def follows(decision: Decision) -> tuple[object, ...]:
    return decision.situation, tuple(r.name for r in decision.rules), decision.commands


# ------------------------------------------------------------------ properties of any view


@PATIENT
@given(scenes())
def test_any_view_gets_one_and_the_same_decision(seen: Seen) -> None:
    assert decided(seen) == decided(seen)


@PATIENT
@given(scenes())
def test_nothing_is_promoted_while_a_safeguard_forbids_it(seen: Seen) -> None:
    if any(isinstance(c, PromoteService) for c in decided(seen).commands):
        assert safeguards.forbids_promotion(context(seen)) == ()


@PATIENT
@given(scenes())
def test_one_command_a_resource(seen: Seen) -> None:
    ordered = decided(seen).commands
    assert all(n == 1 for n in Counter(c.resource for c in ordered).values())
    busy = {f.command.resource for f in seen[0].view.in_flight}
    assert not [c for c in ordered if c.resource in busy and not isinstance(c, FenceService | DropRoutes)]


@PATIENT
@given(scenes())
def test_a_held_lease_of_another_node_is_taken_only_after_its_time(seen: Seen) -> None:
    if any(isinstance(c, TakeLease) for c in decided(seen).commands):
        ctx = context(seen)
        assert not ctx.is_led_by_other or (ctx.is_expired and ctx.has_quorum)
        assert not ctx.may_be_writable
        assert ctx.record is not None
        assert not ctx.record.paused or ctx.is_holder_by_record


@PATIENT
@given(scenes(), st.lists(st.integers(0, 10**9), max_size=5))
def test_nothing_changes_by_time_alone_before_the_wake_up(seen: Seen, extra_ns: list[int]) -> None:
    (view, now), first = (seen[0].view, seen[0].now), decided(seen)
    assert first.wake_up.boot_ns > now.boot_ns
    assert first.wake_up.raw_ns > now.raw_ns
    for offset_ns in moments_between(now, first.wake_up, extra_ns):
        later = Instant(now.boot_ns + offset_ns, now.raw_ns + offset_ns)
        assert follows(decide(first.memory, view, later)) == follows(first), f"changed {offset_ns / 1e9} s later"


def moments_between(now: Instant, wake_up: Instant, extra_ns: list[int]) -> list[int]:
    """Offsets in ns at which the same view is decided upon again: a fine raster, the last possible moment, and a few of chance."""
    end_ns = max(0, wake_up.boot_ns - now.boot_ns - CLOCK_SLACK_NS)
    return sorted({*range(0, end_ns, 50_000_000), *(n for n in extra_ns if n < end_ns), end_ns})


# ------------------------------------------------------------------ what a decision says and remembers


def test_the_reason_is_the_first_row_that_is_more_than_busy() -> None:
    late = scene({"node": "pg1", "tenure": {"sent": "9s ago"}, "in_flight": ["RenewLease"]})
    assert decide(Memory(), late.view, late.now).reason.startswith("The own lease is over")
    quiet = scene()
    assert decide(Memory(), quiet.view, quiet.now).reason == "another node leads; the local service follows it"
    busy = scene({"in_flight": ["FollowLeader"]})
    assert decide(Memory(), busy.view, busy.now).reason == "another node leads; the local service follows it"


def test_a_situation_is_remembered_since_it_began() -> None:
    seen = scene()
    first = decide(Memory(), seen.view, seen.now).memory
    assert (first.situation, first.situation_since) == (Situation.FOLLOWING, seen.now)
    later = decide(first, seen.view, seen.now.after(0.5)).memory
    assert later.situation_since == seen.now
    blind = scene({"answered": "9s ago"})
    assert decide(later, blind.view, blind.now.after(0.7)).memory.situation_since == blind.now.after(0.7)


@pytest.mark.parametrize(("state", "is_kept"), [("hung", True), ("unknown", True), ("standby", False)])
def test_a_look_without_an_answer_ends_no_silence(state: str, is_kept: bool) -> None:
    seen = scene({"node": "pg1", "lease": {"sync_set": ["pg2"]}, "service": {"state": state}})
    since = seen.now.after(-2)
    assert decide(Memory(sync_missing_since=since), seen.view, seen.now).memory.sync_missing_since == (since if is_kept else None)


@pytest.mark.parametrize(
    ("name", "holds", "ended"),
    [
        ("sync_missing_since", {"node": "pg1", "group": {"durability": "sync"}, "service": {"replicas": []}}, {"node": "pg1"}),
        ("sync_missing_since", {"node": "pg1", "service": {"sync_names": ["pg9"]}}, {"service": {"state": "down"}}),
        ("unwritable_since", {"node": "pg1", "service": {"state": "down"}}, {"node": "pg1"}),
        ("unwritable_since", {"node": "pg1", "service": {"state": "starting"}}, {"service": {"state": "down"}}),
        ("vacancy_since", {"lease": {"state": "vacated"}}, {}),
    ],
)
def test_a_timer_runs_from_its_first_sight_and_ends_with_it(name: str, holds: dict[str, object], ended: dict[str, object]) -> None:
    seen, over = scene(holds), scene(ended)
    first = decide(Memory(), seen.view, seen.now).memory
    assert getattr(first, name) == seen.now
    assert getattr(decide(first, seen.view, seen.now.after(2)).memory, name) == seen.now
    assert getattr(decide(first, over.view, over.now).memory, name) is None


def test_a_holder_that_took_writes_hands_on_even_before_its_promotion_is_recorded() -> None:
    """It crashed between its promotion and the renewal that tells of it; a record alone would call it one that never led."""
    unrecorded = {"node": "pg1", "lease": {"promotions": [[6, "pg1", 3, 2, 3000], [7, "pg1", 4, 3, 0]]}}
    down = {**unrecorded, "service": {"state": "down", "since": "0.02s ago"}, "outcomes": {"FenceService": {"ended": "0.01s ago"}}}
    led, crashed = scene(unrecorded), scene(down)
    memory = decide(Memory(), led.view, led.now).memory
    assert next(r.name for r in decide(memory, crashed.view, crashed.now).rules) == "give-up"
    assert "give-up" not in [r.name for r in decide(Memory(), crashed.view, crashed.now).rules]
