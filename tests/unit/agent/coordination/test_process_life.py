from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.coordination import process_life
from agent.coordination.process_life import Life, is_over, own_life


def test_this_process_is_alive() -> None:
    assert own_life().pid == os.getpid()
    assert not is_over(own_life(), own_life())


@pytest.mark.parametrize(
    ("change", "over"),
    [
        ({"started": 1}, True),  # the pid is somebody else's by now
        ({"boot": "another"}, True),
        ({"namespace": "pid:[1]"}, False),  # cannot be known from here
    ],
)
def test_another_start_or_boot_is_another_life(change: dict[str, object], over: bool) -> None:
    assert is_over(replace(own_life(), **change), own_life()) is over  # type: ignore[arg-type]


def life_of(pid: int) -> Life:
    stat = process_life._stat(pid)
    assert stat is not None
    return replace(own_life(), pid=pid, started=stat[1])


def test_a_process_is_over_when_it_is_killed_even_as_a_zombie() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    life = life_of(child.pid)
    assert not is_over(life, own_life())
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped
    assert Path(f"/proc/{child.pid}").exists()
    assert is_over(life, own_life())
    child.communicate()
    assert is_over(life, own_life())


def test_a_name_full_of_traps_does_not_hide_the_start() -> None:
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) Z 1 (b', 0, 0, 0); print('named', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        assert "a) Z 1 (b" in Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii")
        life = life_of(child.pid)
        assert life.started >= own_life().started
        assert not is_over(life, own_life())
    finally:
        child.kill()
        child.communicate()


def test_a_process_that_may_not_be_looked_at_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    here = own_life()

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert not is_over(here, here)
