from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.coordination import lease
from agent.coordination.coordinator import Committed, Entry, Operation, Transaction, Verb
from agent.coordination.lease import (
    MAX_ATTEMPTS,
    Attempt,
    CountedVote,
    LeaseRecord,
    LeaseState,
    decode_record,
    encode_record,
    formation_key,
    lease_key,
    member_key,
    takeover,
    vote_key,
    with_attempt,
)
from agent.coordination.node_state import Mark, TakeoverIntent
from agent.coordination.values import MemberValue, VoteValue, WordValue, encode
from agent.decision.command import FormGroup, RenewLease, TakeLease, VacateLease
from agent.decision.view import ServiceState
from agent.errors import CoordinationError, CoordinationRefused
from agent.execution import lease_writer
from tests.unit.agent.stage import NODE, SPEC, TIMEOUT_S, Stage, first_record, staged

KEY = lease_key(SPEC.name)


async def put(stage: Stage, key: str, value: bytes) -> int:
    outcome = await stage.wires.real.transact((Operation(Verb.SET, key, value=value),), TIMEOUT_S)
    assert isinstance(outcome, Committed)
    return outcome.index


async def form(stage: Stage) -> LeaseRecord:
    """This node holds epoch 1."""
    index = await put(stage, formation_key(SPEC.name, NODE), encode(WordValue("life-1", None, None)))
    await lease_writer.form_group(stage.hands, FormGroup(0, first_record(), (CountedVote(NODE, index),)))
    assert stage.knowledge.tenure is not None
    return stage.knowledge.tenure.record


def next_record(stage: Stage, **changes: object) -> LeaseRecord:
    tenure = stage.knowledge.tenure
    assert tenure is not None
    return replace(tenure.record, sequence=tenure.last_sequence + 1, **changes)  # type: ignore[arg-type]


def renewal(stage: Stage, **changes: object) -> RenewLease:
    return RenewLease(1, next_record(stage, **changes))


def vacating(stage: Stage) -> VacateLease:
    return VacateLease(1, next_record(stage, state=LeaseState.VACATED, cause="it crashed"))


async def lease_entry(stage: Stage) -> Entry:
    return (await stage.wires.real.read(KEY, TIMEOUT_S)).entries[KEY]


async def held_by_pg2(stage: Stage, state: LeaseState = LeaseState.HELD) -> Entry:
    """The other member's lease, as its own agent wrote it."""
    session = await stage.wires.real.open_session("pg2")
    record = first_record(holder="pg2", incarnation="life-2", nonce="theirs", state=state)
    lock = Operation(Verb.LOCK, KEY, session=session, value=encode_record(record))
    assert isinstance(await stage.wires.real.transact((lock,), TIMEOUT_S), Committed)
    return await lease_entry(stage)


def on_send(stage: Stage, look: Callable[[], None]) -> list[Transaction]:
    """Look at the node at the moment when a transaction leaves."""
    seen: list[Transaction] = []

    async def before(transaction: Transaction) -> None:
        look()
        seen.append(transaction)

    stage.wires.before_transact = before
    return seen


# ---------------------------------------------------------------------------------------------------- formation


async def test_the_first_record_makes_this_node_the_holder(stage: Stage) -> None:
    record = await form(stage)
    tenure, entry = stage.knowledge.tenure, await lease_entry(stage)
    assert tenure is not None
    assert (decode_record(entry.value), entry.session, entry.index) == (record, stage.knowledge.session, tenure.index)
    assert tenure.began is not None
    assert (tenure.attempts, record.nonce != "") == ((), True)
    assert stage.knowledge.committed_index == tenure.index
    assert (stage.knowledge.high.epoch, stage.knowledge.high.sequence) == (1, 1)
    assert stage.folder.load(SPEC.name).highest == Mark(1, 1)
    assert stage.watchdog.handed == [(1, tenure.deadline, record.nonce)]


async def test_a_word_that_changed_meanwhile_stops_the_formation(stage: Stage) -> None:
    index = await put(stage, formation_key(SPEC.name, "pg2"), encode(WordValue("x", None, None)))
    await put(stage, formation_key(SPEC.name, "pg2"), encode(WordValue("y", None, None)))
    with pytest.raises(CoordinationRefused, match=r"^refused at operation 1: "):
        await lease_writer.form_group(stage.hands, FormGroup(0, first_record(), (CountedVote("pg2", index),)))
    assert (stage.knowledge.tenure, await stage.stored(KEY)) == (None, None)


async def test_a_lost_key_is_made_anew_under_the_live_deadline(stage: Stage) -> None:
    await form(stage)
    entry = await lease_entry(stage)
    await stage.wires.real.transact((Operation(Verb.DELETE_CAS, KEY, index=entry.index),), TIMEOUT_S)
    said = await lease_writer.form_group(stage.hands, FormGroup(1, next_record(stage), ()))
    assert said == "the lost key was made anew"
    assert stage.knowledge.tenure is not None
    assert decode_record((await lease_entry(stage)).value).sequence == 2 == stage.knowledge.tenure.record.sequence


async def test_a_lost_key_is_made_anew_by_nobody_who_is_not_its_holder(stage: Stage) -> None:
    with pytest.raises(CoordinationRefused, match="this node's no more"):
        await lease_writer.form_group(stage.hands, FormGroup(1, first_record(sequence=7), ()))
    assert await stage.stored(KEY) is None


async def test_a_lost_key_is_not_made_anew_after_the_deadline(stage: Stage) -> None:
    await form(stage)
    entry = await lease_entry(stage)
    await stage.wires.real.transact((Operation(Verb.DELETE_CAS, KEY, index=entry.index),), TIMEOUT_S)
    stage.clock.shift_s += SPEC.terms.ttl_s
    with pytest.raises(CoordinationRefused, match="ran out"):
        await lease_writer.form_group(stage.hands, FormGroup(1, next_record(stage), ()))
    assert await stage.stored(KEY) is None


# ---------------------------------------------------------------------------------------------------- renewal


async def test_a_renewal_is_remembered_before_it_leaves_and_dated_by_its_sending(stage: Stage) -> None:
    await form(stage)
    remembered: list[tuple[Attempt, ...]] = []

    def look() -> None:
        assert stage.knowledge.tenure is not None
        remembered.append(stage.knowledge.tenure.attempts)
        stage.clock.shift_s += 1.0  # the answer takes its time

    on_send(stage, look)
    before = stage.clock.now()
    assert await lease_writer.renew_lease(stage.hands, renewal(stage)) == "renewed to sequence 2"
    (attempts,) = remembered
    tenure = stage.knowledge.tenure
    assert tenure is not None
    assert [a.record.sequence for a in attempts] == [2]
    assert (tenure.dated, tenure.record.nonce, tenure.attempts) == (attempts[0].sent, attempts[0].record.nonce, ())
    assert before.boot_ns <= attempts[0].sent.boot_ns <= stage.clock.now().after(-1.0).boot_ns
    assert stage.watchdog.handed[-1] == (1, attempts[0].sent.after(SPEC.terms.ttl_s), tenure.record.nonce)
    assert (stage.knowledge.high.sequence, stage.knowledge.committed_index) == (2, tenure.index)


async def test_every_attempt_has_a_name_of_its_own(stage: Stage) -> None:
    await form(stage)
    names = []
    for _ in range(3):
        await lease_writer.renew_lease(stage.hands, renewal(stage, nonce="n"))
        names.append(decode_record((await lease_entry(stage)).value).nonce)
    assert len({*names, "n"}) == 4


async def test_a_refused_renewal_is_forgotten_and_read_back(stage: Stage) -> None:
    await form(stage)
    before = stage.knowledge.tenure
    await put(stage, KEY, encode_record(replace(first_record(), nonce="somebody")))
    with pytest.raises(CoordinationRefused, match=r"^refused at operation 1: .* has index "):
        await lease_writer.renew_lease(stage.hands, renewal(stage))
    assert before is not None
    assert stage.knowledge.tenure is None, "the reading after it shows a record that this node never wrote"


async def test_a_refusal_leaves_the_confirmed_lease_as_it_is(stage: Stage) -> None:
    await form(stage)
    before = stage.knowledge.tenure
    stage.knowledge.session = await stage.wires.open_session("another one")
    with pytest.raises(CoordinationRefused, match="not locked by this session"):
        await lease_writer.renew_lease(stage.hands, renewal(stage))
    assert stage.knowledge.tenure == before


async def test_a_lost_answer_stays_undecided_until_the_next_reading_dates_it(stage: Stage) -> None:
    await form(stage)
    first = stage.knowledge.tenure
    assert first is not None
    stage.wires.lose = CoordinationError("the answer was lost")
    sent_after = stage.clock.now()
    with pytest.raises(CoordinationError, match="lost"):
        await lease_writer.renew_lease(stage.hands, renewal(stage))
    undecided = stage.knowledge.tenure
    assert undecided is not None
    assert [a.record.sequence for a in undecided.attempts] == [2]
    assert (undecided.dated, undecided.index) == (first.dated, first.index)
    stage.clock.shift_s += 0.5
    await stage.read()
    settled = stage.knowledge.tenure
    assert settled is not None
    assert (settled.dated, settled.attempts, settled.record.sequence) == (undecided.attempts[0].sent, (), 2)
    assert sent_after.boot_ns <= undecided.attempts[0].sent.boot_ns < stage.clock.now().after(-0.5).boot_ns


async def test_an_attempt_that_never_arrived_stays_undecided_after_a_reading(stage: Stage) -> None:
    await form(stage)
    stage.wires.away = CoordinationError("nobody is there")
    with pytest.raises(CoordinationError):
        await lease_writer.renew_lease(stage.hands, renewal(stage))
    stage.wires.away = None
    await stage.read()
    assert stage.knowledge.tenure is not None
    assert [a.record.sequence for a in stage.knowledge.tenure.attempts] == [2]


async def full_of_attempts(stage: Stage, **changes: object) -> Attempt:
    """After a minute without a coordinator: as many attempts are undecided as a tenure remembers; the newest."""
    await form(stage)
    for number in range(MAX_ATTEMPTS):
        assert stage.knowledge.tenure is not None
        record = next_record(stage, nonce=f"n{number}", **changes)
        stage.knowledge.tenure = with_attempt(stage.knowledge.tenure, Attempt(record, stage.clock.now()))
    return stage.knowledge.tenure.attempts[-1]


async def test_when_too_much_is_undecided_the_newest_is_sent_once_more(stage: Stage) -> None:
    """Else a minute without a coordinator would be the end: it comes back, none of the attempts has committed, and nothing more is sent."""
    newest = await full_of_attempts(stage)
    stage.clock.shift_s += 1.0
    await lease_writer.renew_lease(stage.hands, renewal(stage))
    tenure = stage.knowledge.tenure
    assert tenure is not None
    assert (tenure.record.nonce, tenure.dated, tenure.attempts) == (newest.record.nonce, newest.sent, ())


async def test_one_that_is_refused_because_it_was_done_before_is_not_forgotten(stage: Stage) -> None:
    """Its answer was lost; sent once more it is refused, for the index has moved: by itself."""
    newest = await full_of_attempts(stage)
    tenure = stage.knowledge.tenure
    assert tenure is not None
    assert stage.knowledge.session is not None
    done = await stage.wires.real.transact(lease.renewal(newest.record, stage.knowledge.session, tenure.index), TIMEOUT_S)
    assert isinstance(done, Committed)
    with pytest.raises(CoordinationRefused):
        await lease_writer.renew_lease(stage.hands, renewal(stage))
    assert stage.knowledge.tenure is not None, "the lease is still its own"
    assert (stage.knowledge.tenure.record.nonce, stage.knowledge.tenure.index) == (newest.record.nonce, done.index)


async def test_a_give_up_is_not_sent_once_more_as_a_renewal(stage: Stage) -> None:
    await full_of_attempts(stage, state=LeaseState.VACATED)
    sent = on_send(stage, lambda: None)
    with pytest.raises(CoordinationRefused, match="undecided"):
        await lease_writer.renew_lease(stage.hands, renewal(stage))
    assert sent == []


async def test_a_lease_that_went_away_since_the_decision_is_not_renewed(stage: Stage) -> None:
    await form(stage)
    order = renewal(stage)
    sent = on_send(stage, lambda: None)
    with pytest.raises(CoordinationRefused, match="epoch 2 is this node's no more"):
        await lease_writer.renew_lease(stage.hands, replace(order, epoch=2))
    stage.knowledge.tenure = None
    with pytest.raises(CoordinationRefused, match="epoch 1 is this node's no more"):
        await lease_writer.renew_lease(stage.hands, order)
    assert sent == []


async def test_without_a_session_nothing_is_sent(stage: Stage) -> None:
    await form(stage)
    sent = on_send(stage, lambda: None)
    stage.knowledge.session = None
    with pytest.raises(CoordinationRefused, match="no session"):
        await lease_writer.renew_lease(stage.hands, renewal(stage))
    assert sent == []


async def test_under_a_new_session_it_renews_over_the_very_record_it_wrote(stage: Stage) -> None:
    await form(stage)
    assert stage.knowledge.session is not None
    await stage.wires.close_session(stage.knowledge.session)
    stage.knowledge.session = await stage.wires.open_session("the next one")
    await stage.read()
    entry = await lease_entry(stage)
    assert entry.session is None
    await lease_writer.renew_lease(stage.hands, replace(renewal(stage), relock_over=entry))
    after = await lease_entry(stage)
    assert (after.session, decode_record(after.value).sequence) == (stage.knowledge.session, 2)


async def test_an_entry_that_is_not_the_last_own_write_is_not_locked_over(stage: Stage) -> None:
    await form(stage)
    stale = replace(await lease_entry(stage), session=None)
    await lease_writer.renew_lease(stage.hands, renewal(stage))
    await lease_writer.renew_lease(stage.hands, replace(renewal(stage), relock_over=stale))
    assert [operation.verb for operation in stage.wires.sent[-1]] == [Verb.CHECK_SESSION, Verb.CAS]


async def test_an_answer_that_comes_after_the_next_epoch_brings_nothing_back(stage: Stage) -> None:
    """The agent stood still between its renewal and the answer; the reading that came first has shown another holder."""
    await form(stage)

    async def meanwhile() -> None:
        stage.wires.after_transact = None
        entry = await lease_entry(stage)
        session = await stage.wires.open_session("pg2")
        theirs = first_record(holder="pg2", epoch=2, nonce="theirs")
        outcome = await stage.wires.real.transact(takeover(theirs, session, entry, ()), TIMEOUT_S)
        assert isinstance(outcome, Committed)
        await stage.read()

    stage.wires.after_transact = meanwhile
    with pytest.raises(CoordinationRefused, match="came late"):
        await lease_writer.renew_lease(stage.hands, renewal(stage))
    assert stage.knowledge.tenure is None
    assert (stage.knowledge.high.epoch, stage.folder.load(SPEC.name).highest.epoch) == (2, 1)
    assert len(stage.watchdog.handed) == 1, "nothing was handed over for the old epoch"


# ---------------------------------------------------------------------------------------------------- giving up


async def test_giving_up_ends_the_tenure_and_outdates_older_readings(stage: Stage) -> None:
    await form(stage)
    old = await stage.wires.read(f"{SPEC.name}/", TIMEOUT_S)
    assert await lease_writer.vacate_lease(stage.hands, vacating(stage)) == "epoch 1 was given up: it crashed"
    entry = await lease_entry(stage)
    assert (stage.knowledge.tenure, entry.session) == (None, None)
    assert decode_record(entry.value).is_vacant
    assert stage.knowledge.committed_index == entry.index
    assert not stage.knowledge.take_snapshot(old, old.index, stage.clock.now())


async def test_a_give_up_whose_answer_is_lost_may_have_happened(stage: Stage) -> None:
    await form(stage)
    stage.wires.lose = CoordinationError("the answer was lost")
    with pytest.raises(CoordinationError):
        await lease_writer.vacate_lease(stage.hands, vacating(stage))
    assert stage.knowledge.tenure is not None
    assert stage.knowledge.tenure.vacating
    await stage.read()
    assert stage.knowledge.tenure is None


async def test_a_refused_give_up_did_not_happen(stage: Stage) -> None:
    await form(stage)
    stage.knowledge.session = await stage.wires.open_session("another one")
    with pytest.raises(CoordinationRefused):
        await lease_writer.vacate_lease(stage.hands, vacating(stage))
    assert stage.knowledge.tenure is not None
    assert not stage.knowledge.tenure.vacating
    assert (await lease_entry(stage)).session is not None


# ---------------------------------------------------------------------------------------------------- taking over


async def test_a_takeover_is_on_the_disk_before_it_is_sent(stage: Stage) -> None:
    entry = await held_by_pg2(stage)
    vote = await put(stage, vote_key(SPEC.name, NODE), encode(VoteValue(1, down=True)))
    intents: list[TakeoverIntent | None] = []
    on_send(stage, lambda: intents.append(stage.folder.load(SPEC.name).takeover))
    order = TakeLease(1, first_record(epoch=2, cause="they vote"), entry, (CountedVote(NODE, vote),))
    assert await lease_writer.take_lease(stage.hands, order) == "elected for epoch 2: they vote"
    assert intents == [TakeoverIntent(2, entry.index)]
    tenure = stage.knowledge.tenure
    assert tenure is not None
    assert (tenure.epoch, stage.knowledge.undecided_takeover_index) == (2, None)
    assert stage.watchdog.handed == [(2, tenure.deadline, tenure.record.nonce)]
    assert stage.folder.load(SPEC.name).highest == Mark(2, 1)


async def test_a_takeover_is_dated_by_its_sending(stage: Stage) -> None:
    entry = await held_by_pg2(stage, LeaseState.VACATED)

    def slow() -> None:
        stage.clock.shift_s += 1.5

    on_send(stage, slow)
    await lease_writer.take_lease(stage.hands, TakeLease(1, first_record(epoch=2), entry, ()))
    tenure = stage.knowledge.tenure
    assert tenure is not None
    assert tenure.dated is not None
    assert tenure.began is not None
    assert 1.5 <= (tenure.began.boot_ns - tenure.dated.boot_ns) / 1e9 < 1.5 + TIMEOUT_S


async def test_a_withdrawn_vote_stops_a_takeover(stage: Stage) -> None:
    entry = await held_by_pg2(stage)
    vote = await put(stage, vote_key(SPEC.name, "edge1"), encode(VoteValue(1, down=True)))
    await put(stage, vote_key(SPEC.name, "edge1"), encode(VoteValue(1, down=False)))
    with pytest.raises(CoordinationRefused, match="operation 0"):
        await lease_writer.take_lease(stage.hands, TakeLease(1, first_record(epoch=2), entry, (CountedVote("edge1", vote),)))
    assert (stage.knowledge.tenure, stage.knowledge.undecided_takeover_index) == (None, None)
    assert (await lease_entry(stage)) == entry


async def test_a_takeover_whose_answer_is_lost_is_undecided_until_its_index_is_gone(stage: Stage) -> None:
    entry = await held_by_pg2(stage, LeaseState.VACATED)
    stage.wires.away = CoordinationError("nobody is there")
    with pytest.raises(CoordinationError):
        await lease_writer.take_lease(stage.hands, TakeLease(1, first_record(epoch=2), entry, ()))
    assert (stage.knowledge.tenure, stage.knowledge.undecided_takeover_index) == (None, entry.index)
    stage.wires.away = None
    await stage.read()
    assert stage.knowledge.undecided_takeover_index == entry.index, "it may still be on its way"
    await put(stage, KEY, encode_record(first_record(holder="pg2", sequence=2)))
    await stage.read()
    assert stage.knowledge.undecided_takeover_index is None


# ---------------------------------------------------------------------------------------------------- the watchdog


async def test_the_acknowledged_deadline_is_believed(stage: Stage) -> None:
    stage.watchdog.shorter_s = 0.5
    await form(stage)
    tenure = stage.knowledge.tenure
    assert tenure is not None
    assert tenure.deadline is not None
    assert stage.hands.owned_deadline == tenure.deadline.after(-0.5) == stage.knowledge.fences.armed_deadline
    assert stage.knowledge.fences.armed_epoch == 1


async def test_without_an_acknowledgement_the_deadline_of_before_stays_in_force(stage: Stage) -> None:
    await form(stage)
    before = stage.hands.owned_deadline
    stage.watchdog.error = "it is busy"
    await lease_writer.renew_lease(stage.hands, renewal(stage))
    fences = stage.knowledge.fences
    assert (stage.hands.owned_deadline, fences.refused, fences.armed_deadline) == (before, "it is busy", before)
    stage.watchdog.error = ""
    await lease_writer.renew_lease(stage.hands, renewal(stage))
    assert stage.knowledge.fences.refused == ""
    assert stage.hands.owned_deadline != before


async def test_a_dead_watchdog_is_seen_in_its_refusal(stage: Stage) -> None:
    stage.watchdog.error, stage.watchdog.alive = "there is no connection", False
    await form(stage)
    assert not stage.knowledge.fences.watchdog_alive
    assert stage.hands.owned_deadline is None


async def test_where_no_watchdog_has_to_stand_none_is_asked() -> None:
    async with staged(fenced=False) as stage:
        await form(stage)
        assert stage.watchdog.calls == []
        assert stage.knowledge.tenure is not None
        assert stage.hands.owned_deadline == stage.knowledge.tenure.deadline


async def test_a_pause_disarms_only_when_everybody_alive_has_seen_it(stage: Stage) -> None:
    await form(stage)
    blind = MemberValue(1, "life-2", ServiceState.STANDBY)
    await stage.read()
    await put(stage, member_key(SPEC.name, "pg2"), encode(blind))
    await lease_writer.renew_lease(stage.hands, renewal(stage, paused=True))
    await stage.read()
    await lease_writer.hand_over(stage.hands)
    assert "suspend pg-main 1" not in stage.watchdog.calls
    await put(stage, member_key(SPEC.name, "pg2"), encode(replace(blind, beat=2, paused_epoch=1)))
    await stage.read()
    assert lease_writer.may_disarm(stage.hands)
    await lease_writer.hand_over(stage.hands)
    assert stage.watchdog.calls[-1] == "suspend pg-main 1"
    assert stage.knowledge.fences.suspended


async def test_what_is_left_of_the_lease(stage: Stage) -> None:
    assert lease_writer.time_left_s(stage.hands) is None
    await form(stage)
    left_s = lease_writer.time_left_s(stage.hands)
    assert left_s is not None
    assert SPEC.terms.ttl_s - 1 < left_s <= SPEC.terms.ttl_s
    stage.clock.shift_s += SPEC.terms.ttl_s
    assert lease_writer.time_left_s(stage.hands) == 0


async def test_a_write_that_takes_too_long_is_given_up(stage: Stage) -> None:
    stage.knowledge.group = replace(SPEC, renew_s=0.3)
    assert lease_writer._timeout_s(stage.hands) == pytest.approx(0.6)
    stage.knowledge.group = replace(SPEC, renew_s=3.0)
    assert lease_writer._timeout_s(stage.hands) == SPEC.terms.ttl_s / 2
    stage.knowledge.group = replace(SPEC, renew_s=0.01)
    assert lease_writer._timeout_s(stage.hands) == lease_writer.SHORTEST_TIMEOUT_S
