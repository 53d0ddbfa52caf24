from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import structlog

from agent.coordination.history import HistoryEntry, HistoryReason, append
from agent.coordination.intents import StoredIntent, decode_stored
from agent.coordination.lease import intent_key
from agent.decision.rules import TABLE
from agent.decision.view import IntentKind
from agent.errors import CoordinationError, CoordinationRefused
from agent.node_face import HEARD_WITHIN_S, NodeFace
from agent.observation.scheduler import ScheduledCheck, Scheduler
from agent.reporting.audit import Audit, EventKind
from agent.web.source import StatusSource
from checks.base import Level
from checks.tcp import TcpCheck, TcpOptions
from tests.polling import eventually_async
from tests.unit.agent.looped import Looped, looped
from tests.unit.agent.stage import NODE, SPEC, first_record


class Faced:
    """The face of a node with one group."""

    def __init__(self, group: Looped) -> None:
        self.group = group
        self.clock = group.stage.clock
        self.scheduler = Scheduler(self.clock)
        self.audit = Audit(self.clock, structlog.get_logger())
        self.face = NodeFace(NODE, self.clock, group.stage.wires, {SPEC.name: group.loop}, self.scheduler, self.audit)

    async def led_by_pg2(self) -> None:
        await self.group.write(first_record(holder="pg2"))
        await self.group.loop._ensure_session()
        await self.group.loop.refresh_reading()
        await self.group.loop.refresh_service()
        self.group.loop._turn()


@pytest.fixture
async def faced() -> AsyncIterator[Faced]:
    async with looped() as group:
        one = Faced(group)
        yield one
        await one.scheduler.close()


def test_it_is_what_the_edge_asks(faced: Faced) -> None:
    source: StatusSource = faced.face
    assert source.audit() is faced.audit


# ---------------------------------------------------------------------------------------------------- the document


async def test_before_the_first_turn_a_group_is_not_shown(faced: Faced) -> None:
    document = faced.face.status()
    assert (document.node, document.groups, document.coordination.up) == (NODE, (), False)
    assert (faced.face.serves(SPEC.name), faced.face.explain(SPEC.name)) == (None, None)
    assert faced.face.readiness() == (False, f"group {SPEC.name} was not looked at yet")


async def test_the_document_shows_the_group_as_it_is_now(faced: Faced) -> None:
    await faced.led_by_pg2()
    document = faced.face.status()
    (group,) = document.groups
    assert (group.name, group.leader, group.epoch) == (SPEC.name, "pg2", 1)
    assert document.coordination.up
    assert document.coordination.description.startswith("local file ")
    await faced.group.write(first_record(holder="pg2", epoch=2))
    await faced.group.loop.refresh_reading()
    assert faced.face.status().groups[0].epoch == 2, "without another turn"


async def test_a_rule_that_only_waits_is_not_shown(faced: Faced) -> None:
    await faced.led_by_pg2()
    decision = faced.group.loop.decision
    assert decision is not None
    busy = next(row for row in TABLE if row.name == "lease-busy")
    acting = next(row for row in TABLE if row.name == "follow")
    faced.group.loop.decision = replace(decision, rules=(busy, acting))
    assert [(g.rule, g.sentence) for g in faced.face.status().groups] == [("follow", acting.sentence)]
    faced.group.loop.decision = replace(decision, rules=(busy,))
    assert [g.rule for g in faced.face.status().groups] == [""]


async def test_a_check_is_shown_before_and_after_its_first_run(faced: Faced) -> None:
    check = TcpCheck(Level.LIVENESS, TcpOptions(address="127.0.0.1:1"))
    await faced.scheduler.reload([ScheduledCheck("gate", check, 60, 1, 1, 1)])
    (before,) = faced.face.status().checks
    assert (before.name, before.kind, before.level, before.sentence) == ("gate", "tcp", "liveness", "")
    assert (before.since_wall_s, before.latency_s, before.last_run_wall_s) == (None, None, None)
    await faced.scheduler.run_now("gate")
    faced.clock.shift_s += 5
    (after,) = faced.face.status().checks
    assert (after.status, "127.0.0.1:1" in after.sentence) == ("unhealthy", True)
    assert after.since_wall_s is not None
    assert after.last_run_wall_s is not None
    assert after.since_wall_s == pytest.approx(after.last_run_wall_s, abs=1)


async def test_without_groups_it_says_what_it_knows(faced: Faced) -> None:
    face = NodeFace(NODE, faced.clock, faced.group.stage.wires, {}, faced.scheduler, faced.audit)
    assert face.readiness() == (True, "running")
    assert face.status().groups == ()
    assert face.status().coordination.up, "it asks nothing of it"


# ---------------------------------------------------------------------------------------------------- readiness


async def test_ready_is_who_runs_and_hears_the_coordinator(faced: Faced) -> None:
    await faced.led_by_pg2()
    assert faced.face.readiness() == (True, "running")
    faced.clock.shift_s += HEARD_WITHIN_S + 1
    assert faced.face.readiness() == (False, "the coordinator does not answer")
    assert not faced.face.status().coordination.up


async def test_a_slow_lease_is_heard_less_often(faced: Faced) -> None:
    """With `renew: 20s` ten seconds of silence are nothing."""
    await faced.led_by_pg2()
    faced.group.loop.reconfigure(replace(SPEC, renew_s=20.0))
    faced.group.loop._turn()
    faced.clock.shift_s += HEARD_WITHIN_S + 1
    assert faced.face.readiness() == (True, "running")
    assert faced.face.status().coordination.up


async def test_a_loop_that_has_ended_is_not_ready(faced: Faced) -> None:
    await faced.group.loop.start()

    async def broken(timeout_s: float) -> object:  # noqa: ARG001  # as the real one
        raise KeyError("a bug")

    faced.group.stage.service.read = broken  # type: ignore[method-assign,assignment]
    await eventually_async(lambda: faced.group.loop.failed, 5)
    assert faced.face.readiness() == (False, f"the loop of group {SPEC.name} has ended")


async def test_what_the_service_may_be_used_as(faced: Faced) -> None:
    await faced.led_by_pg2()
    serves = faced.face.serves(SPEC.name)
    assert serves is not None
    assert not serves.leader
    faced.clock.shift_s += 60
    late = faced.face.serves(SPEC.name)
    assert late is not None
    assert (late.replica, late.sentence) == (False, "nobody has looked at the service lately")
    explanation = faced.face.explain(SPEC.name)
    assert explanation is not None
    assert (explanation.group, explanation.node) == (SPEC.name, NODE)


@pytest.mark.parametrize("ask", [lambda f: f.serves("other"), lambda f: f.explain("other")])
async def test_of_an_unknown_group_nothing_is_said(faced: Faced, ask: Callable[[NodeFace], object]) -> None:
    await faced.led_by_pg2()
    assert ask(faced.face) is None


# ---------------------------------------------------------------------------------------------------- the coordinator


async def test_the_history_is_read_from_the_coordinator(faced: Faced) -> None:
    entry = HistoryEntry(1, "pg2", None, HistoryReason.FORMED, 1.0, 1.0, 0.0, 1, None, "formed")
    await append(faced.group.stage.wires.real, SPEC.name, entry)
    assert await faced.face.history(SPEC.name) == (entry,)
    assert await faced.face.history("other") == ()


async def test_an_intent_is_stored_noted_and_found_again(faced: Faced) -> None:
    await faced.led_by_pg2()
    identity = await faced.face.submit_intent(IntentKind.SWITCHOVER, SPEC.name, "pg2", "ann", "a test")
    value = await faced.group.stage.stored(intent_key(SPEC.name, identity))
    assert value is not None
    stored = await faced.face.intent(SPEC.name, identity)
    assert isinstance(stored, StoredIntent)
    assert stored == decode_stored(value)
    assert (stored.kind, stored.node, stored.epoch, stored.who, stored.why) == (IntentKind.SWITCHOVER, "pg2", 1, "ann", "a test")
    event = faced.audit.recent()[-1]
    assert (event.kind, event.group, event.epoch, event.fields) == (EventKind.INTENT_SUBMITTED, SPEC.name, 1, {"identity": identity})
    assert event.sentence == "switchover by ann: a test"
    assert await faced.face.intent(SPEC.name, identity[:-1]) is None, "a name that begins alike is another one"


async def test_nothing_is_wanted_of_a_group_without_a_lease(faced: Faced) -> None:
    for group in (SPEC.name, "other"):
        with pytest.raises(CoordinationRefused, match=f"group {group} has no lease that this node can read"):
            await faced.face.submit_intent(IntentKind.PAUSE, group, None, "ann", "x")
    assert faced.audit.recent() == ()


@pytest.mark.parametrize(
    "ask",
    [
        lambda f: f.history(SPEC.name),
        lambda f: f.intent(SPEC.name, "i"),
        lambda f: f.submit_intent(IntentKind.PAUSE, SPEC.name, None, "a", "b"),
    ],
)
async def test_a_coordinator_that_is_away_is_told(faced: Faced, ask: Callable[[NodeFace], Awaitable[object]]) -> None:
    await faced.led_by_pg2()
    faced.group.stage.wires.away = CoordinationError("nobody is there")
    with pytest.raises(CoordinationError, match="nobody is there"):
        await ask(faced.face)
