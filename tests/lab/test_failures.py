"""The lab's scenarios, each a claim of the README: run whole, judged by what its file expects, and nothing is left behind.

Those that assert a duration run alone at the end; the others are about safety alone and run side by side.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import lab
from tests.lab.network import FOLDER_PREFIX
from tests.plugins.left_out import left_out
from tests.polling import eventually

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = Path(__file__).parent / "scenarios"
BY_HAND = {"consul_down_60s"}
"""Too long for make test: `python -m tests.lab run`."""
SAFETY = {"agent_and_watchdog_frozen", "consul_down_and_primary_cut_off", "cut_off_but_not_from_clients", "switchover"}
"""Their figures say who was writable when, not how long a client waited: a busy machine does not make them worse."""
TIMED = sorted(file.stem for file in SCENARIOS.glob("*.yaml") if file.stem not in BY_HAND | SAFETY)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def clean_machine() -> Iterator[None]:
    """A lab can run here, and none leaves anything."""
    if (missing := lab.what_is_missing()) is not None:
        left_out(*missing)
    yield
    assert not list(Path("/tmp").glob(f"{FOLDER_PREFIX}{os.getpid()}-*"))


def run(name: str) -> None:
    """Run it by its command line, as a person does; AssertionError with the timeline when it is not ok."""
    command = [sys.executable, "-m", "tests.lab", "run", str(SCENARIOS / f"{name}.yaml"), "--output", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            output, progress = process.communicate(timeout=100)
        finally:
            process.terminate()
    assert process.returncode in {0, 1}, progress
    outcome = json.loads(output.splitlines()[-1])
    timeline = "\n".join(f"{entry['at_s']:9.3f}  {entry['what']}" for entry in outcome.pop("timeline"))
    assert outcome["ok"], f"{json.dumps(outcome, indent=1)}\n{timeline}"
    assert process.returncode == 0


@pytest.mark.alone
@pytest.mark.parametrize("name", TIMED)
def test_how_long_it_takes(name: str) -> None:
    run(name)


@pytest.mark.parametrize("name", sorted(SAFETY))
def test_never_two_primaries(name: str) -> None:
    run(name)


def test_an_expectation_that_does_not_hold_is_exit_1(tmp_path: Path) -> None:
    """The lab can fail: the service is killed and nobody is there to take over, yet a new leader is expected."""
    file = tmp_path / "impossible.yaml"
    text = """
        hosts: {h1: {}}
        steps: [{at: 500ms, fault: kill_service, host: leader}]
        until: 1s
        expect: {leader_changes: 1, outage_s_max: 0.01}
    """
    file.write_text(text)
    command = [sys.executable, "-m", "tests.lab", "run", str(file), "--output", "json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["scenario"] == "impossible"
    assert not outcome["ok"]
    assert "leader_changes: 0, 1 expected" in outcome["failed"]


def test_a_group_that_quorate_refuses_is_a_bad_file(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("hosts: {h1: {}}\ngroup: {durabilty: sync}\n")
    done = subprocess.run([sys.executable, "-m", "tests.lab", "run", str(file)], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 64, done.stderr
    assert "unknown key (did you mean durability?)" in done.stderr.splitlines()[-1]


def test_a_lab_that_cannot_come_up_is_exit_70(tmp_path: Path) -> None:
    """The agent finds no Postgres to start."""
    file = tmp_path / "broken.yaml"
    file.write_text("hosts: {h1: {}}\ngroup: {postgres: {bin_dir: /nonexistent}}\n")
    environment = {**os.environ, "LAB_WHOLE_S": "5"}
    command = [sys.executable, "-m", "tests.lab", "run", str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 70, done.stderr
    assert "the lab failed: not within 5 s: the group is whole" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_lab_that_is_interrupted_leaves_nothing(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.lab", "run", str(SCENARIOS / "consul_down.yaml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "the group" in line)
        mark = f"{FOLDER_PREFIX}{process.pid}-"
        assert _processes_of(mark), "its hosts run"
        process.send_signal(number)
        process.wait(30)
    eventually(lambda: not _processes_of(mark), 10, "its processes are gone")
    assert mark not in Path("/proc/self/mountinfo").read_text()
    if number is signal.SIGKILL:
        lab.Network().close()  # the next lab sweeps what a killed one could not
    assert not list(Path("/tmp").glob(f"{mark}*"))


def _processes_of(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes() + os.fsencode((entry / "cwd").readlink())
            except OSError:
                continue
            if mark.encode() in words:
                found.append(int(entry.name))
    return found
