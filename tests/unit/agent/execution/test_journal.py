from __future__ import annotations

import asyncio
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.disk import StorageError
from agent.execution import journal as journal_module
from agent.execution.journal import Journal, JournalEntry, JournalOutcome

Reopen = Callable[..., Awaitable[Journal]]
CLOCK = SystemClock()


@pytest.fixture
async def reopen(tmp_path: Path) -> AsyncIterator[Reopen]:
    """Opens the journal as a later life of the agent: the earlier one is closed first."""
    opened: list[Journal] = []

    async def make(incarnation: str = "life-1") -> Journal:
        for journal in opened:
            await journal.close()
        opened.append(Journal.open(tmp_path, incarnation, CLOCK))
        return opened[-1]

    yield make
    for journal in opened:
        await journal.close()


def shape(entry: JournalEntry) -> tuple[object, ...]:
    return entry.command, entry.epoch, entry.group, entry.incarnation, entry.steps


async def test_a_command_that_ended_is_not_unfinished(reopen: Reopen) -> None:
    journal = await reopen()
    entry = await journal.begin("PromoteService", 3, "pg")
    await journal.step(entry, "promote")
    assert [shape(e) for e in journal.unfinished()] == [("PromoteService", 3, "pg", "life-1", ("promote",))]
    await journal.end(entry, JournalOutcome.DONE, "promoted")
    assert journal.unfinished() == ()
    assert (await reopen("life-2")).unfinished() == ()


async def test_what_a_crash_left_is_told_with_its_steps_oldest_first(reopen: Reopen) -> None:
    journal = await reopen()
    first = await journal.begin("PromoteService", 3, "pg")
    await journal.step(first, "write files")
    second = await journal.begin("SetSyncNames", 3, "pg")
    await journal.step(first, "promote")
    later = await reopen("life-2")
    own = await later.begin("StartService", 4, "pg")
    assert [shape(e) for e in later.unfinished()] == [
        ("PromoteService", 3, "pg", "life-1", ("write files", "promote")),
        ("SetSyncNames", 3, "pg", "life-1", ()),
        ("StartService", 4, "pg", "life-2", ()),
    ]
    for entry in (first, second, own):
        await later.end(entry, JournalOutcome.DROPPED, "of an earlier life")
    assert (await reopen("life-3")).unfinished() == ()


async def test_each_line_is_on_the_disk_before_the_call_returns(reopen: Reopen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, synced = await reopen(), []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append((tmp_path / "journal.jsonl").read_bytes().count(b"\n"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    entry = await journal.begin("StartService", 3, "pg")
    await journal.step(entry, "start")
    await journal.end(entry, JournalOutcome.DONE, "")
    assert synced == [1, 2, 3]
    assert stat.S_IMODE((tmp_path / "journal.jsonl").stat().st_mode) == 0o600


@pytest.mark.parametrize("torn", [b"{", b'{"class":"Ended","entry":', b"\xff\xff"])
async def test_a_torn_last_line_is_dropped_and_the_next_is_whole(reopen: Reopen, tmp_path: Path, torn: bytes) -> None:
    journal = await reopen()
    entry = await journal.begin("StartService", 3, "pg")
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(torn)
    later = await reopen("life-2")
    assert [e.identity for e in later.unfinished()] == [entry]
    await later.end(entry, JournalOutcome.UNDONE, "")
    assert (await reopen("life-3")).unfinished() == ()


async def test_a_damaged_line_in_the_middle_is_left_out(reopen: Reopen, tmp_path: Path) -> None:
    journal = await reopen()
    await journal.begin("StartService", 3, "pg")
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'junk\n{"entry": "x", "wall_s": 1.0}\n')
    later = await reopen("life-2")
    await later.begin("StopService", 3, "pg")
    assert [e.command for e in (await reopen("life-3")).unfinished()] == ["StartService", "StopService"]


async def test_a_step_of_what_is_not_open_is_a_mistake_and_of_nobody_is_nothing(reopen: Reopen, tmp_path: Path) -> None:
    journal = await reopen()
    entry = await journal.begin("StartService", 3, "pg")
    await journal.end(entry, JournalOutcome.DONE, "")
    size = (tmp_path / "journal.jsonl").stat().st_size
    for call in (journal.step(entry, "again"), journal.end(entry, JournalOutcome.DONE, ""), journal.step("unknown", "x")):
        with pytest.raises(ValueError, match="was begun"):
            await call
    await journal.step("", "kill")
    assert (tmp_path / "journal.jsonl").stat().st_size == size


async def test_the_journal_is_bounded_and_carries_over_what_is_unfinished(
    reopen: Reopen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MAX_BYTES", 2000)
    journal = await reopen()
    held = await journal.begin("PromoteService", 3, "pg")
    await journal.step(held, "promote")
    for _ in range(40):
        entry = await journal.begin("StartService", 3, "pg")
        await journal.end(entry, JournalOutcome.DONE, "x" * 200)
        assert (tmp_path / "journal.jsonl").stat().st_size <= 2000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["journal.jsonl", "journal.old"]
    assert (tmp_path / "journal.old").stat().st_size <= 2000
    assert [shape(e) for e in (await reopen("life-2")).unfinished()] == [("PromoteService", 3, "pg", "life-1", ("promote",))]


async def test_a_crash_between_the_renames_of_a_rotation_loses_nothing(reopen: Reopen, tmp_path: Path) -> None:
    journal = await reopen()
    entry = await journal.begin("StartService", 3, "pg")
    (tmp_path / "journal.jsonl").rename(tmp_path / "journal.old")
    assert [e.identity for e in (await reopen("life-2")).unfinished()] == [entry]


async def test_a_full_disk_is_one_sentence_and_changes_nothing(reopen: Reopen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = await reopen()
    entry = await journal.begin("StartService", 3, "pg")
    real, calls = os.write, list[int]()

    def write(fd: int, content: memoryview) -> int:
        calls.append(fd)
        if len(calls) == 1:
            return real(fd, content[:10])  # the disk takes a part, then no more
        raise OSError(28, "No space left on device")

    size = (tmp_path / "journal.jsonl").stat().st_size
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StorageError, match=r"journal\.jsonl cannot be written: No space left on device"):
        await journal.step(entry, "start")
    assert journal.unfinished()[0].steps == ()
    assert (tmp_path / "journal.jsonl").stat().st_size == size
    monkeypatch.setattr(os, "write", real)
    await journal.step(entry, "start")
    assert [e.steps for e in (await reopen("life-2")).unfinished()] == [("start",)]


async def test_a_full_disk_while_rotating_leaves_the_journal_as_it_was(
    reopen: Reopen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await reopen()
    entry = await journal.begin("StartService", 3, "pg")
    monkeypatch.setattr(journal_module, "MAX_BYTES", 10)
    (tmp_path / "journal.new").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device"):
        await journal.step(entry, "start")
    monkeypatch.setattr(journal_module, "MAX_BYTES", 1 << 20)
    await journal.step(entry, "start")
    assert [e.steps for e in (await reopen("life-2")).unfinished()] == [("start",)]


async def test_a_hung_disk_raises_and_the_late_line_is_never_written(
    reopen: Reopen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, go = await reopen(), threading.Event()
    entry = await journal.begin("StartService", 3, "pg")
    monkeypatch.setattr(journal_module, "WRITE_TIMEOUT_S", 0.05)
    journal._worker.post(lambda: go.wait(10))
    with pytest.raises(StorageError, match=r"was not written within 0\.05 s"):
        await journal.step(entry, "start")
    go.set()
    monkeypatch.setattr(journal_module, "WRITE_TIMEOUT_S", 5.0)
    await journal.end(entry, JournalOutcome.FAILED, "")
    assert b"Stepping" not in (tmp_path / "journal.jsonl").read_bytes()


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"journal\.jsonl cannot be written: Is a directory"):
        Journal.open(tmp_path, "life-1", CLOCK)


async def test_a_killed_agent_leaves_every_step_it_was_about_to_do(reopen: Reopen, tmp_path: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from agent.clock import SystemClock
from agent.execution.journal import Journal
async def main():
    journal = Journal.open(Path({str(tmp_path)!r}), "life-1", SystemClock())
    entry = await journal.begin("PromoteService", 3, "pg")
    for number in range(1000000):
        await journal.step(entry, str(number))
        print(number, flush=True)
asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(20):
        await child.stdout.readline()
    child.kill()
    said = 20 + (await child.communicate())[0].count(b"\n")
    steps = (await reopen("life-2")).unfinished()[0].steps
    assert steps == tuple(str(number) for number in range(len(steps)))
    assert len(steps) in {said, said + 1}
