from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from agent.coordination import node_state
from agent.coordination.node_state import GroupState, Mark, OwnPromotion, SentVote, TakeoverIntent
from agent.disk import StorageError, replace_file
from agent.execution.remembered import Remembered
from tests.unit.agent.stage import SPEC, Stage

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
    await remembered.note_takeover(4, 99)
    await remembered.note_vote(3, 17, down=True)
    state = on_disk(stage)
    assert (state.takeover, state.vote) == (TakeoverIntent(4, 99), SentVote(3, down=True, over_index=17))


async def test_a_committed_vote_makes_a_lost_folder_good(remembered: Remembered, stage: Stage, writes: list[bool]) -> None:
    await remembered.vote_committed()
    await remembered.vote_committed()
    assert (writes, remembered.state.lost, on_disk(stage).lost) == ([True], False, False)


async def test_own_promotions_are_kept_with_the_timeline_that_they_came_to(remembered: Remembered, stage: Stage) -> None:
    for epoch, timeline in ((1, 2), (3, 6), (3, 5), (3, 5)):
        await remembered.note_promotion(epoch, timeline)
    assert on_disk(stage).own_promotions == (OwnPromotion(1, 2), OwnPromotion(3, 5))
    assert Remembered(stage.folder, SPEC.name).own_timelines == ((1, 2), (3, 5))


@pytest.mark.parametrize(
    "write",
    [
        lambda r: r.note_promotion(3, 5),
        lambda r: r.note_takeover(4, 99),
        lambda r: r.note_vote(3, 17, down=True),
        lambda r: r.note_seen(5, 1),
        lambda r: r.note_store("s"),
        lambda r: r.vote_committed(),
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
        remembered.note_takeover(4, 99),
        remembered.note_vote(3, 17, down=True),
        remembered.note_promotion(3, 5),
        remembered.note_seen(4, 2),
        remembered.note_store("s"),
    )
    state = on_disk(stage)
    assert replace(remembered.state, writer=None) == replace(state, writer=None)
    assert (state.takeover, state.vote) == (TakeoverIntent(4, 99), SentVote(3, down=True, over_index=17))
    assert (state.own_promotions, state.highest, state.coordinator) == ((OwnPromotion(3, 5),), Mark(4, 2), "s")
