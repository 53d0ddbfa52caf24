from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.execution.crash_points import VARIABLE, CrashPoint

PASS = """
import os, sys
from pathlib import Path
from agent.execution.crash_points import CrashPoint
CrashPoint(os.environ, Path(sys.argv[1])).passing(sys.argv[2], sys.argv[3])
"""


def pass_by(state_dir: Path, wanted: str | None, command: str, step: str) -> int:
    environment = {} if wanted is None else {VARIABLE: wanted}
    program = [sys.executable, "-c", PASS, str(state_dir), command, step]
    return subprocess.run(program, env=environment, cwd=Path(__file__).parents[4], check=False, timeout=30).returncode


def test_it_dies_at_its_step_once(tmp_path: Path) -> None:
    wanted = "PromoteService/seal"
    assert pass_by(tmp_path, wanted, "PromoteService", "seal") == -signal.SIGKILL
    assert (tmp_path / "crashed").exists()
    assert pass_by(tmp_path, wanted, "PromoteService", "seal") == 0


@pytest.mark.parametrize("wanted", [None, "", "PromoteService/promote", "StartService/seal", "PromoteService/seal/x"])
def test_every_other_step_is_passed(tmp_path: Path, wanted: str | None) -> None:
    CrashPoint({} if wanted is None else {VARIABLE: wanted}, tmp_path).passing("PromoteService", "seal")
    assert not (tmp_path / "crashed").exists()
