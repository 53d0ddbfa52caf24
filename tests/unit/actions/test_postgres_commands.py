import asyncio
import os
import stat
from pathlib import Path

import pytest

from actions.base import ActionError, ActionTimeout
from actions.postgres_commands import KEPT_BYTES, Finished, find_program, run
from actions.postgres_instance import Login, PostgresInstance
from tests.polling import eventually_async
from tests.unit.actions.examples import instance


def with_program(folder: Path, script: str) -> PostgresInstance:
    """An instance whose `tool` is this shell script."""
    path = folder / "tool"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return instance(bin_dir=folder)


async def test_code_and_words_of_both_streams(tmp_path: Path) -> None:
    done = await run(with_program(tmp_path, "echo out; echo 'tool: error: no' >&2; echo later; exit 3"), "tool", timeout_s=5)
    assert done.code == 3
    assert done.said.splitlines() == ["out", "tool: error: no", "later"]
    assert done.last_words == "tool: error: no"


def test_the_most_telling_line() -> None:
    assert Finished(1, "a\nFATAL:  b\nc\n").last_words == "FATAL:  b"
    assert Finished(1, "a\nb\n\n").last_words == "b"
    assert Finished(7, "").last_words == "exit code 7"


async def test_after_the_deadline_nothing_of_it_lives(tmp_path: Path) -> None:
    """Neither the program nor its children: they are one group."""
    tool = with_program(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; echo working; wait")
    with pytest.raises(ActionTimeout, match=r"tool took longer than 0.5 s and was ended: working"):
        await run(tool, "tool", timeout_s=0.5)
    child = int((tmp_path / "child").read_text())
    await eventually_async(lambda: not lives(child))


async def test_a_cancelled_one_is_ended_too(tmp_path: Path) -> None:
    tool = with_program(tmp_path, f"echo $$ > {tmp_path}/own; exec sleep 60")
    running = asyncio.ensure_future(run(tool, "tool", timeout_s=60))
    await eventually_async(lambda: (tmp_path / "own").exists() and (tmp_path / "own").read_text().strip())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not lives(int((tmp_path / "own").read_text()))


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_what_it_leaves_running_does_not_hold_us(tmp_path: Path) -> None:
    """As pg_ctl leaves a server: in a session of its own, with our pipe open."""
    leave = f"setsid sh -c 'echo $$ > {tmp_path}/left; exec sleep 60' &"
    tool = with_program(tmp_path, f"{leave} while [ ! -s {tmp_path}/left ]; do :; done; echo done")
    done = await run(tool, "tool", timeout_s=10)
    left = int((tmp_path / "left").read_text())
    try:
        assert done.said == "done\n"
        assert lives(left)
    finally:
        os.kill(left, 9)


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    done = await run(with_program(tmp_path, "head -c 300000 /dev/zero | tr '\\0' x; echo end"), "tool", timeout_s=10)
    assert len(done.said) <= KEPT_BYTES
    assert done.said.endswith("end\n")


async def test_the_password_goes_through_the_environment_and_ours_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("PGSERVICE", "other")
    tool = with_program(tmp_path, 'echo "$PGPASSWORD|$PGHOST|$PGSERVICE|$LC_ALL|$*"')
    done = await run(tool, "tool", "a b", "$HOME", timeout_s=5, login=Login("u", "hunter2"))
    assert done.said == "hunter2|||C|a b $HOME\n"


async def test_what_cannot_be_run_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ActionError, match="cannot be run: No such file"):
        await run(instance(bin_dir=tmp_path), "pg_nothing", timeout_s=1)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ActionError, match=r"not on PATH: set postgres\.bin_dir"):
        find_program(instance(), "pg_nothing")
    with_program(tmp_path, "")
    assert find_program(instance(), "tool") == tmp_path / "tool"


async def test_the_buffer_lent_is_filled_even_when_it_is_late(tmp_path: Path) -> None:
    said = bytearray()
    with pytest.raises(ActionTimeout):
        await run(with_program(tmp_path, "echo need to copy; sleep 60"), "tool", timeout_s=0.5, said=said)
    assert b"need to copy" in said
