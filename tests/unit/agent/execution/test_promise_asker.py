from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from agent.coordination.failsafe_rules import Answer, Question
from agent.coordination.lease import Attempt, LeaseState, Tenure, with_attempt
from agent.decision.command import AskPromises
from agent.errors import CoordinationRefused, PeerError
from agent.execution.promise_asker import ask_promises
from tests.polling import eventually_async
from tests.unit.agent.stage import NODE, SPEC, Stage, first_record

COMMAND = AskPromises(1)


@dataclass
class StandInPeers:
    """The other voters. `says`: what each answers; an Event is waited for first; None: it does not answer."""

    says: dict[str, str | asyncio.Event | None] = field(default_factory=dict)
    asked: list[tuple[str, Question]] = field(default_factory=list)
    changes: dict[str, object] = field(default_factory=dict)

    async def ask_promise(self, node: str, question: Question, timeout_s: float) -> Answer:
        assert 0 < timeout_s < SPEC.terms.ttl_s
        self.asked.append((node, question))
        said = self.says.get(node, "")
        if isinstance(said, asyncio.Event):
            await said.wait()
            said = ""
        if said is None:
            raise PeerError("no answer")
        answer = Answer(node, question.group, question.epoch, question.nonce, promised=not said, reason=said)
        return replace(answer, **self.changes)  # type: ignore[arg-type]


@pytest.fixture
def peers(stage: Stage) -> StandInPeers:
    """This node holds epoch 1; its last renewal was sent half a second ago."""
    stage.knowledge.tenure = Tenure(first_record(nonce="r1", sequence=5), 7, "s", dated=stage.clock.now().after(-0.5))
    stage.hands.peers = there = StandInPeers()
    return there


def tenure(stage: Stage) -> Tenure:
    assert stage.knowledge.tenure is not None
    return stage.knowledge.tenure


def handed_boot_ns(stage: Stage) -> list[int]:
    return [deadline.boot_ns for _, deadline, _ in stage.watchdog.handed]


@pytest.mark.usefixtures("peers")
async def test_enough_promises_move_the_deadline_dated_by_the_question(stage: Stage) -> None:
    before = stage.clock.now()
    assert await ask_promises(stage.hands, COMMAND) == "promised by 3; 2 are needed"
    after = stage.clock.now()
    deadline = tenure(stage).deadline
    assert deadline is not None
    assert before.boot_ns <= deadline.boot_ns - 2 * 10**9 <= after.boot_ns
    assert stage.knowledge.fences.armed_deadline == deadline
    assert tenure(stage).is_by_promises


async def test_all_voters_but_itself_are_asked_the_same(stage: Stage, peers: StandInPeers) -> None:
    await ask_promises(stage.hands, COMMAND)
    assert sorted(name for name, _ in peers.asked) == ["edge1", "pg2"]
    (question,) = {question for _, question in peers.asked}
    assert (question.holder, question.epoch, question.record_nonce, question.sequence) == (NODE, 1, "r1", 5)
    await ask_promises(stage.hands, COMMAND)
    assert peers.asked[-1][1].nonce != question.nonce


async def test_the_deadline_moves_before_a_silent_voter_has_run_out_of_time(stage: Stage, peers: StandInPeers) -> None:
    peers.says["edge1"] = never = asyncio.Event()
    asking = asyncio.create_task(ask_promises(stage.hands, COMMAND))
    await eventually_async(lambda: stage.watchdog.handed, 5.0, "the deadline is handed over")
    assert not asking.done()
    never.set()
    await asking
    assert len(stage.watchdog.handed) == 1, "the third promise does not move it"


@pytest.mark.parametrize("says", [{"edge1": None, "pg2": None}, {"edge1": "a vote stands", "pg2": None}])
async def test_too_few_leave_the_deadline_where_it_is(stage: Stage, peers: StandInPeers, says: dict[str, str | None]) -> None:
    peers.says.update(says)
    deadline = tenure(stage).deadline
    with pytest.raises(CoordinationRefused, match=r"too few promises: .*pg2: no answer"):
        await ask_promises(stage.hands, COMMAND)
    assert (tenure(stage).deadline, stage.watchdog.handed) == (deadline, [])
    assert tenure(stage).asked is not None


@pytest.mark.parametrize("change", [{"member": "pg3"}, {"group": "x"}, {"epoch": 2}, {"nonce": "old"}])
async def test_an_answer_to_another_question_counts_for_nothing(stage: Stage, peers: StandInPeers, change: dict[str, object]) -> None:
    peers.changes = change
    with pytest.raises(CoordinationRefused, match="another question, or under another name"):
        await ask_promises(stage.hands, COMMAND)


@pytest.mark.usefixtures("peers")
async def test_without_a_key_nobody_is_asked(stage: Stage) -> None:
    stage.hands.peers = None
    with pytest.raises(CoordinationRefused, match="no key"):
        await ask_promises(stage.hands, COMMAND)


@pytest.mark.usefixtures("peers")
async def test_a_lone_voter_goes_on_by_itself(stage: Stage) -> None:
    alone = first_record(nonce="r1", voters=(NODE,), votes_needed=1)
    stage.knowledge.tenure = replace(tenure(stage), record=alone)
    stage.hands.peers = None
    assert await ask_promises(stage.hands, COMMAND) == "promised by 1; 1 are needed"
    assert len(stage.watchdog.handed) == 1


async def test_not_by_a_list_of_one_that_was_only_sent(stage: Stage, peers: StandInPeers) -> None:
    alone = first_record(nonce="r2", sequence=6, voters=(NODE,), votes_needed=1)
    stage.knowledge.tenure = with_attempt(tenure(stage), Attempt(alone, stage.clock.now()))
    peers.says.update({"edge1": None, "pg2": None})
    with pytest.raises(CoordinationRefused, match="too few"):
        await ask_promises(stage.hands, COMMAND)


async def test_two_rounds_count_together_and_are_dated_by_the_older(stage: Stage, peers: StandInPeers) -> None:
    """n = 5, k = 3: three promises. Round 1 gets edge1's, round 2 gets pg2's."""
    five = first_record(nonce="r1", voters=("edge1", "edge2", "pg1", "pg2", "pg3"), votes_needed=3)
    stage.knowledge.tenure = replace(tenure(stage), record=five)
    peers.says.update({"edge2": None, "pg2": None, "pg3": None})
    with pytest.raises(CoordinationRefused):
        await ask_promises(stage.hands, COMMAND)
    first = tenure(stage).asked
    stage.clock.shift_s += 0.3
    peers.says.update({"edge1": None, "pg2": ""})
    await ask_promises(stage.hands, COMMAND)
    assert tenure(stage).promised == first


async def test_what_comes_after_the_deadline_counts_for_nothing(stage: Stage, peers: StandInPeers) -> None:
    for name in ("edge1", "pg2"):
        peers.says[name] = asyncio.Event()
    asking = asyncio.create_task(ask_promises(stage.hands, COMMAND))
    await eventually_async(lambda: len(peers.asked) == 2, 5.0, "both are asked")
    stage.clock.shift_s += 2.0
    for event in peers.says.values():
        assert isinstance(event, asyncio.Event)
        event.set()
    with pytest.raises(CoordinationRefused, match="ended meanwhile"):
        await asking
    assert stage.watchdog.handed == []


async def test_what_comes_after_a_give_up_was_sent_counts_for_nothing(stage: Stage, peers: StandInPeers) -> None:
    peers.says["edge1"] = peers.says["pg2"] = late = asyncio.Event()
    asking = asyncio.create_task(ask_promises(stage.hands, COMMAND))
    await eventually_async(lambda: len(peers.asked) == 2, 5.0, "both are asked")
    given_up = first_record(nonce="v", sequence=6, state=LeaseState.VACATED)
    stage.knowledge.tenure = with_attempt(tenure(stage), Attempt(given_up, stage.clock.now()))
    late.set()
    with pytest.raises(CoordinationRefused):
        await asking
    assert (tenure(stage).promised, stage.watchdog.handed) == (None, [])


@pytest.mark.parametrize("epoch", [2, 1])
async def test_without_a_live_lease_of_the_epoch_nobody_is_asked(stage: Stage, peers: StandInPeers, epoch: int) -> None:
    if epoch == 1:
        stage.clock.shift_s += 2.0
    with pytest.raises(CoordinationRefused, match="no more, or it ran out"):
        await ask_promises(stage.hands, AskPromises(epoch))
    assert peers.asked == []


async def test_a_renewal_that_commits_meanwhile_keeps_its_own_date(stage: Stage, peers: StandInPeers) -> None:
    peers.says["edge1"] = peers.says["pg2"] = late = asyncio.Event()
    asking = asyncio.create_task(ask_promises(stage.hands, COMMAND))
    await eventually_async(lambda: len(peers.asked) == 2, 5.0, "both are asked")
    stage.clock.shift_s += 0.2
    renewed = stage.clock.now()
    stage.knowledge.tenure = replace(tenure(stage), dated=renewed)
    late.set()
    await asking
    assert (tenure(stage).deadline, tenure(stage).is_by_promises) == (renewed.after(2.0), False)
