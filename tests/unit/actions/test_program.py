import asyncio
import os
from pathlib import Path

import pytest

from actions.program import Tail, run_to_end
from tests.polling import eventually_async

BOUND = 64


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


async def run(script: str, timeout_s: float = 10.0, said: Tail | None = None) -> int:
    return await run_to_end(shell(script), os.environ, timeout_s, Tail(BOUND) if said is None else said)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_its_code_or_its_signal() -> None:
    assert await run("exit 3") == 3
    assert await run("kill -9 $$") == -9


async def test_words_of_both_streams() -> None:
    said = Tail(BOUND)
    await run("echo out; echo err >&2", said=said)
    assert said.text == "out\nerr\n"


async def test_after_the_deadline_nothing_of_it_lives(tmp_path: Path) -> None:
    """Neither the program nor its children: they are one group. What it said until then is kept."""
    said = Tail(BOUND)
    with pytest.raises(TimeoutError):
        await run(f"sleep 60 & echo $! > {tmp_path}/child; echo working; wait", 0.5, said)
    assert said.text == "working\n"
    child = int((tmp_path / "child").read_text())
    await eventually_async(lambda: not lives(child))


async def test_a_cancelled_one_is_ended_too(tmp_path: Path) -> None:
    running = asyncio.ensure_future(run(f"echo $$ > {tmp_path}/own; exec sleep 60", 60))
    await eventually_async(lambda: (tmp_path / "own").exists() and (tmp_path / "own").read_text().strip())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not lives(int((tmp_path / "own").read_text()))


async def test_what_it_leaves_running_does_not_hold_us(tmp_path: Path) -> None:
    """As pg_ctl leaves a server: in a session of its own, with our pipe open."""
    said = Tail(BOUND)
    leave = f"setsid sh -c 'echo $$ > {tmp_path}/left; exec sleep 60' &"
    assert await run(f"{leave} while [ ! -s {tmp_path}/left ]; do :; done; echo done", said=said) == 0
    left = int((tmp_path / "left").read_text())
    try:
        assert said.text == "done\n"
        assert lives(left)
    finally:
        os.kill(left, 9)


async def test_what_is_kept_is_bounded() -> None:
    said = Tail(BOUND)
    await run("head -c 300000 /dev/zero | tr '\\0' x; echo end", said=said)
    assert len(said.content) == BOUND
    assert said.text.endswith("x" * (BOUND - 4) + "end\n")


async def test_what_cannot_be_run_leaves_no_pipe_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        await run_to_end(("/nowhere/tool",), {}, 1.0, Tail(BOUND))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
