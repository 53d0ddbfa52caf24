import stat
from pathlib import Path

import pytest

from actions.base import ActionError, ActionTimeout
from actions.postgres_commands import KEPT_BYTES, Finished, find_program, run
from actions.postgres_instance import Login, PostgresInstance
from actions.program import Tail
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


async def test_a_late_one_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ActionTimeout, match=r"tool took longer than 0.5 s and was ended: working"):
        await run(with_program(tmp_path, "echo working; sleep 60"), "tool", timeout_s=0.5)


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
    said = Tail(KEPT_BYTES)
    with pytest.raises(ActionTimeout):
        await run(with_program(tmp_path, "echo need to copy; sleep 60"), "tool", timeout_s=0.5, said=said)
    assert "need to copy" in said.text
