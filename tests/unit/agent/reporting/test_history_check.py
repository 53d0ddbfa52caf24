from __future__ import annotations

from dataclasses import replace

import pytest

from agent.coordination.history import HistoryEntry, HistoryReason
from agent.reporting.history_check import contradictions

FORMED = HistoryEntry(1, "pg1", None, HistoryReason.FORMED, 10.0, 11.0, 1.0, 2, None, "the group was formed")
CRASHED = HistoryEntry(2, "pg2", "pg1", HistoryReason.CRASHED, 50.0, 50.4, 0.4, 3, 0, "pg1 crashed")
BACK = HistoryEntry(3, "pg1", "pg2", HistoryReason.SWITCHOVER, 90.0, 90.2, 0.2, 4, 0, "wanted")
GOOD = (FORMED, CRASHED, BACK)


def test_a_good_history_has_none() -> None:
    assert contradictions(GOOD) == ()
    assert contradictions(()) == ()
    assert contradictions(GOOD[1:]) == (), "the oldest entries may have been cleared away"


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ((FORMED, BACK), "between epoch 1 and epoch 3 nothing is written"),
        ((CRASHED, FORMED), "epochs only grow"),
        ((FORMED, replace(CRASHED, previous_leader="pg3")), "epoch 1 says pg1"),
        ((CRASHED, replace(BACK, timeline=3)), "they only grow"),
        ((CRASHED, replace(BACK, reason=HistoryReason.FORMED, previous_leader=None)), "formed a group that was there"),
        ((replace(FORMED, previous_leader="pg2"),), "names a leader before it"),
        ((replace(FORMED, epoch=0),), "epochs begin at 1"),
        ((replace(CRASHED, duration_s=-1.0),), "took -1.0 s"),
    ],
)
def test_each_contradiction_is_said(entries: tuple[HistoryEntry, ...], sentence: str) -> None:
    assert any(sentence in said for said in contradictions(entries)), contradictions(entries)


def test_unknown_timelines_contradict_nothing() -> None:
    assert contradictions((FORMED, replace(CRASHED, timeline=None), BACK)) == ()
