from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.decision import safeguards
from agent.decision.command import FenceService, PromoteService, TakeLease
from agent.decision.context import Context
from agent.decision.engine import ENGINES, Decision, decide
from agent.instant import Instant
from tests.scenarios.anything import GIVEN, MEMORY
from tests.scenarios.building import Scene, build, memory

PATIENT = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
CLOCK_SLACK_NS = 3
"""A wake-up may be this much later than the bound it is for: bounds are compared as floats."""


def decided(scene: Scene, said: dict[str, Any]) -> Decision:
    return decide(memory(said), scene.view, scene.now)


def follows(decision: Decision) -> tuple[object, ...]:
    return decision.situation, tuple(r.name for r in decision.rules), decision.commands


@PATIENT
@given(GIVEN, MEMORY)
def test_any_view_gets_one_and_the_same_decision(given_: dict[str, Any], said: dict[str, Any]) -> None:
    scene = build(given_)
    assert decided(scene, said) == decided(build(given_), said)
    assert scene == build(given_)


@PATIENT
@given(GIVEN, MEMORY)
def test_nothing_is_promoted_while_a_safeguard_forbids_it(given_: dict[str, Any], said: dict[str, Any]) -> None:
    scene = build(given_)
    decision = decided(scene, said)
    if any(isinstance(c, PromoteService) for c in decision.commands):
        ctx = Context(scene.view, decision.memory, ENGINES["postgres"], scene.now)
        assert safeguards.forbids_promotion(ctx) == ()


@PATIENT
@given(GIVEN, MEMORY)
def test_one_command_a_resource(given_: dict[str, Any], said: dict[str, Any]) -> None:
    scene = build(given_)
    ordered = decided(scene, said).commands
    assert all(n == 1 for n in Counter(c.resource for c in ordered).values())
    busy = {f.command.resource for f in scene.view.in_flight}
    assert not [c for c in ordered if c.resource in busy and not isinstance(c, FenceService)]


@PATIENT
@given(GIVEN, MEMORY)
def test_a_held_lease_of_another_node_is_taken_only_after_its_time(given_: dict[str, Any], said: dict[str, Any]) -> None:
    scene = build(given_)
    ctx = Context(scene.view, memory(said), ENGINES["postgres"], scene.now)
    if any(isinstance(c, TakeLease) for c in decided(scene, said).commands):
        assert not ctx.is_led_by_other or (ctx.is_expired and ctx.has_quorum)
        assert ctx.record is not None
        assert not ctx.record.paused or ctx.record.holder == scene.view.node


def moments_between(now: Instant, wake_up: Instant, extra_ns: list[int]) -> list[int]:
    """Offsets in ns at which the same view is decided upon again: a fine raster, the last possible moment, and a few of chance."""
    end_ns = wake_up.boot_ns - now.boot_ns - CLOCK_SLACK_NS
    raster = range(0, max(end_ns, 0), 50_000_000)
    return sorted({*raster, *(n for n in extra_ns if n < end_ns), max(end_ns, 0)})


@PATIENT
@given(GIVEN, MEMORY, st.lists(st.integers(0, 10**9), max_size=5))
def test_nothing_changes_by_time_alone_before_the_wake_up(given_: dict[str, Any], said: dict[str, Any], extra_ns: list[int]) -> None:
    scene = build(given_)
    first = decided(scene, said)
    assert first.wake_up.boot_ns > scene.now.boot_ns
    assert first.wake_up.raw_ns > scene.now.raw_ns
    for offset_ns in moments_between(scene.now, first.wake_up, extra_ns):
        now = Instant(scene.now.boot_ns + offset_ns, scene.now.raw_ns + offset_ns)
        assert follows(decide(first.memory, scene.view, now)) == follows(first), f"changed {offset_ns / 1e9} s later"
