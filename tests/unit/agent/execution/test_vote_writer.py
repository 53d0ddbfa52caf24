from __future__ import annotations

from dataclasses import replace

import pytest

from agent.coordination.coordinator import Committed, Operation, Transaction, Verb
from agent.coordination.intents import StoredIntent, decode_stored, encode_intent
from agent.coordination.lease import LeaseRecord, Position, encode_record, formation_key, intent_key, lease_key, vote_key
from agent.coordination.node_state import SentVote
from agent.coordination.values import VoteValue, WordValue, decode, encode
from agent.decision.command import CastVote, FinishIntent, GiveWord, IntentOutcome
from agent.decision.view import Branch, IntentKind, ServiceState, ServiceView
from agent.errors import CoordinationError, CoordinationRefused
from agent.execution import vote_writer
from tests.unit.agent.stage import NODE, SPEC, TIMEOUT_S, Stage, first_record

VOTE = vote_key(SPEC.name, NODE)
DOWN = CastVote(1, down=True, over_index=0, evidence="no answer")
INTENT = StoredIntent(IntentKind.PAUSE, None, 1, "ann", "work", 0.0)


async def put(stage: Stage, key: str, value: bytes) -> int:
    outcome = await stage.wires.real.transact((Operation(Verb.SET, key, value=value),), TIMEOUT_S)
    assert isinstance(outcome, Committed)
    return outcome.index


async def led_by_pg2(stage: Stage, **changes: object) -> LeaseRecord:
    record = first_record(holder="pg2", **changes)
    await put(stage, lease_key(SPEC.name), encode_record(record))
    return record


async def stored_vote(stage: Stage) -> VoteValue | None:
    value = await stage.stored(VOTE)
    return None if value is None else decode(VoteValue, value)


# ---------------------------------------------------------------------------------------------------- votes


async def test_a_vote_is_on_the_disk_before_it_is_sent(stage: Stage) -> None:
    await led_by_pg2(stage)
    await stage.read()
    noted: list[SentVote | None] = []

    async def before(_: Transaction) -> None:
        noted.append(stage.folder.load(SPEC.name).vote)

    stage.wires.before_transact = before
    assert await vote_writer.cast_vote(stage.hands, DOWN) == "voted down in epoch 1: no answer"
    assert noted == [SentVote(1, down=True, over_index=0)]
    assert await stored_vote(stage) == VoteValue(1, down=True, evidence="no answer")
    settled = SentVote(1, down=True, over_index=0, settled=True)
    assert (stage.knowledge.own_vote, stage.hands.remembered.state.vote) == (settled, settled)


@pytest.mark.parametrize("moved", [{"sequence": 2}, {"epoch": 2}])
async def test_down_is_not_said_of_a_lease_that_has_moved(stage: Stage, moved: dict[str, object]) -> None:
    await led_by_pg2(stage)
    await stage.read()
    await led_by_pg2(stage, **moved)
    with pytest.raises(CoordinationRefused, match="has moved since the vote was decided"):
        await vote_writer.cast_vote(stage.hands, DOWN)
    assert await stored_vote(stage) is None
    assert stage.folder.load(SPEC.name).vote is None


@pytest.mark.parametrize("value", [b"{}", None])
async def test_down_is_not_said_of_a_lease_that_nobody_can_read(stage: Stage, value: bytes | None) -> None:
    await led_by_pg2(stage)
    await stage.read()
    entry = (await stage.wires.read(lease_key(SPEC.name), TIMEOUT_S)).entries[lease_key(SPEC.name)]
    if value is None:
        await stage.wires.transact((Operation(Verb.DELETE_CAS, lease_key(SPEC.name), index=entry.index),), TIMEOUT_S)
    else:
        await put(stage, lease_key(SPEC.name), value)
    with pytest.raises(CoordinationRefused, match="has moved"):
        await vote_writer.cast_vote(stage.hands, DOWN)


async def test_down_is_not_said_of_another_epoch_than_was_decided(stage: Stage) -> None:
    await led_by_pg2(stage, epoch=2)
    await stage.read()
    with pytest.raises(CoordinationRefused, match="has moved"):
        await vote_writer.cast_vote(stage.hands, DOWN)


async def test_before_the_first_reading_nobody_is_called_down(stage: Stage) -> None:
    await led_by_pg2(stage)
    with pytest.raises(CoordinationRefused, match="has moved"):
        await vote_writer.cast_vote(stage.hands, DOWN)


async def test_a_withdrawal_needs_no_fresh_look(stage: Stage) -> None:
    stage.wires.after_read = None
    index = await put(stage, VOTE, encode(VoteValue(1, down=True)))
    order = CastVote(1, down=False, over_index=index, evidence="it answers")
    assert await vote_writer.cast_vote(stage.hands, order) == "voted up in epoch 1: it answers"
    assert await stored_vote(stage) == VoteValue(1, down=False, evidence="it answers")


async def test_a_vote_over_an_older_index_is_refused_and_read_back(stage: Stage) -> None:
    await led_by_pg2(stage)
    await stage.read()
    index = await put(stage, VOTE, encode(VoteValue(1, down=False)))
    with pytest.raises(CoordinationRefused, match=r"^refused at operation 0: "):
        await vote_writer.cast_vote(stage.hands, DOWN)
    assert await stored_vote(stage) == VoteValue(1, down=False)
    assert stage.knowledge.reading is not None
    assert stage.knowledge.reading.votes[NODE].index == index
    assert stage.hands.remembered.state.lost, "a refused vote makes nothing good"


async def test_a_vote_whose_answer_is_lost_is_unknown(stage: Stage) -> None:
    await led_by_pg2(stage)
    await stage.read()
    stage.wires.lose = CoordinationError("the answer was lost")
    with pytest.raises(CoordinationError, match="lost"):
        await vote_writer.cast_vote(stage.hands, DOWN)
    assert stage.hands.remembered.state.lost
    assert stage.folder.load(SPEC.name).vote == SentVote(1, down=True, over_index=0)


# ---------------------------------------------------------------------------------------------------- words


async def test_a_word_tells_what_a_founder_is_chosen_by(stage: Stage) -> None:
    stage.knowledge.service = ServiceView(ServiceState.STANDBY, position=Position(2, 9), system_identifier="7", history=(Branch(1, 5),))
    assert await vote_writer.give_word(stage.hands, GiveWord(0)) == "gave its word: not writable without a lease"
    value = await stage.stored(formation_key(SPEC.name, NODE))
    assert value is not None
    assert decode(WordValue, value) == WordValue("life-1", Position(2, 9), "7", (Branch(1, 5),))


@pytest.mark.parametrize("state", [ServiceState.PRIMARY, ServiceState.CRASHED, ServiceState.UNKNOWN])
async def test_no_word_is_given_for_a_service_that_may_take_writes_by_now(stage: Stage, state: ServiceState) -> None:
    stage.knowledge.service = ServiceView(state)
    with pytest.raises(CoordinationRefused, match="may take writes"):
        await vote_writer.give_word(stage.hands, GiveWord(0))
    assert await stage.stored(formation_key(SPEC.name, NODE)) is None


# ---------------------------------------------------------------------------------------------------- intents


async def finish(stage: Stage, index: int) -> str:
    return await vote_writer.finish_intent(stage.hands, FinishIntent(1, "i1", index, IntentOutcome.DONE, "paused"))


async def test_how_an_intent_ended_is_written_into_it(stage: Stage) -> None:
    index = await put(stage, intent_key(SPEC.name, "i1"), encode_intent(INTENT))
    assert await finish(stage, index) == "done: paused"
    value = await stage.stored(intent_key(SPEC.name, "i1"))
    assert value is not None
    assert decode_stored(value) == replace(INTENT, outcome=IntentOutcome.DONE, sentence="paused")


async def test_an_intent_that_somebody_else_finished_stays_as_it_is(stage: Stage) -> None:
    index = await put(stage, intent_key(SPEC.name, "i1"), encode_intent(INTENT))
    theirs = replace(INTENT, outcome=IntentOutcome.REFUSED, sentence="no")
    await put(stage, intent_key(SPEC.name, "i1"), encode_intent(theirs))
    with pytest.raises(CoordinationRefused, match="refused at operation 0"):
        await finish(stage, index)
    value = await stage.stored(intent_key(SPEC.name, "i1"))
    assert value is not None
    assert decode_stored(value) == theirs


@pytest.mark.parametrize("value", [None, b"junk"])
async def test_an_intent_that_is_gone_cannot_be_finished(stage: Stage, value: bytes | None) -> None:
    index = 1 if value is None else await put(stage, intent_key(SPEC.name, "i1"), value)
    with pytest.raises(CoordinationRefused, match="the intent is gone"):
        await finish(stage, index)
