"""The voter's desk, and above all: a vote and a promise, a takeover and a promise exclude each other in every interleaving."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from itertools import count

import pytest

from agent.coordination import node_state
from agent.coordination.coordinator import Committed, Operation, Verb
from agent.coordination.failsafe import PromiseDesk, forget_loss, recall
from agent.coordination.failsafe_rules import Answer, KeptPromise, Promise, Question, wait_s
from agent.coordination.lease import LeaseRecord, LeaseState, encode_record, lease_key, vote_key
from agent.coordination.node_state import GroupState, SentVote, TakeoverIntent
from agent.coordination.values import VoteValue, encode
from agent.decision.command import CastVote, TakeLease
from agent.disk import StorageError
from agent.errors import CoordinationError, CoordinationRefused
from agent.execution import lease_writer, vote_writer
from tests.unit.agent.stage import NODE, SPEC, TIMEOUT_S, Stage, first_record, staged

KEY = lease_key(SPEC.name)
WAIT_S = SPEC.terms.takeover_wait_s
THEIRS = first_record(holder="pg2", incarnation="life-2", nonce="theirs", sequence=3)
DOWN = CastVote(1, down=True, over_index=0, evidence="no answer")


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as one:
        await one.hands.remembered.loss_is_over()
        yield one


@pytest.fixture
def desk(stage: Stage) -> PromiseDesk:
    return PromiseDesk(stage.knowledge, stage.hands.remembered, stage.clock)


_numbers = count()


def question(**changes: object) -> Question:
    plain = Question(SPEC.name, 1, 3, f"n{next(_numbers)}", "pg2", "life-2", "theirs", WAIT_S)
    return replace(plain, **changes)  # type: ignore[arg-type]


async def led(stage: Stage, record: LeaseRecord = THEIRS) -> None:
    """The lease as its holder wrote it, and read here."""
    await write(stage, KEY, encode_record(record))
    await stage.read()


async def write(stage: Stage, key: str, value: bytes) -> int:
    outcome = await stage.wires.real.transact((Operation(Verb.SET, key, value=value),), TIMEOUT_S)
    assert isinstance(outcome, Committed)
    return outcome.index


async def order(stage: Stage) -> TakeLease:
    entry = (await stage.wires.real.read(KEY, TIMEOUT_S)).entries[KEY]
    return TakeLease(1, first_record(epoch=2, nonce=""), entry, ())


# ------------------------------------------------------------------ one question


async def test_a_promise_is_on_the_disk_and_in_force_before_it_is_answered(stage: Stage, desk: PromiseDesk) -> None:
    await led(stage)
    asked = question()
    assert await desk.answer(asked) == Answer(NODE, SPEC.name, 1, asked.nonce, promised=True)
    assert stage.folder.load(SPEC.name).promise == KeptPromise(1, "pg2", WAIT_S)
    promise = stage.knowledge.view(stage.clock.now()).promise
    assert promise is not None
    assert (promise.epoch, promise.holder) == (1, "pg2")


async def test_it_counts_from_the_answer_however_long_the_disk_took(
    stage: Stage, desk: PromiseDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await led(stage)
    slow, real = asyncio.Event(), stage.folder.save

    async def save(group: str, state: GroupState, durable: bool) -> bool:
        await slow.wait()
        return await real(group, state, durable)

    monkeypatch.setattr(stage.folder, "save", save)
    answering = asyncio.create_task(desk.answer(question()))
    await asyncio.sleep(0)
    marked = stage.knowledge.promise
    assert marked is not None, "it binds before the disk has it"
    stage.clock.shift_s += 5.0
    slow.set()
    assert (await answering).promised
    assert stage.knowledge.promise is not None
    assert stage.knowledge.promise.since.boot_ns - marked.since.boot_ns >= 5 * 10**9


async def test_what_the_disk_did_not_keep_is_not_promised_and_binds_all_the_same(
    stage: Stage, desk: PromiseDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was written is not known: the node that comes back may find it there."""
    await led(stage)

    def refuse(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(node_state, "replace_file", refuse)
    answer = await desk.answer(question())
    assert (answer.promised, answer.reason) == (False, "the disk is full")
    with pytest.raises(CoordinationRefused, match="promised"):
        await vote_writer.cast_vote(stage.hands, DOWN)


async def test_a_question_of_an_epoch_that_was_not_read_yet_raises_the_height(stage: Stage, desk: PromiseDesk) -> None:
    """Cut off from the coordinator: a record of before, once read, is the past."""
    await led(stage)
    stage.clock.shift_s += 10.0
    assert (await desk.answer(question(epoch=4))).promised
    assert (stage.knowledge.high.epoch, stage.folder.load(SPEC.name).highest.epoch) == (4, 4)
    assert not (await desk.answer(question(epoch=3))).promised


async def test_while_the_reading_is_fresh_another_epoch_is_none_to_promise_in(stage: Stage, desk: PromiseDesk) -> None:
    await led(stage)
    assert "another holder or epoch" in (await desk.answer(question(epoch=4))).reason


async def test_a_give_up_that_is_read_while_the_disk_writes_takes_the_promise_back(
    stage: Stage, desk: PromiseDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await led(stage)
    real = stage.folder.save

    async def save(group: str, state: GroupState, durable: bool) -> bool:
        done = await real(group, state, durable)
        await led(stage, replace(THEIRS, sequence=4, state=LeaseState.VACATED))
        return done

    monkeypatch.setattr(stage.folder, "save", save)
    answer = await desk.answer(question())
    assert (answer.promised, stage.knowledge.promise) == (False, None)
    assert "ended while" in answer.reason


async def test_a_promise_never_gets_shorter(stage: Stage, desk: PromiseDesk) -> None:
    await led(stage)
    await desk.answer(question(wait_s=60.0))
    await desk.answer(question(wait_s=1.0))
    assert stage.knowledge.promise is not None
    assert wait_s(stage.knowledge.promise, SPEC.terms, None) == 60.0


async def test_a_quorum_that_calls_it_unusable_for_longer_than_patience_ends_the_promises(stage: Stage, desk: PromiseDesk) -> None:
    await led(stage)
    for voter in ("edge1", "pg3"):
        await write(stage, vote_key(SPEC.name, voter), encode(VoteValue(1, down=True)))
    await stage.read()
    assert stage.knowledge.called_unusable_since is None, "pg3 is no voter of the record"
    await write(stage, vote_key(SPEC.name, "pg2"), encode(VoteValue(1, down=True)))
    await stage.read()
    assert (await desk.answer(question())).promised
    stage.clock.shift_s += SPEC.patience_s + 0.1
    await stage.read()
    assert "unusable" in (await desk.answer(question())).reason


# ------------------------------------------------------------------ interleavings: at every await of one side the other one comes

Step = Callable[[], Awaitable[object]]


async def meanwhile(stage: Stage, monkeypatch: pytest.MonkeyPatch, at: str, then: Step) -> list[object]:
    """Have `then` happen once, at this point of whatever runs next: before or after its disk, before or after its request."""
    came: list[object] = []

    async def once(_: object = None) -> None:
        if not came:
            came.append(None)
            try:
                came[0] = await then()
            except CoordinationRefused as refused:
                came[0] = refused

    if at in DISK:
        around_the_disk(stage, monkeypatch, at, once)
    elif at == "after the fresh look":
        stage.wires.after_read = once
    elif at == "before it is sent":
        stage.wires.before_transact = once
    else:
        stage.wires.after_transact = once
    return came


def around_the_disk(stage: Stage, monkeypatch: pytest.MonkeyPatch, at: str, once: Step) -> None:
    real = stage.folder.save

    async def save(group: str, state: GroupState, durable: bool) -> bool:
        if at == "before the disk":
            await once()
        done = await real(group, state, durable)
        if at == "after the disk":
            await once()
        return done

    monkeypatch.setattr(stage.folder, "save", save)


DISK = ["before the disk", "after the disk"]
SENDING = [*DISK, "before it is sent", "after it was sent"]


@pytest.mark.parametrize("at", SENDING)
async def test_a_question_while_a_vote_is_under_way_gets_no_promise(
    stage: Stage, desk: PromiseDesk, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    await led(stage)
    came = await meanwhile(stage, monkeypatch, at, lambda: desk.answer(question()))
    await vote_writer.cast_vote(stage.hands, DOWN)
    assert isinstance(came[0], Answer)
    assert not came[0].promised, came[0]


async def test_a_question_before_the_vote_is_marked_gets_its_promise_and_there_is_no_vote(
    stage: Stage, desk: PromiseDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the fresh look of the vote writer and its mark."""
    await led(stage)
    came = await meanwhile(stage, monkeypatch, "after the fresh look", lambda: desk.answer(question()))
    with pytest.raises(CoordinationRefused, match="promised"):
        await vote_writer.cast_vote(stage.hands, DOWN)
    assert isinstance(came[0], Answer)
    assert came[0].promised
    assert await stage.stored(vote_key(SPEC.name, NODE)) is None


@pytest.mark.parametrize("at", DISK)
async def test_a_vote_while_a_promise_is_written_is_refused(
    stage: Stage, desk: PromiseDesk, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    await led(stage)
    came = await meanwhile(stage, monkeypatch, at, lambda: vote_writer.cast_vote(stage.hands, DOWN))
    assert (await desk.answer(question())).promised
    assert isinstance(came[0], CoordinationRefused)
    assert await stage.stored(vote_key(SPEC.name, NODE)) is None


@pytest.mark.parametrize("at", SENDING)
async def test_a_question_while_a_takeover_is_under_way_gets_no_promise(
    stage: Stage, desk: PromiseDesk, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    await led(stage)
    taking = await order(stage)
    came = await meanwhile(stage, monkeypatch, at, lambda: desk.answer(question()))
    await lease_writer.take_lease(stage.hands, taking)
    assert isinstance(came[0], Answer)
    assert not came[0].promised, came[0]


@pytest.mark.parametrize("at", DISK)
async def test_a_takeover_while_a_promise_is_written_is_refused(
    stage: Stage, desk: PromiseDesk, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    await led(stage)
    taking = await order(stage)

    async def take() -> str:
        return await lease_writer.take_lease(stage.hands, taking)

    came = await meanwhile(stage, monkeypatch, at, take)
    assert (await desk.answer(question())).promised
    assert isinstance(came[0], CoordinationRefused)
    assert stage.knowledge.undecided_takeover_index is None


async def test_a_give_up_may_be_taken_all_the_same(stage: Stage, desk: PromiseDesk) -> None:
    await led(stage)
    assert (await desk.answer(question())).promised
    await led(stage, replace(THEIRS, sequence=4, state=LeaseState.VACATED))
    assert stage.knowledge.promise is None
    await lease_writer.take_lease(stage.hands, await order(stage))


async def test_a_promise_that_is_over_forbids_nothing_more(stage: Stage, desk: PromiseDesk) -> None:
    await led(stage)
    await desk.answer(question())
    stage.clock.shift_s += WAIT_S - 0.5
    with pytest.raises(CoordinationRefused, match="promised"):
        await vote_writer.cast_vote(stage.hands, DOWN)
    stage.clock.shift_s += 0.6
    await vote_writer.cast_vote(stage.hands, DOWN)


# ------------------------------------------------------------------ what is out


async def test_a_vote_whose_answer_is_lost_is_out_until_a_withdrawal_has_committed(stage: Stage, desk: PromiseDesk) -> None:
    await led(stage)
    stage.wires.away = CoordinationError("gone")
    knowledge = stage.knowledge
    with pytest.raises(CoordinationError):
        await vote_writer.cast_vote(stage.hands, replace(DOWN, down=False))
    stage.wires.away = None
    await stage.read()
    assert "vote" in (await desk.answer(question())).reason, "nothing is there, but it may come"
    assert knowledge.view(stage.clock.now()).vote_is_uncertain
    await vote_writer.cast_vote(stage.hands, replace(DOWN, down=False))
    assert not knowledge.view(stage.clock.now()).vote_is_uncertain
    assert (await desk.answer(question())).promised, "a reading need not come first: the commit is certain"


async def test_a_vote_that_was_refused_by_the_disk_was_never_out(stage: Stage, desk: PromiseDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    await led(stage)

    def refuse(*_: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(node_state, "replace_file", refuse)
        with pytest.raises(StorageError):
            await vote_writer.cast_vote(stage.hands, DOWN)
    assert (await desk.answer(question())).promised


async def test_a_vote_of_another_epoch_that_stands_is_none_against_this_one(stage: Stage, desk: PromiseDesk) -> None:
    await led(stage)
    await write(stage, vote_key(SPEC.name, NODE), encode(VoteValue(0, down=True)))
    await stage.read()
    assert (await desk.answer(question())).promised


async def test_a_takeover_of_which_nothing_is_known_forbids_a_promise_until_its_index_is_gone(stage: Stage, desk: PromiseDesk) -> None:
    await led(stage)
    taking = await order(stage)
    stage.wires.away = CoordinationError("gone")
    with pytest.raises(CoordinationError):
        await lease_writer.take_lease(stage.hands, taking)
    assert "takeover" in (await desk.answer(question())).reason
    stage.wires.away = None
    await stage.read()
    assert "takeover" in (await desk.answer(question())).reason
    await led(stage, replace(THEIRS, sequence=4))
    assert (await desk.answer(question())).promised


# ------------------------------------------------------------------ a new life


async def test_a_restarted_agent_counts_its_promise_anew_and_in_full(stage: Stage) -> None:
    now = stage.clock.now()
    recall(stage.knowledge, GroupState(promise=KeptPromise(4, "pg2", 9.0)), now)
    assert stage.knowledge.promise == Promise(4, "pg2", 9.0, now)


async def test_a_restarted_agent_remembers_what_may_be_out(stage: Stage, desk: PromiseDesk) -> None:
    vote = SentVote(1, down=True, over_index=7)
    recall(stage.knowledge, GroupState(vote=vote, takeover=TakeoverIntent(2, 9)), stage.clock.now())
    assert (stage.knowledge.own_vote, stage.knowledge.undecided_takeover_index) == (vote, 9)
    assert not (await desk.answer(question())).promised


async def test_after_a_lost_state_folder_nothing_is_promised_voted_or_taken_before_all_of_it_must_be_over(
    stage: Stage, desk: PromiseDesk
) -> None:
    recall(stage.knowledge, GroupState(lost=True), stage.clock.now())
    await led(stage)
    knowledge = stage.knowledge

    async def is_over() -> bool:
        await forget_loss(knowledge, stage.hands.remembered, stage.clock.now())
        return knowledge.lost_since is None

    with pytest.raises(CoordinationRefused, match="promised"):
        await vote_writer.cast_vote(stage.hands, DOWN)
    with pytest.raises(CoordinationRefused, match="promised"):
        await lease_writer.take_lease(stage.hands, await order(stage))
    assert knowledge.view(stage.clock.now()).vote_is_uncertain, "so that the core takes it back"
    assert "lost" in (await desk.answer(question())).reason
    stage.clock.shift_s += WAIT_S + 0.1
    await stage.read()
    assert not await is_over(), "a vote may be out"
    await vote_writer.cast_vote(stage.hands, replace(DOWN, down=False))
    assert not await is_over(), "a takeover may be out, over what was there at the first reading"
    await led(stage, replace(THEIRS, sequence=4))
    assert await is_over()
    assert (await desk.answer(question())).promised


async def test_after_a_lost_state_folder_the_vote_that_is_read_is_not_the_last_word(stage: Stage, desk: PromiseDesk) -> None:
    """A vote that an earlier life sent over it may still be under way: a killed agent's request outlives it for minutes behind a cut."""
    recall(stage.knowledge, GroupState(lost=True), stage.clock.now())
    index = await write(stage, vote_key(SPEC.name, NODE), encode(VoteValue(0, down=False)))
    await led(stage)
    stage.clock.shift_s += WAIT_S + 0.1
    await led(stage, replace(THEIRS, sequence=4))
    knowledge = stage.knowledge
    await forget_loss(knowledge, stage.hands.remembered, stage.clock.now())
    assert knowledge.view(stage.clock.now()).vote_is_uncertain, "so that the core takes it back"
    assert not (await desk.answer(question())).promised
    await vote_writer.cast_vote(stage.hands, replace(DOWN, down=False, over_index=index))
    await forget_loss(knowledge, stage.hands.remembered, stage.clock.now())
    assert (await desk.answer(question())).promised


async def test_it_is_not_over_before_the_longest_wait(stage: Stage) -> None:
    recall(stage.knowledge, GroupState(lost=True), stage.clock.now())
    await led(stage, replace(THEIRS, prior_wait_s=30.0))
    await vote_writer.cast_vote(stage.hands, replace(DOWN, down=False))
    await led(stage, replace(THEIRS, sequence=4, prior_wait_s=30.0))
    stage.clock.shift_s += 29.0
    assert not stage.knowledge.loss_is_over(stage.clock.now())
    stage.clock.shift_s += 1.1
    assert stage.knowledge.loss_is_over(stage.clock.now())
