from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.main import run
from tests.unit.agent.cli.conftest import Run


def test_the_agent_is_handed_its_file_and_its_name(quorate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[tuple[Path, str | None]] = []

    def run_agent(configuration_path: Path, node: str | None) -> int:
        handed.append((configuration_path, node))
        return 7

    monkeypatch.setattr("agent.app.run_agent", run_agent)
    assert quorate("agent", "--config", "/x.yaml", "--node", "pg1").code == 7
    assert handed == [(Path("/x.yaml"), "pg1")]


def test_an_agent_with_a_bad_file_is_one_line(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "agent", "agent", "--config", str(tmp_path / "nowhere.yaml")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"{tmp_path}/nowhere.yaml: cannot be read: No such file or directory\n"


def test_the_demo_is_handed_its_options(quorate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[object] = []

    def run_demo(pg_bin: Path | None, *, watch: bool, output: str) -> int:
        handed.extend((pg_bin, watch, output))
        return 1

    monkeypatch.setattr("agent.demo.demo.run", run_demo)
    assert quorate("demo", "--pg-bin", "/usr/bin", "--watch", "--output", "json").code == 1
    assert handed == [Path("/usr/bin"), True, "json"]


def test_the_watchdog_gets_a_process_that_imported_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _path, argv: executed.append(argv))
    run(["watchdog", "--state-dir", "/x", "--help"])
    assert executed == [[sys.executable, "-m", "agent", "watchdog", "--state-dir", "/x", "--help"]]
