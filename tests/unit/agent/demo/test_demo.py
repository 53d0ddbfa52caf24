from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from agent.clock import SystemClock
from agent.demo import client
from agent.demo import demo as demo_module
from agent.demo.cluster import MEMBERS, Cluster, ClusterOptions
from agent.demo.demo import DemoFailed, DemoResult, bin_dir_for, demo, run, say
from agent.demo.timeline import Happened, Step, Timeline
from agent.demo.writer import Writer
from agent.errors import QuorateError, UsageError
from tests.polling import eventually_async

ROOT = Path(__file__).parents[4]
RESULT = DemoResult(612.34, 1000, 0, rejoined=True, steps=(("detected", 3.14159), ("promoted", 480.0)))


# ---------------------------------------------------------------------------------------------------- arguments


def test_a_folder_without_postgres_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"^--pg-bin {tmp_path}: there is no initdb in that folder$"):
        bin_dir_for(tmp_path)


def test_the_folder_that_was_named_goes_before_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "initdb").touch()
    monkeypatch.setattr(demo_module, "usable_bin_dir", lambda folder: folder)
    assert bin_dir_for(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("packaged", "machine", "used"), [(Path("/p"), Path("/m"), Path("/p")), (None, Path("/m"), Path("/m")), (None, None, None)]
)
def test_else_the_one_from_pypi_else_the_machines(
    packaged: Path | None, machine: Path | None, used: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "pypi_bin_dir", lambda: packaged)
    monkeypatch.setattr(demo_module, "find_bin_dir", lambda: machine)
    monkeypatch.setattr(demo_module, "usable_bin_dir", lambda folder: folder)
    if used is not None:
        assert bin_dir_for(None) == used
        return
    with pytest.raises(UsageError, match="no Postgres found: pip install"):
        bin_dir_for(None)


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "agent", "demo", "--pg-bin", str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (
        64,
        "",
        f"quorate: --pg-bin {tmp_path}: there is no initdb in that folder\n",
    )


# ---------------------------------------------------------------------------------------------------- what it says


def test_the_object_that_it_ends_with() -> None:
    assert json.loads(RESULT.to_json()) == {
        "outage_ms": 612.3,
        "acknowledged": 1000,
        "lost": 0,
        "rejoined": True,
        "steps": [{"step": "detected", "at_ms": 3.1}, {"step": "promoted", "at_ms": 480.0}],
    }


def test_progress_never_gets_between_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    say("… one moment")
    demo_module._report(RESULT, "json")
    out, err = capsys.readouterr()
    assert (out, err) == (RESULT.to_json() + "\n", "… one moment\n")
    demo_module._report(RESULT, "table")
    assert capsys.readouterr().out.splitlines() == [
        "outage            612 ms, as the client saw it",
        "rows acknowledged 1000",
        "rows lost         0",
    ]


def test_a_step_is_a_line_with_its_time_after_the_kill() -> None:
    timeline = Timeline(killed_s=100)
    fenced = Happened(Step.FENCED, "pg1", 100.0123, "no process is left")
    timeline.add(fenced)
    assert demo_module._line(timeline, fenced) == "      fenced     12.3 ms  pg1  no process is left"


# ---------------------------------------------------------------------------------------------------- how it goes


class StandInCluster:
    """A cluster in which everything happens as told, without a server."""

    def __init__(self, options: ClusterOptions, progress: Callable[[str], None]) -> None:
        self.options = options
        self.api = dict.fromkeys(MEMBERS, "127.0.0.1:1")
        self.told = ["taken up"]
        self.error: Exception | None = None
        self.config_file = Path("/x.yaml")
        progress("made")
        clusters.append(self)

    async def prepare(self) -> None:
        self.told.append("prepared")
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()

    def last_words(self) -> str:
        return "pg1: its last words"

    def kill_service(self, name: str) -> None:
        self.told.append(f"killed {name}")

    async def take_down(self) -> None:
        self.told.append("taken down")


clusters: list[StandInCluster] = []


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    clusters.clear()
    monkeypatch.setattr(demo_module, "Cluster", StandInCluster)
    monkeypatch.setattr(demo_module, "bin_dir_for", lambda named: named)


@pytest.mark.usefixtures("stand_in")
async def test_what_goes_wrong_is_told_with_the_agents_last_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(StandInCluster):
        async def prepare(self) -> None:
            self.error = QuorateError("initdb failed")
            await super().prepare()

    monkeypatch.setattr(demo_module, "Cluster", Failing)
    with pytest.raises(QuorateError, match="initdb failed"):
        await demo(Path("/bin"), watch=False, output="table")
    assert clusters[0].told == ["taken up", "prepared", "taken down"]
    assert clusters[0].options.bin_dir == Path("/bin")
    assert capsys.readouterr().err.splitlines() == ["… made", "pg1: its last words"]


@pytest.mark.usefixtures("stand_in")
async def test_whoever_interrupts_it_leaves_nothing_behind() -> None:
    running = asyncio.create_task(demo(None, watch=False, output="table"))
    await asyncio.sleep(0.0)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert clusters[0].told[-1] == "taken down"


INTERRUPTED = """
import asyncio, os, signal, sys
from agent.cli.main import run
from agent.demo import demo as module

async def fake(pg_bin, *, watch, output):
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        await asyncio.wait_for(asyncio.Event().wait(), 20)
    finally:
        print("taken down")

module.demo = fake
sys.exit(run(["demo"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    program = [sys.executable, "-c", INTERRUPTED, str(int(number))]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "taken down\n", "")


@pytest.mark.parametrize(("lost", "rejoined", "code"), [(0, True, 0), (1, True, 1), (0, False, 1)])
def test_only_a_whole_success_is_one(lost: int, rejoined: bool, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fake(_pg_bin: Path | None, *, watch: bool, output: str) -> DemoResult:
        assert (watch, output) == (False, "json")
        return DemoResult(1.0, 1, lost, rejoined, ())

    monkeypatch.setattr(demo_module, "demo", fake)
    assert run(None, watch=False, output="json") == code


# ---------------------------------------------------------------------------------------------------- the failover


class Rows:
    """A writer whose ledger a test writes."""

    def __init__(self) -> None:
        self.writer = Writer("", 1.0, SystemClock())
        self.missing_rows: tuple[int, ...] = ()

    def acknowledge(self, *at_s: float) -> None:
        for moment in at_s:
            self.writer.ledger.acknowledged[len(self.writer.ledger.acknowledged) + 1] = moment


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    for name in ("WARM_UP_S", "AFTERWARDS_S"):
        monkeypatch.setattr(demo_module, name, 0.0)
    monkeypatch.setattr(demo_module, "FAILOVER_TIMEOUT_S", 0.1)
    one = Rows()

    async def missing() -> tuple[int, ...]:
        return one.missing_rows

    one.writer.missing = missing  # type: ignore[method-assign]
    return one


def fail_over(rows: Rows, timeline: Timeline) -> asyncio.Task[DemoResult]:
    cluster = cast("Cluster", StandInCluster(ClusterOptions(), lambda _: None))
    return asyncio.create_task(demo_module._fail_over(cluster, "pg1", rows.writer, timeline))


async def test_without_a_row_before_the_kill_there_is_nothing_to_see(rows: Rows) -> None:
    with pytest.raises(DemoFailed, match="could not write a single row before the kill"):
        await fail_over(rows, Timeline())
    assert "killed pg1" not in clusters[-1].told


async def test_without_a_promotion_it_says_so(rows: Rows) -> None:
    rows.acknowledge(rows.writer.now_s() - 1)
    with pytest.raises(DemoFailed, match="no standby was promoted within"):
        await fail_over(rows, Timeline())
    assert clusters[-1].told[-1] == "killed pg1"


@pytest.mark.parametrize(("rejoined", "missing"), [(True, ()), (False, (7, 9))])
async def test_what_happened_is_the_result(rows: Rows, rejoined: bool, missing: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    rows.missing_rows = missing

    async def streaming(_api: object, node: str, _within_s: float) -> bool:
        assert node == "pg1"
        return rejoined

    monkeypatch.setattr(client, "wait_until_streaming", streaming)
    rows.acknowledge(rows.writer.now_s() - 1)
    timeline = Timeline()
    monkeypatch.setattr(demo_module, "FAILOVER_TIMEOUT_S", 5.0)
    running = fail_over(rows, timeline)
    await eventually_async(lambda: timeline.killed_s != float("inf"), 5)
    killed_s = timeline.killed_s
    timeline.add(Happened(Step.ELECTED, "pg2", killed_s + 0.3, "x"))
    timeline.add(Happened(Step.PROMOTED, "pg2", killed_s + 0.4, "x"))
    rows.acknowledge(killed_s + 0.001, killed_s + 0.5, killed_s + 0.52)
    result = await running
    assert (result.acknowledged, result.lost, result.rejoined) == (4, len(missing), rejoined)
    assert result.outage_ms == pytest.approx(1000, abs=100), "the longest silence that ended after the kill"
    steps = dict(result.steps)
    assert steps["first_write"] == pytest.approx(500), "not the row of the dying primary"
    assert list(steps)[:3] == ["elected", "promoted", "first_write"]
    assert ("rejoined" in steps) is rejoined


async def test_a_client_that_cannot_write_again_is_a_failure(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.acknowledge(rows.writer.now_s() - 1)
    monkeypatch.setattr(demo_module, "FAILOVER_TIMEOUT_S", 0.5)
    timeline = Timeline()
    running = fail_over(rows, timeline)
    await eventually_async(lambda: timeline.killed_s != float("inf"), 5)
    timeline.add(Happened(Step.PROMOTED, "pg2", timeline.killed_s + 0.4, "x"))
    with pytest.raises(DemoFailed, match="could not write again after the promotion"):
        await running
