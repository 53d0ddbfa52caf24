from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from actions.base import ActionError, ActionTimeout, ActionTooLate
from agent.coordination.coordinator import Entry
from agent.coordination.history import HistoryEntry, HistoryReason, read_history
from agent.coordination.lease import CountedVote, Debt, LeaseRecord, LeaseState, encode_record
from agent.decision.command import (
    CastVote,
    Command,
    FenceService,
    FinishIntent,
    FormGroup,
    IntentOutcome,
    PromoteService,
    RejoinMode,
    RejoinService,
    RenewLease,
    SealService,
    StartService,
    StopService,
    TakeLease,
    VacateLease,
)
from agent.decision.engine import decide
from agent.decision.memory import Memory
from agent.decision.situation import Situation
from agent.decision.view import RouteView, View
from agent.errors import CoordinationError
from agent.execution.executor import Finished
from agent.reporting.audit import Audit, Event, EventKind
from agent.reporting.chronicle import Chronicle
from agent.reporting.metrics import Metrics
from tests.polling import eventually_async
from tests.unit.agent.reporting.samples import WALL_S, StillClock, at, document, leading_view, lease, record
from tests.unit.agent.stage import Stage, staged

OVER = record()
"""The record of epoch 3, which pg1 holds."""


class Quiet:
    def info(self, event: str, **fields: object) -> None:
        """No log is read here."""


class Told:
    """A chronicle on pg2, which takes over from pg1, and all that it told."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.clock = StillClock()
        self.audit = Audit(self.clock, Quiet())
        self.metrics = Metrics()
        self.metrics.keep([], ["pg-main"])
        self.chronicle = Chronicle(self.audit, self.metrics, self.clock, stage.wires)

    def turn(self, held: LeaseRecord | None = OVER, *commands: Command, situation: Situation = Situation.VACANT) -> None:
        """A turn of pg2 that sees this lease."""
        view = self.view(held)
        decision = replace(decide(Memory(), view, self.clock.now()), commands=commands, situation=situation)
        self.chronicle.decided(view, decision, self.clock.now())

    def leads(self, command: PromoteService) -> None:
        """The promotion ended well, and the next turn sees what came of it."""
        self.end(command)
        self.turn(replace(OVER, holder="pg2", epoch=command.epoch), situation=Situation.LEADING)

    def view(self, held: LeaseRecord | None) -> View:
        seen = leading_view()
        seen = replace(seen, node="pg2", tenure=None)
        return replace(seen, lease=replace(seen.lease, exists=False, record=None, entry=None, sight=None) if held is None else lease(held))

    def end(self, command: Command, *, sentence: str = "words", error: Exception | None = None, duration_s: float = 0.25) -> None:
        self.chronicle.finished(Finished(command, error is None, sentence, duration_s, error))

    @property
    def events(self) -> list[tuple[EventKind, int | None, str]]:
        return [(e.kind, e.epoch, e.sentence) for e in self.audit.recent()]

    def last(self) -> Event:
        return self.audit.recent()[-1]

    def metric(self, line: str) -> float | None:
        """The value of a line of the metrics, such as `name{label="x"}`."""
        text, _ = self.metrics.exposition(document())
        found = [part.rpartition(b" ")[2] for part in text.splitlines() if part.rpartition(b" ")[0] == line.encode()]
        return float(found[0]) if found else None

    async def history(self) -> tuple[HistoryEntry, ...]:
        await eventually_async(lambda: not self.chronicle._writing, 5, "the history is written")
        return await read_history(self.stage.wires.real, "pg-main")


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    async with staged() as stage:
        yield Told(stage)


def takes(over: LeaseRecord = OVER, **changes: object) -> TakeLease:
    mine = replace(over, holder="pg2", epoch=over.epoch + 1, sequence=1, cause="they vote", **changes)  # type: ignore[arg-type]
    return TakeLease(over.epoch, mine, Entry(encode_record(over), 7, "s1"), ())


def promotes(epoch: int = 4, names: tuple[str, ...] | None = None) -> PromoteService:
    return PromoteService(epoch, names, ())


# ---------------------------------------------------------------------------------------------------- events


async def test_a_new_situation_is_an_event(told: Told) -> None:
    told.turn(situation=Situation.FOLLOWING)
    told.turn(situation=Situation.FOLLOWING)
    told.turn(situation=Situation.SILENT)
    first, second = told.events
    assert first[:2] == second[:2] == (EventKind.SITUATION_CHANGED, 3)
    assert first[2].startswith("following: ")
    assert second[2].startswith("following -> silent: ")
    assert told.last().group == "pg-main"
    assert told.last().fields == {"boot_s": 100.0}


async def test_the_death_of_the_service_has_a_name_of_its_own(told: Told) -> None:
    told.turn(situation=Situation.CRASHED)
    assert told.last().kind is EventKind.SERVICE_DIED


@pytest.mark.parametrize(
    ("command", "kind", "epoch"),
    [
        (VacateLease(3, OVER), EventKind.LEASE_VACATED, 3),
        (FenceService(3, "x"), EventKind.SERVICE_FENCED, 3),
        (StopService(3, "x"), EventKind.SERVICE_STOPPED, 3),
        (StartService(3), EventKind.SERVICE_STARTED, 3),
        (RejoinService(3, "pg1", RejoinMode.COPY), EventKind.MEMBER_REJOINED, 3),
        (FinishIntent(3, "i", 1, IntentOutcome.DONE, ""), EventKind.INTENT_FINISHED, 3),
        (CastVote(3, down=True, over_index=0, evidence=""), EventKind.VOTE_CAST, 3),
        (CastVote(3, down=False, over_index=0, evidence=""), EventKind.VOTE_WITHDRAWN, 3),
        (takes(), EventKind.LEASE_TAKEN, 4),
        (FormGroup(0, replace(OVER, epoch=1), ()), EventKind.LEASE_TAKEN, 1),
        (promotes(), EventKind.SERVICE_PROMOTED, 4),
    ],
)
async def test_what_was_done_is_an_event(told: Told, command: Command, kind: EventKind, epoch: int) -> None:
    told.turn()
    told.end(command)
    assert told.events[-1] == (kind, epoch, "words")


@pytest.mark.parametrize("command", [RenewLease(3, OVER), SealService(3)])
async def test_routine_is_none(told: Told, command: Command) -> None:
    told.turn()
    told.end(command)
    assert len(told.events) == 1


async def test_a_failure_of_anything_is_an_event(told: Told) -> None:
    told.end(RenewLease(3, OVER), sentence="it does not answer", error=CoordinationError("x"))
    assert told.events == [(EventKind.COMMAND_FAILED, None, "RenewLease: it does not answer")]
    assert told.last().group is None, "before the first turn nothing is known of the group"


# ---------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "done"), (ActionError("x"), "failed"), (ActionTimeout("x"), "timed_out"), (ActionTooLate("x"), "too_late")],
)
async def test_how_commands_ended_is_counted(told: Told, error: Exception | None, outcome: str) -> None:
    told.turn()
    told.end(StartService(3), error=error)
    assert told.metric(f'quorate_action_duration_seconds_count{{action="start_service",outcome="{outcome}"}}') == 1


async def test_renewals_fences_and_failovers_are_counted(told: Told) -> None:
    order = takes()
    told.turn(OVER, order)
    for command in (RenewLease(3, OVER), FenceService(3, "x"), order):
        told.end(command)
    told.end(promotes(), error=ActionError("no"))
    told.leads(promotes())
    assert told.metric('quorate_lease_renewal_seconds_sum{group="pg-main"}') == 0.25
    assert told.metric('quorate_fences_total{group="pg-main",layer="watchdog"}') == 1
    for outcome in ("failed", "done"):
        assert told.metric(f'quorate_failovers_total{{group="pg-main",outcome="{outcome}",reason="expired"}}') == 1
    assert told.metric('quorate_failover_duration_seconds_count{group="pg-main"}') == 1
    await told.history()


async def test_before_the_first_turn_nothing_is_counted_for_a_group(told: Told) -> None:
    told.end(FenceService(3, "x"))
    told.end(takes())
    told.end(promotes())
    assert await told.history() == ()


# ---------------------------------------------------------------------------------------------------- history


async def test_an_epoch_is_written_by_who_leads_when_it_takes_writes(told: Told) -> None:
    order = takes()
    told.turn(OVER, order)
    told.end(order)
    assert await told.history() == ()
    told.clock.instant = at(102)
    told.turn(order.record)
    told.leads(promotes())
    (entry,) = await told.history()
    assert (entry.epoch, entry.leader, entry.previous_leader, entry.reason) == (4, "pg2", "pg1", HistoryReason.EXPIRED)
    assert entry.ended_wall_s == WALL_S
    assert entry.duration_s == pytest.approx(2.3) == WALL_S - entry.started_wall_s
    assert (entry.sentence, entry.timeline, entry.lost_bytes) == ("they vote", 2, None)


async def test_a_turn_between_the_takeover_and_its_end_does_not_hide_who_led_before(told: Told) -> None:
    """The new record is often read before the takeover's executor has saved and handed over."""
    order = takes()
    told.turn(OVER, order)
    told.clock.instant = at(101)
    told.turn(order.record)
    told.end(order)
    told.leads(promotes())
    (entry,) = await told.history()
    assert (entry.previous_leader, entry.reason) == ("pg1", HistoryReason.EXPIRED)
    assert entry.duration_s == pytest.approx(1.3)


VACATED = replace(OVER, state=LeaseState.VACATED)


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        (OVER, HistoryReason.EXPIRED),
        (VACATED, HistoryReason.CRASHED),
        (replace(VACATED, heir="pg2"), HistoryReason.SWITCHOVER),
        (replace(VACATED, debt=Debt(2, "pg3", 5.0)), HistoryReason.EXPIRED),
        (replace(OVER, holder="pg2"), HistoryReason.RESUMED),
    ],
)
async def test_why_an_epoch_began(told: Told, over: LeaseRecord, reason: HistoryReason) -> None:
    order = takes(over)
    told.turn(over, order)
    told.end(order)
    told.leads(promotes())
    (entry,) = await told.history()
    assert (entry.reason, entry.previous_leader) == (reason, over.holder)


async def test_the_first_epoch_was_formed(told: Told) -> None:
    order = FormGroup(0, replace(OVER, holder="pg2", epoch=1, cause="the group was formed"), (CountedVote("pg2", 1),))
    told.turn(None, order)
    told.end(order)
    told.leads(promotes(epoch=1))
    (entry,) = await told.history()
    assert (entry.epoch, entry.previous_leader, entry.reason, entry.duration_s) == (1, None, HistoryReason.FORMED, 0)


async def test_a_key_that_was_made_anew_is_no_new_epoch(told: Told) -> None:
    order = FormGroup(4, replace(OVER, holder="pg2", epoch=4), ())
    told.turn(None, order)
    told.end(order)
    told.leads(promotes())
    assert await told.history() == ()


async def test_a_promotion_in_the_same_epoch_is_no_new_one(told: Told) -> None:
    order = takes()
    told.turn(OVER, order)
    told.end(order)
    told.leads(promotes())
    told.leads(promotes())
    assert len(await told.history()) == 1


async def test_with_synchronous_standbys_nothing_was_lost(told: Told) -> None:
    order = takes()
    told.turn(OVER, order)
    told.end(order)
    told.leads(promotes(names=("pg3",)))
    (entry,) = await told.history()
    assert entry.lost_bytes == 0


async def test_a_promotion_that_fails_may_succeed_the_next_time(told: Told) -> None:
    order = takes()
    told.turn(OVER, order)
    told.end(order)
    told.end(promotes(), error=ActionError("pg_ctl says no"))
    assert await told.history() == ()
    told.leads(promotes())
    assert len(await told.history()) == 1


async def test_a_history_that_cannot_be_written_is_told(told: Told) -> None:
    told.stage.wires.away = CoordinationError("nobody is there")
    order = takes()
    told.turn(OVER, order)
    told.end(order)
    told.leads(promotes())
    await eventually_async(lambda: not told.chronicle._writing, 5)
    assert (EventKind.COMMAND_FAILED, 4, "history of epoch 4 was not written: nobody is there") in told.events


async def test_the_history_waits_until_the_service_is_seen_to_take_writes(told: Told) -> None:
    order = takes()
    told.turn(OVER, order)
    told.end(order)
    told.end(promotes())
    told.clock.instant = at(105)
    assert await told.history() == ()
    told.turn(order.record)
    (entry,) = await told.history()
    assert entry.timeline == 2
    assert entry.duration_s == pytest.approx(0.3), "the time ends with the promotion, not with the look at it"


async def test_what_follows_the_leader_is_told_whoever_changed_it(told: Told) -> None:
    def turn(route: RouteView) -> None:
        view = replace(told.view(OVER), routes=(route,))
        told.chronicle.decided(view, decide(Memory(), view, told.clock.now()), told.clock.now())

    for _ in range(2):
        turn(RouteView("vip 192.0.2.100", present=True))
    turn(RouteView("vip 192.0.2.100", present=False, rival="x", sentence="it answers elsewhere"))
    said = [sentence for kind, _, sentence in told.events if kind is EventKind.ROUTE_CHANGED]
    assert said == ["vip 192.0.2.100: unknown -> present", "vip 192.0.2.100: present -> conflict: it answers elsewhere"]
