from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.decision.command import Command, FenceService, RenewLease, StartService
from agent.decision.engine import Decision, decide
from agent.decision.memory import Memory
from agent.decision.situation import Situation
from agent.execution.record import DecisionRecord, RecordRing, load_record
from agent.execution.recorder import Recorder
from tests.polling import eventually_async
from tests.unit.agent.reporting.samples import NOW, StillClock, leading_view, record


class Kept:
    """A recorder and the files it wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "records"
        self.ring = RecordRing.open(folder)
        self.recorder = Recorder(self.ring, StillClock())

    def turn(self, *commands: Command, situation: Situation | None = None, memory: Memory | None = None) -> Decision:
        decision = decide(Memory(), leading_view(), NOW)
        decision = replace(decision, commands=commands, situation=situation or decision.situation, memory=memory or decision.memory)
        self.recorder.decided(leading_view(), decision, NOW)
        return decision

    async def records(self) -> list[DecisionRecord]:
        await eventually_async(lambda: not self.recorder._writing, 5, "all is written")
        return [load_record(file) for file in sorted(self.folder.glob("*.json"))]


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    one = Kept(tmp_path)
    yield one
    one.ring.close()


async def test_a_decision_is_kept_with_all_it_came_from(kept: Kept) -> None:
    decision = kept.turn(FenceService(3, "x"))
    (kept_record,) = await kept.records()
    assert (kept_record.view, kept_record.now, kept_record.memory) == (leading_view(), NOW, Memory())
    assert (kept_record.commands, kept_record.sentence) == (decision.commands, decision.reason)
    assert (kept_record.wall_s, kept_record.version != "") == (StillClock().wall_s(), True)


async def test_the_memory_that_a_turn_went_in_with_is_kept(kept: Kept) -> None:
    went_out = Memory(situation=Situation.LEADING, situation_since=NOW)
    kept.turn(memory=went_out)
    kept.turn(StartService(1))
    assert [r.memory for r in await kept.records()] == [Memory(), went_out]


async def test_the_same_again_and_mere_renewals_are_no_news(kept: Kept) -> None:
    kept.turn()
    kept.turn()
    kept.turn(RenewLease(3, record()))
    assert len(await kept.records()) == 1
    kept.turn(StartService(1))
    kept.turn(StartService(2), RenewLease(3, record()))
    assert len(await kept.records()) == 2
    kept.turn()
    assert len(await kept.records()) == 3


async def test_a_new_situation_is_news(kept: Kept) -> None:
    kept.turn(situation=Situation.LEADING)
    kept.turn(situation=Situation.CRASHED)
    assert len(await kept.records()) == 2


async def test_the_rule_is_the_one_whose_sentence_is_told(kept: Kept) -> None:
    decision = decide(Memory(), leading_view(), NOW)
    busy = replace(decision.rules[0], name="lease-busy", sentence="One at a time.")
    acting = replace(decision.rules[0], name="fence-hung", sentence="It hangs.")
    kept.recorder.decided(leading_view(), replace(decision, rules=(busy, acting)), NOW)
    (kept_record,) = await kept.records()
    assert (kept_record.rule, kept_record.sentence) == ("fence-hung", "It hangs.")


async def test_a_disk_that_takes_nothing_holds_nobody_up(kept: Kept) -> None:
    kept.ring.close()
    kept.turn(StartService(1))
    assert await kept.records() == []
