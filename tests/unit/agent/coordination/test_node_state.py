from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.coordination import node_state
from agent.coordination.node_state import GroupState, Mark, OwnPromotion, SentVote, StateFolder, TakeoverIntent, Writer, machine_id
from agent.disk import StorageError
from agent.errors import AlreadyRunning

WRITER = Writer("boot-1", "machine-1", "incarnation-1")
FULL = GroupState(
    highest=Mark(3, 700),
    coordinator="store-1",
    vote=SentVote(3, down=True, over_index=17),
    takeover=TakeoverIntent(4, 99),
    own_promotions=(OwnPromotion(1, 2), OwnPromotion(3, 4)),
    session="session-1",
)

OpenFolder = Callable[..., StateFolder]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a"


@pytest.fixture
def open_folder(path: Path) -> Iterator[OpenFolder]:
    """Opens the folder as a later life of the agent: the earlier one is closed first."""
    opened: list[StateFolder] = []

    def reopen(writer: Writer = WRITER) -> StateFolder:
        for folder in opened:
            folder.close()
        opened.append(StateFolder.open(path, writer))
        return opened[-1]

    yield reopen
    for folder in opened:
        folder.close()


# ---------------------------------------------------------------------------------------------------- one agent


def test_the_folder_is_for_this_user_only(open_folder: OpenFolder) -> None:
    assert stat.S_IMODE(open_folder().path.stat().st_mode) == 0o700


def test_a_second_agent_refuses_and_names_the_first(path: Path, open_folder: OpenFolder) -> None:
    code = f"""
import sys
from pathlib import Path
from agent.coordination.node_state import StateFolder, Writer
folder = StateFolder.open(Path({str(path)!r}), Writer("b", "m", "i"))
print("held", flush=True)
sys.stdin.read()
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(AlreadyRunning, match=rf"another agent \(pid {child.pid}\) uses the state folder {path}"):
        open_folder()
    child.kill()
    child.communicate()
    open_folder()


def test_a_lock_without_a_pid_is_a_lock(path: Path, open_folder: OpenFolder) -> None:
    first = open_folder()
    (path / "agent.lock").write_text("", encoding="ascii")
    with pytest.raises(AlreadyRunning, match="not known yet"):
        StateFolder.open(path, WRITER)
    first.close()
    first.close()
    StateFolder.open(path, WRITER).close()


def test_a_folder_that_cannot_be_used_is_one_sentence(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Not a directory"):
        StateFolder.open(tmp_path / "file" / "a", WRITER)
    path.mkdir()
    (path / "groups").touch()
    with pytest.raises(StorageError, match="groups cannot be written"):
        StateFolder.open(path, WRITER)
    (path / "groups").unlink()
    StateFolder.open(path, WRITER).close()
    (path / "agent.lock").unlink()
    (path / "agent.lock").mkdir()
    with pytest.raises(StorageError, match=r"agent\.lock cannot be written: Is a directory"):
        StateFolder.open(path, WRITER)


def test_a_lock_on_a_full_disk_is_one_sentence(path: Path) -> None:
    path.mkdir()
    (path / "agent.lock").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"agent\.lock cannot be written"):
        StateFolder.open(path, WRITER)


# ---------------------------------------------------------------------------------------------------- what is remembered


async def test_what_was_saved_comes_back_with_who_wrote_it(open_folder: OpenFolder) -> None:
    assert await open_folder().save("pg", FULL, durable=True)
    later = open_folder(Writer("boot-2", "machine-1", "incarnation-2"))
    assert later.load("pg") == replace(FULL, writer=WRITER)
    await later.save("pg", later.load("pg"), durable=True)
    again = open_folder(Writer("boot-2", "machine-1", "incarnation-3")).load("pg")
    assert again.writer == Writer("boot-2", "machine-1", "incarnation-2")


async def test_groups_do_not_mix(open_folder: OpenFolder) -> None:
    folder = open_folder()
    await folder.save("pg", FULL, durable=True)
    await folder.save("redis", GroupState(highest=Mark(9, 9)), durable=True)
    assert folder.load("pg").highest == Mark(3, 700)
    assert folder.load("redis").highest == Mark(9, 9)


def test_what_was_never_written_is_lost(open_folder: OpenFolder) -> None:
    assert open_folder().load("pg") == GroupState(lost=True)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"highest": {"epoch": "3", "sequence": 0}}', b'{"unknown": 1}'])
async def test_a_damaged_file_is_lost_and_the_noted_height_is_not(path: Path, open_folder: OpenFolder, content: bytes) -> None:
    folder = open_folder()
    await folder.save("pg", FULL, durable=True)
    await folder.save("pg", replace(FULL, highest=Mark(3, 800)), durable=False)
    (path / "groups" / "pg.json").write_bytes(content)
    assert open_folder().load("pg") == GroupState(highest=Mark(3, 800), lost=True)


async def test_lost_stays_until_the_caller_clears_it(open_folder: OpenFolder) -> None:
    folder = open_folder()
    await folder.save("pg", replace(folder.load("pg"), session="s"), durable=True)
    assert open_folder().load("pg").lost
    await (folder := open_folder()).save("pg", replace(folder.load("pg"), lost=False), durable=True)
    assert not open_folder().load("pg").lost


async def test_a_folder_from_another_machine_is_lost_but_keeps_the_height(open_folder: OpenFolder) -> None:
    await open_folder().save("pg", FULL, durable=True)
    moved = open_folder(Writer("boot-1", "machine-2", "incarnation-1")).load("pg")
    assert moved.lost
    assert moved.session is None
    assert (moved.highest, moved.vote, moved.takeover, moved.own_promotions) == (
        FULL.highest,
        FULL.vote,
        FULL.takeover,
        FULL.own_promotions,
    )


async def test_a_noted_height_is_not_durable_and_touches_nothing_else(
    path: Path, open_folder: OpenFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder()
    await folder.save("pg", FULL, durable=True)
    before = (path / "groups" / "pg.json").read_bytes()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    assert await folder.save("pg", replace(FULL, highest=Mark(3, 701), vote=None), durable=False)
    assert synced == []
    assert (path / "groups" / "pg.json").read_bytes() == before
    assert open_folder().load("pg") == replace(FULL, highest=Mark(3, 701), writer=WRITER)
    await (folder := open_folder()).save("pg", replace(FULL, highest=Mark(4, 0)), durable=True)
    assert open_folder().load("pg").highest == Mark(4, 0), "an old note won over what is newer"


async def test_a_torn_height_is_forgotten(path: Path, open_folder: OpenFolder) -> None:
    folder = open_folder()
    await folder.save("pg", FULL, durable=True)
    (path / "groups" / "pg.height.json").write_bytes(b'{"epoch": 9')
    assert open_folder().load("pg").highest == FULL.highest


async def test_own_promotions_are_bounded(open_folder: OpenFolder) -> None:
    many = tuple(OwnPromotion(n, n) for n in range(node_state.MAX_PROMOTIONS + 5))
    await open_folder().save("pg", GroupState(own_promotions=many), durable=True)
    assert open_folder().load("pg").own_promotions == many[5:]


# ---------------------------------------------------------------------------------------------------- a disk that fails


async def test_a_full_disk_raises_for_what_must_be_durable_and_is_told_for_the_rest(path: Path, open_folder: OpenFolder) -> None:
    folder = open_folder()
    await folder.save("pg", FULL, durable=True)
    for name in ("pg.json.new", "pg.height.json.new"):
        (path / "groups" / name).symlink_to("/dev/full")
    assert not await folder.save("pg", replace(FULL, highest=Mark(3, 701)), durable=False)
    with pytest.raises(StorageError, match=r"pg\.json cannot be written: No space left on device"):
        await folder.save("pg", replace(FULL, vote=None), durable=True)
    assert open_folder().load("pg") == replace(FULL, writer=WRITER)


async def test_a_hung_disk_raises_and_the_late_write_never_happens(
    path: Path, open_folder: OpenFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_state, "SAVE_TIMEOUT_S", 0.05)
    folder, go = open_folder(), threading.Event()
    folder._worker.post(lambda: go.wait(10))
    with pytest.raises(StorageError, match=r"was not written within 0\.05 s"):
        await folder.save("pg", FULL, durable=True)
    assert not await folder.save("pg", FULL, durable=False)
    go.set()
    monkeypatch.setattr(node_state, "SAVE_TIMEOUT_S", 5.0)
    await folder.save("redis", FULL, durable=True)
    assert sorted(file.name for file in (path / "groups").iterdir()) == ["redis.json"]


async def test_a_hung_disk_holds_up_no_renewal(open_folder: OpenFolder) -> None:
    """Each renewal notes its height before its deadline goes to the watchdog: a healthy primary would be killed for a folder of ours."""
    folder, mended = open_folder(), threading.Event()
    folder._worker.post(lambda: mended.wait(10))
    try:
        async with asyncio.timeout(1.0):
            assert not await folder.save("pg", FULL, durable=False)
    finally:
        mended.set()


async def test_a_state_is_plain_json_for_a_person(path: Path, open_folder: OpenFolder) -> None:
    await open_folder().save("pg", FULL, durable=True)
    raw = json.loads((path / "groups" / "pg.json").read_bytes())
    assert raw["vote"] == {"epoch": 3, "down": True, "over_index": 17, "settled": False}
    assert stat.S_IMODE((path / "groups" / "pg.json").stat().st_mode) == 0o600


def test_the_machine_has_one_name_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_id() == machine_id()

    def fail(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", fail)
    assert machine_id() == ""
