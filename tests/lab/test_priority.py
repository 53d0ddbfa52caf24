"""A lab comes first on the processor, and gives its place back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.lab.priority import CONTROLLER, PREFIX, share_of_the_processor


def groups_of(pid: str) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def test_whatever_it_starts_is_born_there_and_nothing_is_left() -> None:
    before = groups_of("self")
    with share_of_the_processor() as taken:
        child = subprocess.run(["/bin/cat", "/proc/self/cgroup"], check=True, capture_output=True, text=True).stdout
        assert (f"{PREFIX}{os.getpid()}" in child) is taken
    assert groups_of("self") == before
    assert not (CONTROLLER / f"{PREFIX}{os.getpid()}").exists()


def test_where_there_is_none_the_lab_runs_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.lab.priority.CONTROLLER", tmp_path / "none")
    with share_of_the_processor() as taken:
        assert not taken


def test_what_a_killed_lab_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.lab.priority.CONTROLLER", tmp_path)
    with subprocess.Popen(["/bin/true"]) as ended:
        pass
    (tmp_path / f"{PREFIX}{ended.pid}").mkdir()
    (tmp_path / f"{PREFIX}{os.getppid()}").mkdir()
    with share_of_the_processor():
        assert not (tmp_path / f"{PREFIX}{ended.pid}").exists()
        assert (tmp_path / f"{PREFIX}{os.getppid()}").exists()
