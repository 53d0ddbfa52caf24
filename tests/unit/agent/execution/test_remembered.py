from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from agent.coordination import node_state
from agent.coordination.failsafe_rules import KeptPromise
from agent.coordination.lease import Tenure
from agent.coordination.node_state import GroupState, Mark, OwnPromotion, SentVote, StateFolder, TakeoverIntent
from agent.disk import StorageError, replace_file
from agent.execution.remembered import Remembered
from tests.unit.agent.stage import SPEC, WRITER, Stage, first_record

TAKEN = first_record(epoch=4, nonce="r1")
DOWN = SentVote(3, down=True, over_index=17)

Write = Callable[[Remembered], Awaitable[None]]


@pytest.fixture
def remembered(stage: Stage) -> Remembered:
    return stage.hands.remembered


def on_disk(stage: Stage) -> GroupState:
    return stage.folder.load(SPEC.name)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each write to the disk was durable."""
    seen: list[bool] = []
    real = replace_file

    def note(path: object, content: bytes, durable: bool) -> None:
        seen.append(durable)
        real(path, content, durable)  # type: ignore[arg-type]

    monkeypatch.setattr(node_state, "replace_file", note)
    return seen


async def test_a_first_life_has_lost_everything(remembered: Remembered) -> None:
    assert remembered.state == GroupState(lost=True)
    assert remembered.own_timelines == ()


async def test_a_new_epoch_is_durable_and_a_sequence_costs_no_fsync(remembered: Remembered, stage: Stage, writes: list[bool]) -> None:
    for epoch, sequence in ((2, 5), (2, 6), (2, 6), (2, 4), (1, 99), (3, 1)):
        await remembered.note_seen(epoch, sequence)
    assert writes == [True, False, True]
    assert on_disk(stage).highest == Mark(3, 1)


async def test_the_store_is_remembered(remembered: Remembered, stage: Stage, writes: list[bool]) -> None:
    await remembered.note_store("store-1")
    await remembered.note_store("store-1")
    assert (writes, on_disk(stage).coordinator) == ([True], "store-1")


async def test_what_is_about_to_be_sent_is_on_the_disk(remembered: Remembered, stage: Stage) -> None:
    await remembered.note_takeover(TAKEN, 99)
    await remembered.note_vote(DOWN)
    state = on_disk(stage)
    assert (state.takeover, state.vote) == (TakeoverIntent(4, 99), DOWN)


async def test_a_committed_vote_is_settled_and_a_lost_folder_stays_lost(remembered: Remembered, stage: Stage) -> None:
    await remembered.note_vote(DOWN)
    await remembered.vote_committed(replace(DOWN, over_index=16, settled=True))
    assert on_disk(stage).vote == DOWN, "that is another vote"
    await remembered.vote_committed(replace(DOWN, settled=True))
    assert on_disk(stage).vote == replace(DOWN, settled=True)
    assert on_disk(stage).lost


async def test_a_loss_is_over_once(remembered: Remembered, stage: Stage, writes: list[bool]) -> None:
    await remembered.loss_is_over()
    await remembered.loss_is_over()
    assert (writes, remembered.state.lost, on_disk(stage).lost) == ([True], False, False)


async def test_promises_like_the_one_on_the_disk_cost_no_fsync(remembered: Remembered, stage: Stage, writes: list[bool]) -> None:
    """It counts anew from each start of the agent, so that it outlasts every answer that was given in its name."""
    for _ in range(3):
        await remembered.note_promise(KeptPromise(4, "pg2", 3.0))
    assert writes == [True]
    assert (on_disk(stage).promise, on_disk(stage).highest) == (KeptPromise(4, "pg2", 3.0), Mark(4, 0))
    await remembered.note_promise(KeptPromise(4, "pg2", 5.0))
    assert writes == [True, True]


async def test_a_promise_that_is_over_leaves_the_disk_with_what_it_forbade(remembered: Remembered, stage: Stage) -> None:
    await remembered.note_promise(KeptPromise(3, "pg2", 3.0))
    await remembered.note_vote(replace(DOWN, down=False))
    assert on_disk(stage).promise is not None, "to take a vote back is no breach"
    await remembered.note_vote(DOWN)
    assert on_disk(stage).promise is None
    await remembered.note_promise(KeptPromise(3, "pg2", 3.0))
    await remembered.note_takeover(TAKEN, 99)
    assert on_disk(stage).promise is None


async def test_a_takeover_is_done_with_when_its_epoch_is_seen(remembered: Remembered, stage: Stage) -> None:
    await remembered.note_takeover(TAKEN, 99)
    await remembered.note_seen(3, 7)
    assert on_disk(stage).takeover == TakeoverIntent(4, 99)
    await remembered.note_seen(4, 1)
    assert on_disk(stage).takeover is None


async def test_the_records_that_promises_rest_on_are_kept(remembered: Remembered, stage: Stage, writes: list[bool]) -> None:
    changed = replace(TAKEN, sequence=2, nonce="r2", voters=("pg1",))
    await remembered.note_takeover(TAKEN, 99)
    await remembered.note_record(replace(TAKEN, sequence=2, nonce="r2"))
    await remembered.note_record(changed)
    assert (writes, on_disk(stage).kept_records) == ([True, True], (TAKEN, changed))
    await remembered.record_confirmed(Tenure(changed, 7, "s", None))
    assert on_disk(stage).kept_records == (changed,)


async def test_which_boot_it_is_of(remembered: Remembered, stage: Stage) -> None:
    assert not remembered.is_of_this_boot, "nothing is known of any boot"
    await remembered.loss_is_over()
    stage.folder.close()
    for boot, is_it in ((WRITER.boot, True), ("boot-2", False)):
        folder = StateFolder.open(stage.folder.path, replace(WRITER, boot=boot))
        assert Remembered(folder, SPEC.name).is_of_this_boot is is_it
        folder.close()


async def test_own_promotions_are_kept_with_the_timeline_that_they_came_to(remembered: Remembered, stage: Stage) -> None:
    for epoch, timeline in ((1, 2), (3, 6), (3, 5), (3, 5)):
        await remembered.note_promotion(epoch, timeline)
    assert on_disk(stage).own_promotions == (OwnPromotion(1, 2), OwnPromotion(3, 5))
    assert Remembered(stage.folder, SPEC.name).own_timelines == ((1, 2), (3, 5))


@pytest.mark.parametrize(
    "write",
    [
        lambda r: r.note_promotion(3, 5),
        lambda r: r.note_takeover(TAKEN, 99),
        lambda r: r.note_vote(DOWN),
        lambda r: r.note_seen(5, 1),
        lambda r: r.note_store("s"),
        lambda r: r.loss_is_over(),
        lambda r: r.note_promise(KeptPromise(4, "pg2", 3.0)),
        lambda r: r.note_record(TAKEN),
    ],
)
async def test_what_the_disk_refused_is_not_remembered(
    remembered: Remembered, stage: Stage, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    """It is asked again, and must not pass the second time because memory says that it is there."""

    def refuse(*_: object) -> None:
        raise StorageError("the disk is full")

    before = remembered.state
    with monkeypatch.context() as broken:
        broken.setattr(node_state, "replace_file", refuse)
        for _ in range(2):
            with pytest.raises(StorageError):
                await write(remembered)
    assert remembered.state == before
    await write(remembered)
    assert remembered.state != before
    assert replace(on_disk(stage), writer=None) == replace(remembered.state, writer=None)


async def test_writes_side_by_side_lose_nothing(remembered: Remembered, stage: Stage) -> None:
    await asyncio.gather(
        remembered.note_takeover(TAKEN, 99),
        remembered.note_vote(DOWN),
        remembered.note_promotion(3, 5),
        remembered.note_seen(3, 2),
        remembered.note_store("s"),
    )
    state = on_disk(stage)
    assert replace(remembered.state, writer=None) == replace(state, writer=None)
    assert (state.takeover, state.vote) == (TakeoverIntent(4, 99), DOWN)
    assert (state.own_promotions, state.highest, state.coordinator) == ((OwnPromotion(3, 5),), Mark(3, 2), "s")
