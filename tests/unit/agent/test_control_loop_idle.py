"""What the loop of a group leaves undone: an agent that turns without reason costs the database beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agent.coordination.lease import Position
from agent.decision.command import FenceService, RenewLease
from agent.decision.view import ServiceState
from agent.errors import CoordinationError
from agent.execution.executor import Finished
from tests.polling import eventually_async
from tests.unit.agent.looped import Looped, looped
from tests.unit.agent.stage import SPEC, first_record


@pytest.fixture
async def group() -> AsyncIterator[Looped]:
    async with looped() as one:
        yield one


async def test_the_session_is_asked_about_each_renew_period_and_at_once_when_a_command_failed(group: Looped) -> None:
    """Not with each reading: of those there is one for each heartbeat of each member."""
    asked, clock = group.stage.wires.session_questions, group.stage.clock
    await group.loop._ensure_session()
    await group.loop._ensure_session()
    assert len(asked) == 0, "it was opened just now"
    clock.shift_s += SPEC.renew_s
    await group.loop._ensure_session()
    await group.loop._ensure_session()
    assert len(asked) == 1
    group.loop._finished(Finished(RenewLease(1, "x", first_record()), ok=False, sentence="invalid session", duration_s=0.1))
    await group.loop._ensure_session()
    assert len(asked) == 2
    group.stage.wires.session_error = CoordinationError("no answer")
    clock.shift_s += SPEC.renew_s
    for _ in range(2):
        with pytest.raises(CoordinationError):
            await group.loop._ensure_session()


async def test_a_renewal_is_no_reason_for_a_heartbeat_of_its_own(group: Looped) -> None:
    group.loop._publish_now.clear()
    group.loop._finished(Finished(RenewLease(1, "x", first_record()), ok=True, sentence="renewed", duration_s=0.1))
    assert not group.loop._publish_now.is_set()
    group.loop._finished(Finished(FenceService(1, "x"), ok=True, sentence="fenced", duration_s=0.1))
    assert group.loop._publish_now.is_set()


async def test_a_look_that_finds_all_as_it_was_is_no_reason_to_decide(group: Looped) -> None:
    service = group.stage.service
    for changes, is_news in (
        ({}, True),  # nothing was decided yet
        ({}, False),
        ({"position": Position(1, 101)}, True),
        ({}, False),
        ({"receiving": True}, True),
        ({"state": ServiceState.PRIMARY}, True),
        ({}, True),  # how long a primary's standbys are silent is told by the moment of the look
    ):
        service.seen = replace(service.seen, **changes)  # type: ignore[arg-type]  # of several fields
        group.loop._woken.clear()
        await group.loop.refresh_service()
        assert group.loop._woken.is_set() is is_news, changes
        group.loop._turn()


async def test_a_port_that_begins_to_stand_is_a_reason_to_decide(group: Looped) -> None:
    kernel = group.stage.with_kernel()
    for stands, is_news in ((False, True), (False, False), (True, True), (True, False)):
        kernel.stands = stands
        group.loop._woken.clear()
        await group.loop.refresh_service()
        assert group.loop._woken.is_set() is is_news, stands
        group.loop._turn()


async def test_a_leader_that_goes_on_taking_writes_is_no_reason_to_decide(group: Looped) -> None:
    clock = group.stage.clock
    for node, writable, later_s, is_news in (
        ("pg2", True, 0.0, True),
        ("pg2", True, SPEC.renew_s, False),
        ("pg2", True, 10 * SPEC.renew_s, True),  # the one before had become stale
        ("pg2", False, 0.0, True),
        ("pg2", False, 0.0, True),
        ("pg2", None, 0.0, True),
        ("pg2", True, 0.0, True),
        ("pg3", True, 0.0, True),
    ):
        clock.shift_s += later_s
        group.loop._woken.clear()
        group.loop._note_observation(node, writable, "x")
        assert group.loop._woken.is_set() is is_news, (node, writable, later_s)


async def test_a_question_about_the_session_that_hangs_holds_up_no_reading(group: Looped) -> None:
    """As Consul does with it right after an election: two seconds of not reading cost a failover as much."""
    await group.loop.start()
    await eventually_async(lambda: group.stage.knowledge.session and group.stage.knowledge.reading, 5)
    asked = len(group.stage.wires.session_questions)
    group.stage.wires.session_gate.clear()
    await eventually_async(lambda: len(group.stage.wires.session_questions) > asked, 5, "it asks about its session")
    await group.write(first_record(holder="pg2"))
    try:
        reading = group.stage.knowledge.reading
        await eventually_async(lambda: group.stage.knowledge.reading is not reading, 0.5, "it reads all the same")
    finally:
        group.stage.wires.session_gate.set()
