from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from actions.base import ActionError, ActionTimeout, ActionTooLate, Guard
from actions.hook import LAST_WORDS, Occasion, Role, RunHook
from tests.guards import GUARD, no_step
from tests.polling import eventually, eventually_async

OCCASION = Occasion("pg-main", 7, Role.ELECTED, "pg1")


def hook(*command: str, timeout_s: float = 10.0) -> RunHook:
    return RunHook(command, timeout_s, OCCASION)


def shell(script: str, timeout_s: float = 10.0) -> RunHook:
    return hook("/bin/sh", "-c", script, timeout_s=timeout_s)


async def test_it_is_told_who_became_what_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hush")
    said = await shell('echo "$QUORATE_GROUP $QUORATE_EPOCH $QUORATE_ROLE $QUORATE_NODE [$SECRET] $PWD"').apply(GUARD)
    assert said == "pg-main 7 elected pg1 [] /"


async def test_its_words_are_not_expanded() -> None:
    assert await hook("/bin/echo", "$QUORATE_NODE", "; id", "*").apply(GUARD) == "$QUORATE_NODE ; id *"


async def test_the_end_of_what_it_prints_is_kept_bounded_and_printable() -> None:
    said = await shell("yes x | head -c 300000; echo; printf 'last\\033[31m'; printf '%0500d' 7 >&2").apply(GUARD)
    assert said.startswith("last?[31m000")
    assert len(said) == LAST_WORDS


async def test_one_that_fails_says_how_and_its_last_words() -> None:
    one = shell("echo no space >&2; exit 3")
    with pytest.raises(ActionError, match=r"^hook /bin/sh ended with 3: no space$"):
        await one.apply(GUARD)
    assert not await one.is_done()
    with pytest.raises(ActionError):
        await one.verify()
    with pytest.raises(ActionError, match="was ended by signal 9"):
        await shell("kill -9 $$").apply(GUARD)
    with pytest.raises(ActionError, match="hook /nowhere/x cannot be run: No such file"):
        await hook("/nowhere/x").apply(GUARD)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_one_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/child; echo begun; wait"
    with pytest.raises(ActionTimeout, match=r"took longer than 0.5 s and was ended: begun"):
        await shell(script, timeout_s=0.5).apply(GUARD)
    child = int((tmp_path / "child").read_text(encoding="ascii"))
    assert eventually(lambda: not is_alive(child))


async def test_one_that_is_cancelled_is_killed_too(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    running = asyncio.create_task(shell(f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 60").apply(GUARD))
    await eventually_async(pid_file.exists)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    pid = int(pid_file.read_text(encoding="ascii"))
    assert eventually(lambda: not is_alive(pid))


async def test_what_it_leaves_running_does_not_hold_it_up() -> None:
    one = shell("sleep 60 & echo $!")
    async with asyncio.timeout(5):
        left = int(await one.apply(GUARD))
    assert await one.is_done()
    assert is_alive(left)
    os.kill(left, 9)


async def test_it_is_not_run_without_permission(tmp_path: Path) -> None:
    def refuse() -> None:
        raise ActionTooLate("over")

    with pytest.raises(ActionTooLate):
        await shell(f"touch {tmp_path}/ran").apply(Guard(refuse, no_step))
    assert not (tmp_path / "ran").exists()
