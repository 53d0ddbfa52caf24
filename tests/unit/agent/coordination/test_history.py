from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.coordination import history
from agent.coordination.coordinator import Operation, Verb
from agent.coordination.history import HistoryEntry, HistoryReason, append, decode_history, encode_history, read_history
from agent.coordination.lease import history_key
from agent.coordination.local import LocalCoordinator

ENTRY = HistoryEntry(2, "b", "a", HistoryReason.CRASHED, 1_700_000_000.0, 1_700_000_000.4, 0.4, 2, 0, "a crashed, b took over")


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[LocalCoordinator]:
    coordinator = await LocalCoordinator.open(tmp_path / "store.db", SystemClock())
    yield coordinator
    await coordinator.close()


@pytest.mark.parametrize(
    "entry", [ENTRY, replace(ENTRY, previous_leader=None, timeline=None, lost_bytes=None, reason=HistoryReason.FORMED)]
)
def test_an_entry_comes_back_as_it_was(entry: HistoryEntry) -> None:
    assert decode_history(encode_history(entry)) == entry


@pytest.mark.parametrize("value", [b"", b"{}", encode_history(ENTRY).replace(b"crashed", b"vanished", 1)])
def test_what_cannot_be_read_is_no_entry(value: bytes) -> None:
    assert decode_history(value) is None


async def test_entries_are_read_oldest_first_and_the_unreadable_left_out(coordinator: LocalCoordinator) -> None:
    for epoch in (10, 2, 9):
        await append(coordinator, "pg", replace(ENTRY, epoch=epoch))
    await append(coordinator, "redis", ENTRY)
    await coordinator.transact((Operation(Verb.SET, history_key("pg", 5), value=b"junk"),), 5)
    assert [entry.epoch for entry in await read_history(coordinator, "pg")] == [2, 9, 10]


async def test_an_epoch_has_one_entry_the_latest_written(coordinator: LocalCoordinator) -> None:
    await append(coordinator, "pg", ENTRY)
    await append(coordinator, "pg", replace(ENTRY, lost_bytes=4096))
    assert await read_history(coordinator, "pg") == (replace(ENTRY, lost_bytes=4096),)


async def test_only_the_latest_entries_are_kept(coordinator: LocalCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    for epoch in range(1, 7):
        await append(coordinator, "pg", replace(ENTRY, epoch=epoch))
    assert [entry.epoch for entry in await read_history(coordinator, "pg")] == [4, 5, 6]
    assert len((await coordinator.read("_history/pg/", 5)).entries) == 3
