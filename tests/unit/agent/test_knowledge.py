from __future__ import annotations

from dataclasses import replace

import pytest

from actions.base import ActionError
from agent.coordination.coordinator import Entry, Snapshot
from agent.coordination.lease import Attempt, LeaseRecord, LeaseState, Position, Tenure, encode_record, lease_key, member_key
from agent.coordination.values import MemberValue, encode
from agent.decision.command import FenceService, StartService
from agent.decision.view import Branch, FenceLayer, FenceView, InFlight, Replica, ServiceState, ServiceView
from agent.instant import Instant
from agent.knowledge import HighWater, Knowledge
from tests.unit.agent.stage import SPEC, first_record

NOW = Instant(100 * 10**9, 90 * 10**9)
KEY = lease_key(SPEC.name)


def knowing(**changes: object) -> Knowledge:
    plain = Knowledge("pg1", "life-1", SPEC, HighWater())
    return replace(plain, **changes)  # type: ignore[arg-type]


def snapshot(index: int, record: LeaseRecord | None = None, **members: MemberValue) -> Snapshot:
    entries = {member_key(SPEC.name, name): Entry(encode(value), 1) for name, value in members.items()}
    if record is not None:
        entries[KEY] = Entry(encode_record(record), index, "s1")
    return Snapshot(index, entries)


def take(knowledge: Knowledge, taken: Snapshot, floor: int = 0, now: Instant = NOW) -> bool:
    return knowledge.take_snapshot(taken, floor, now)


def own_tenure(**changes: object) -> Tenure:
    return Tenure(first_record(nonce="n1", **changes), 5, "s1", dated=NOW.after(-1), began=NOW.after(-9))


# ---------------------------------------------------------------------------------------------------- readings


def test_a_first_reading_shows_the_group() -> None:
    knowledge = knowing()
    assert take(knowledge, snapshot(7, first_record(holder="pg2")))
    view = knowledge.view(NOW)
    assert view.lease.record == first_record(holder="pg2")
    assert (view.lease.exists, view.coordination.answered, view.highest_epoch) == (True, NOW, 1)
    assert (knowledge.high.epoch, knowledge.high.sequence, knowledge.went_back) == (1, 1, False)


def test_a_reading_from_before_the_own_write_is_no_past_restored() -> None:
    knowledge = knowing(committed_index=9)
    assert not take(knowledge, snapshot(8), floor=8)
    assert (knowledge.reading, knowledge.went_back, knowledge.sightings.answered) == (None, False, None)
    assert take(knowledge, snapshot(9), floor=8)


def test_an_answer_below_what_was_written_before_the_question_is_the_past_restored() -> None:
    knowledge = knowing(committed_index=9)
    assert take(knowledge, snapshot(8, first_record()), floor=9)
    assert knowledge.went_back
    assert knowledge.view(NOW).coordination.went_back
    assert knowledge.view(NOW).coordination.lags
    assert take(knowledge, snapshot(10, first_record()), floor=9)
    assert not knowledge.went_back


@pytest.mark.parametrize(("epoch", "sequence", "went_back"), [(3, 9, True), (2, 99, True), (3, 10, False), (3, 11, False), (4, 1, False)])
def test_a_record_below_the_highest_ever_seen_is_the_past_restored(epoch: int, sequence: int, went_back: bool) -> None:
    knowledge = knowing(high=HighWater(3, 10))
    take(knowledge, snapshot(7, first_record(epoch=epoch, sequence=sequence)))
    assert knowledge.went_back is went_back
    highest = (3, 10) if went_back else (epoch, sequence)
    assert (knowledge.high.epoch, knowledge.high.sequence) == highest


def test_another_store_is_the_past_restored_whatever_it_says() -> None:
    knowledge = knowing(foreign_store=True)
    take(knowledge, snapshot(7, first_record(epoch=9)))
    assert knowledge.went_back
    assert knowledge.high.epoch == 0


def test_the_highest_only_rises() -> None:
    high = HighWater(3, 10)
    for epoch, sequence in ((3, 9), (2, 50)):
        high.rise(epoch, sequence)
    assert (high.epoch, high.sequence) == (3, 10)
    high.rise(4, 1)
    assert (high.epoch, high.sequence) == (4, 1)


# ---------------------------------------------------------------------------------------------------- the own lease


def test_the_own_attempt_is_dated_by_the_record_that_names_it() -> None:
    attempt = Attempt(first_record(nonce="n2", sequence=2), NOW.after(-0.2))
    knowledge = knowing(tenure=replace(own_tenure(), attempts=(attempt,)))
    take(knowledge, snapshot(8, attempt.record))
    assert knowledge.tenure is not None
    assert (knowledge.tenure.dated, knowledge.tenure.index, knowledge.tenure.attempts) == (attempt.sent, 8, ())


@pytest.mark.parametrize("taken", [first_record(holder="pg2", epoch=2), first_record(nonce="somebody's"), first_record(epoch=2)])
def test_a_record_of_anybody_else_ends_the_tenure(taken: LeaseRecord) -> None:
    knowledge = knowing(tenure=own_tenure())
    take(knowledge, snapshot(8, taken))
    assert knowledge.tenure is None


def test_the_own_give_up_ends_the_tenure() -> None:
    given_up = Attempt(first_record(nonce="n2", sequence=2, state=LeaseState.VACATED), NOW)
    knowledge = knowing(tenure=replace(own_tenure(), attempts=(given_up,)))
    take(knowledge, snapshot(8, given_up.record))
    assert knowledge.tenure is None


def test_a_missing_or_unreadable_key_decides_nothing() -> None:
    knowledge = knowing(tenure=own_tenure())
    take(knowledge, snapshot(8))
    take(knowledge, Snapshot(9, {KEY: Entry(b"{}", 9, "s1")}))
    assert knowledge.tenure == own_tenure()
    assert knowledge.view(NOW).lease.exists
    assert knowledge.view(NOW).lease.record is None


def test_what_went_back_decides_nothing() -> None:
    knowledge = knowing(tenure=own_tenure(), high=HighWater(1, 5), undecided_takeover_index=3)
    take(knowledge, snapshot(8, first_record(holder="pg2")))
    assert (knowledge.tenure, knowledge.undecided_takeover_index) == (own_tenure(), 3)


@pytest.mark.parametrize(("index", "left"), [(6, 7), (7, 7), (8, None)])
def test_a_takeover_is_undecided_while_what_it_was_built_upon_stands(index: int, left: int | None) -> None:
    knowledge = knowing(undecided_takeover_index=7)
    take(knowledge, snapshot(index, first_record(holder="pg2")))
    assert knowledge.view(NOW).undecided_takeover_index == left


def test_a_missing_key_leaves_a_takeover_undecided() -> None:
    knowledge = knowing(undecided_takeover_index=7)
    take(knowledge, snapshot(9))
    assert knowledge.undecided_takeover_index == 7


# ---------------------------------------------------------------------------------------------------- the service


def test_since_is_when_the_state_was_first_seen() -> None:
    knowledge = knowing()
    knowledge.take_service(ServiceView(ServiceState.STANDBY), NOW)
    knowledge.take_service(ServiceView(ServiceState.STANDBY, sentence="again"), NOW.after(1))
    assert (knowledge.service.since, knowledge.service.seen) == (NOW, NOW.after(1))
    knowledge.take_service(ServiceView(ServiceState.CRASHED), NOW.after(2))
    assert knowledge.service.since == NOW.after(2)


STANDBY = ServiceView(ServiceState.STANDBY, position=Position(1, 100), upstream="pg2")


@pytest.mark.parametrize(
    ("seen", "news"),
    [
        (STANDBY, False),
        (replace(STANDBY, sentence="other words"), False),
        (replace(STANDBY, position=Position(1, 200)), False),
        (replace(STANDBY, position=Position(2, 100)), True),
        (replace(STANDBY, position=None), True),
        (replace(STANDBY, upstream="pg3"), True),
        (replace(STANDBY, receiving=True), True),
        (replace(STANDBY, system_identifier="7"), True),
        (replace(STANDBY, history=(Branch(1, 90),)), True),
        (replace(STANDBY, state=ServiceState.DOWN), True),
    ],
)
def test_what_the_others_should_hear_of_at_once(seen: ServiceView, news: bool) -> None:
    knowledge = knowing()
    assert knowledge.take_service(STANDBY, NOW)
    assert knowledge.take_service(seen, NOW) is news


@pytest.mark.parametrize(
    ("seen", "final"),
    [(STANDBY, 3), (replace(STANDBY, receiving=True), None), (replace(STANDBY, state=ServiceState.DOWN), None)],
)
def test_a_final_position_stays_final_while_it_stands_by_and_receives_nothing(seen: ServiceView, final: int | None) -> None:
    knowledge = knowing(stopped_for_epoch=3, own_timelines=((1, 2),))
    knowledge.take_service(seen, NOW)
    assert knowledge.service.stopped_for_epoch == knowledge.view(NOW).members["pg1"].stopped_for_epoch == final
    assert knowledge.service.own_timelines == ((1, 2),)


def test_a_standby_of_this_primary_is_watched_for_signs_of_life() -> None:
    knowledge = knowing()
    silent = replace(
        STANDBY, state=ServiceState.PRIMARY, replicas=(Replica("pg2", streaming=True, flushed_lsn=0, is_sync=True, reply="1"),)
    )
    knowledge.take_service(replace(silent, replicas=()), NOW)
    for after_s in (1, 2, 3):
        knowledge.take_service(silent, NOW.after(after_s))
    assert [r.heard for r in knowledge.service.replicas] == [NOW.after(1)], "it connected, and then said nothing"


def test_failures_in_a_row_are_counted_by_kind() -> None:
    knowledge = knowing()
    start, fence = StartService(1), FenceService(1, "x")
    for moment, (command, ok) in enumerate([(start, False), (start, False), (fence, True), (start, False)]):
        knowledge.note_outcome(command, ok, NOW.after(moment), "words")
    outcomes = knowledge.view(NOW).outcomes
    assert (outcomes["StartService"].failures, outcomes["StartService"].ended) == (3, NOW.after(3))
    assert (outcomes["FenceService"].ok, outcomes["FenceService"].failures) == (True, 0)
    knowledge.note_outcome(start, ok=True, ended=NOW, sentence="")
    assert knowledge.outcomes["StartService"].failures == 0


# ---------------------------------------------------------------------------------------------------- what goes out


def test_the_heartbeat_says_what_this_node_is() -> None:
    knowledge = knowing(beat=4, fences=FenceView(frozenset({FenceLayer.WATCHDOG, FenceLayer.SEAL})))
    knowledge.take_service(replace(STANDBY, receiving=True), NOW)
    take(knowledge, snapshot(3, first_record(epoch=6, paused=True)))
    value = knowledge.member_value()
    assert (value.beat, value.incarnation, value.state, value.position) == (4, "life-1", ServiceState.STANDBY, Position(1, 100))
    assert (value.upstream, value.receiving, value.paused_epoch) == ("pg2", True, 6)
    assert value.standing == ("seal", "watchdog")
    take(knowledge, snapshot(4, first_record(epoch=6)))
    assert knowledge.member_value().paused_epoch is None


def test_a_view_is_frozen_and_shows_the_own_member_as_it_is() -> None:
    knowledge = knowing()
    old = MemberValue(1, "life-0", ServiceState.PRIMARY)
    take(knowledge, snapshot(3, pg1=old, pg2=old))
    knowledge.take_service(STANDBY, NOW)
    knowledge.in_flight[1] = InFlight(StartService(1), NOW)
    view = knowledge.view(NOW)
    assert (view.members["pg1"].state, view.members["pg1"].moved, view.members["pg1"].incarnation) == (ServiceState.STANDBY, NOW, "life-1")
    assert view.members["pg2"].state is ServiceState.PRIMARY
    knowledge.in_flight.clear()
    knowledge.note_outcome(StartService(1), ok=False, ended=NOW, sentence=str(ActionError("no")))
    assert (len(view.in_flight), view.outcomes) == (1, {})


def test_before_the_first_reading_nothing_is_known() -> None:
    view = knowing().view(NOW)
    assert (view.lease.exists, view.coordination.answered, view.votes, view.words, view.intents) == (False, None, {}, {}, ())
    assert list(view.members) == ["pg1"]
