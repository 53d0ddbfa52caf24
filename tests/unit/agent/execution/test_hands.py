from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actions.base import ActionTooLate
from agent.coordination.lease import Tenure
from agent.decision.command import FenceService, PromoteService
from agent.decision.view import FenceLayer
from agent.execution import crash_points
from agent.execution.crash_points import CrashPoint
from agent.execution.hands import Hands
from tests.unit.agent.stage import SPEC, ShiftedClock, Stage, first_record

PROMOTE = PromoteService(1, None, ())


@pytest.fixture
def leading(stage: Stage) -> Stage:
    """It holds epoch 1 for 2 s by its own reckoning, and the watchdog for 1.5 s."""
    now = stage.clock.now()
    stage.knowledge.tenure = Tenure(first_record(), 3, "s1", dated=now)
    stage.knowledge.high.rise(1, 1)
    stage.knowledge.fences = replace(stage.knowledge.fences, armed_epoch=1, armed_deadline=now.after(1.5))
    return stage


def test_the_earlier_deadline_counts(leading: Stage) -> None:
    tenure, armed = leading.knowledge.tenure, leading.knowledge.fences.armed_deadline
    assert tenure is not None
    assert leading.hands.owned_deadline == armed
    leading.knowledge.fences = replace(leading.knowledge.fences, armed_deadline=leading.clock.now().after(60))
    assert leading.hands.owned_deadline == tenure.deadline


@pytest.mark.parametrize("fences", [{"armed_epoch": 2}, {"armed_epoch": None}, {"armed_deadline": None}])
def test_what_the_watchdog_does_not_hold_is_not_owned(leading: Stage, fences: dict[str, object]) -> None:
    leading.knowledge.fences = replace(leading.knowledge.fences, **fences)  # type: ignore[arg-type]
    assert leading.hands.owned_deadline is None
    leading.knowledge.group = replace(SPEC, required_fences=frozenset({FenceLayer.SEAL}))
    assert leading.knowledge.tenure is not None
    assert leading.hands.owned_deadline == leading.knowledge.tenure.deadline


def test_nobody_owns_what_was_never_dated(leading: Stage) -> None:
    assert leading.knowledge.tenure is not None
    leading.knowledge.tenure = replace(leading.knowledge.tenure, dated=None)
    assert leading.hands.owned_deadline is None
    leading.knowledge.tenure = None
    assert leading.hands.owned_deadline is None


def test_the_lease_permits_while_it_lasts(leading: Stage) -> None:
    guard = leading.hands.lease_guard(PROMOTE, "")
    guard.permit()
    leading.clock.shift_s += 1.5
    with pytest.raises(ActionTooLate, match="the lease of epoch 1 ran out"):
        guard.permit()


def test_permission_is_asked_anew_each_time(leading: Stage) -> None:
    guard = leading.hands.lease_guard(PROMOTE, "")
    leading.knowledge.high.rise(2, 1)
    with pytest.raises(ActionTooLate, match="epoch 2 has begun"):
        guard.permit()
    leading.knowledge.tenure = None
    with pytest.raises(ActionTooLate, match="this node's no more"):
        guard.permit()


def test_the_lease_of_another_epoch_permits_nothing(leading: Stage) -> None:
    with pytest.raises(ActionTooLate, match="the lease of epoch 2 is this node's no more"):
        leading.hands.lease_guard(replace(PROMOTE, epoch=2), "").permit()


def test_without_an_acknowledged_deadline_nothing_is_permitted(leading: Stage) -> None:
    leading.knowledge.fences = replace(leading.knowledge.fences, armed_deadline=None)
    with pytest.raises(ActionTooLate, match="ran out"):
        leading.hands.lease_guard(PROMOTE, "").permit()


async def test_what_only_makes_it_safer_is_always_permitted_and_journaled(stage: Stage) -> None:
    entry = await stage.hands.journal.begin("StopService", 1, SPEC.name)
    guard = stage.hands.open_guard(PROMOTE, entry)
    guard.permit()
    await guard.step("stop")
    assert [e.steps for e in stage.hands.journal.unfinished()] == [("stop",)]


async def test_a_fence_waits_for_no_disk(stage: Stage) -> None:
    await stage.hands.journal.close()
    guard = stage.hands.fence_guard()
    guard.permit()
    await guard.step("kill")


async def test_a_step_is_in_the_journal_before_an_agent_dies_at_it(stage: Stage, tmp_path: Path) -> None:
    passed: list[tuple[str, str, int]] = []

    class Noting(CrashPoint):
        def passing(self, command: str, step: str) -> None:
            passed.append((command, step, len(stage.hands.journal.unfinished()[0].steps)))

    stage.hands.crash_point = Noting({crash_points.VARIABLE: ""}, tmp_path)
    entry = await stage.hands.journal.begin("PromoteService", 1, SPEC.name)
    await stage.hands.lease_guard(PROMOTE, entry).step("promote")
    await stage.hands.open_guard(FenceService(1, ""), entry).step("kill")
    assert passed == [("PromoteService", "promote", 1), ("FenceService", "kill", 2)]


async def test_nobody_asked_for_fresh_facts_yet(stage: Stage) -> None:
    plain = Hands(
        ShiftedClock(),
        stage.wires,
        stage.knowledge,
        stage.hands.remembered,
        stage.hands.journal,
        None,
        None,
        stage.hands.crash_point,
    )
    await plain.refresh()
    await plain.refresh_reading()
    assert stage.hands.the_service() is stage.service
