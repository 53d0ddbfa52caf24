from __future__ import annotations

import asyncio

import pytest

from actions.base import ActionError, ActionTooLate, Guard
from agent.coordination.lease import CountedVote
from agent.decision import command as commands
from agent.decision.command import (
    CastVote,
    Command,
    FenceService,
    FinishIntent,
    FollowLeader,
    FormGroup,
    IntentOutcome,
    SealService,
    StartService,
    StopReceiving,
)
from agent.execution.executor import EXECUTORS, Executor, Finished
from tests.polling import eventually_async, holds_async
from tests.unit.agent.stage import Stage, first_record


class Ran:
    """An executor and what it said of every end."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.finished: list[Finished] = []
        self.executor = Executor(stage.hands, stage.clock, self.finished.append)

    def begin(self, *orders: Command) -> list[bool]:
        return [self.executor.start(order) for order in orders]

    def hold(self, name: str) -> asyncio.Event:
        """The service does not do this before the event is set."""
        self.stage.service.wait[name] = asyncio.Event()
        return self.stage.service.wait[name]

    async def until(self, ends: int) -> list[Finished]:
        await eventually_async(lambda: len(self.finished) >= ends, 5, f"{ends} commands ended")
        return self.finished

    async def until_called(self, name: str) -> None:
        await eventually_async(lambda: name in self.stage.service.calls, 5, f"the service was asked to {name}")

    def running(self) -> list[str]:
        return [type(f.command).__name__ for f in self.stage.knowledge.in_flight.values()]


@pytest.fixture
def ran(stage: Stage) -> Ran:
    return Ran(stage)


def test_every_command_has_an_executor() -> None:
    all_kinds = {kind for kind in vars(commands).values() if isinstance(kind, type) and issubclass(kind, Command) and kind is not Command}
    assert set(EXECUTORS) == all_kinds


async def test_one_command_at_a_time_for_each_resource(ran: Ran) -> None:
    start, seal = ran.hold("start"), ran.hold("seal")
    form = FormGroup(0, first_record(), (CountedVote("pg2", 1),))
    assert ran.begin(StartService(0), SealService(0), FollowLeader(0, "pg2"), form) == [True, False, False, True]
    assert ran.running() == ["StartService", "FormGroup"]
    start.set()
    seal.set()
    await ran.until(2)
    assert ran.running() == []
    assert ran.begin(SealService(0)) == [True]
    ended = await ran.until(3)
    assert [(type(f.command).__name__, f.ok) for f in ended if f.command.resource is StartService.resource] == [
        ("StartService", True),
        ("SealService", True),
    ]


async def test_the_end_is_noted_before_it_is_told(ran: Ran) -> None:
    told: list[tuple[bool, int]] = []

    def tell(finished: Finished) -> None:
        outcome = ran.stage.knowledge.outcomes[type(finished.command).__name__]
        told.append((outcome.ok, len(ran.stage.knowledge.in_flight)))

    executor = Executor(ran.stage.hands, ran.stage.clock, tell)
    executor.start(StartService(0))
    await eventually_async(lambda: told, 5)
    assert told == [(True, 0)]


async def test_how_long_it_took(ran: Ran) -> None:
    held = ran.hold("start")
    ran.begin(StartService(0))
    await ran.until_called("start")
    ran.stage.clock.shift_s += 7
    held.set()
    (finished,) = await ran.until(1)
    assert 7 <= finished.duration_s < 12
    assert finished.sentence == "started read-only"


async def test_failures_are_outcomes_with_their_sentence_and_count(ran: Ran) -> None:
    ran.stage.service.errors["start"] = ActionTooLate("the lease ran out")
    for ends in (1, 2):
        ran.begin(StartService(0))
        await ran.until(ends)
    last, outcome = ran.finished[-1], ran.stage.knowledge.outcomes["StartService"]
    assert (last.ok, last.sentence, type(last.error)) == (False, "the lease ran out", ActionTooLate)
    assert (outcome.ok, outcome.sentence, outcome.failures) == (False, "the lease ran out", 2)
    del ran.stage.service.errors["start"]
    ran.begin(StartService(0))
    await ran.until(3)
    assert ran.stage.knowledge.outcomes["StartService"].failures == 0
    assert ran.finished[-1].error is None


async def test_a_mistake_of_ours_is_told_as_one_and_the_next_command_runs(ran: Ran) -> None:
    ran.stage.service.errors["start"] = KeyError("secret")
    ran.begin(StartService(0))
    (finished,) = await ran.until(1)
    assert (finished.ok, finished.sentence) == (False, "the agent made a mistake (KeyError); its log says which")
    assert isinstance(finished.error, KeyError)
    assert ran.running() == []
    assert ran.begin(SealService(0)) == [True]
    await ran.until(2)


async def test_a_fence_cancels_what_runs_and_waits_until_it_is_over(ran: Ran) -> None:
    ran.hold("follow pg2")
    ran.begin(FollowLeader(0, "pg2"))
    await ran.until_called("follow pg2")
    assert ran.begin(FenceService(0, "it hangs")) == [True]
    first, second = await ran.until(2)
    assert (type(first.command), first.ok, first.error) == (FollowLeader, False, None)
    assert first.sentence.startswith("it was cancelled")
    assert (type(second.command), second.ok) == (FenceService, True)
    assert ran.stage.service.calls == ["follow pg2", "fence"]


async def test_what_is_cancelled_is_over_before_the_fence_begins(ran: Ran) -> None:
    """It may still have a hand on the service while it cleans up."""
    cleaned, cleaning = asyncio.Event(), asyncio.Event()

    async def follow(_leader: str, _guard: Guard) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await cleaned.wait()

    ran.stage.service.follow = follow  # type: ignore[method-assign,assignment]
    ran.begin(FollowLeader(0, "pg2"))
    await eventually_async(ran.stage.hands.journal.unfinished, 5)
    await asyncio.sleep(0)
    ran.begin(FenceService(0, "it hangs"))
    await cleaning.wait()
    await holds_async(lambda: "fence" not in ran.stage.service.calls, 0.1)
    cleaned.set()
    assert [type(f.command) for f in await ran.until(2)] == [FollowLeader, FenceService]


async def test_a_fence_does_not_wait_for_facts_of_the_service(ran: Ran) -> None:
    """A service that hangs answers no question; whoever was cancelled must not ask one before the fence."""
    ran.hold("follow pg2")
    ran.begin(FollowLeader(0, "pg2"))
    await ran.until_called("follow pg2")
    answer = ran.hold("read")
    ran.begin(FenceService(0, "it hangs"))
    await ran.until_called("fence")
    assert not answer.is_set()
    answer.set()
    await ran.until(2)


async def test_a_fence_goes_before_what_waits_for_an_earlier_fence(ran: Ran) -> None:
    held = ran.hold("fence")
    ran.begin(FenceService(0, "one"))
    await ran.until_called("fence")
    assert ran.begin(StartService(0)) == [False]
    held.set()
    assert (await ran.until(1))[0].ok


async def test_a_command_of_an_older_epoch_is_refused(ran: Ran) -> None:
    ran.stage.knowledge.high.rise(4, 1)
    ran.begin(StopReceiving(3))
    (finished,) = await ran.until(1)
    assert (finished.ok, finished.sentence) == (False, "it was decided in epoch 3; epoch 4 has begun")
    assert isinstance(finished.error, ActionError)
    assert ran.stage.service.calls == []
    ran.begin(StopReceiving(4))
    assert (await ran.until(2))[-1].ok


async def test_a_fence_is_never_stale_and_a_vote_is_judged_by_the_coordinator(ran: Ran) -> None:
    ran.stage.knowledge.high.rise(4, 1)
    ran.begin(FenceService(1, "a stray"), CastVote(3, down=False, over_index=0, evidence=""))
    assert {f.ok for f in await ran.until(2)} == {True}


async def test_stopping_lets_what_runs_end(ran: Ran) -> None:
    held = ran.hold("start")
    ran.begin(StartService(0))
    await ran.until_called("start")
    stopping = asyncio.create_task(ran.executor.finish(5))
    held.set()
    await stopping
    assert [f.ok for f in ran.finished] == [True]


async def test_stopping_cancels_what_does_not_end_in_time(ran: Ran) -> None:
    ran.hold("start")
    ran.begin(StartService(0))
    await ran.until_called("start")
    await ran.executor.finish(0.01)
    assert [(f.ok, f.sentence.startswith("it was cancelled")) for f in ran.finished] == [(False, True)]
    assert [entry.command for entry in ran.stage.hands.journal.unfinished()] == ["StartService"]


async def test_stopping_with_nothing_to_stop_ends_at_once(ran: Ran) -> None:
    await ran.executor.finish(60)
    ran.begin(FinishIntent(0, "none", 1, IntentOutcome.DONE, ""))
    await ran.until(1)
    await ran.executor.finish(60)
