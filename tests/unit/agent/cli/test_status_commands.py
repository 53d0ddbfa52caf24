from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.cli import status_commands
from agent.cli.status_commands import explain_lines
from agent.reporting.explanation import Explanation, RuleHeld
from agent.reporting.status import from_json
from tests.unit.agent.cli.conftest import Run, running, write_config
from tests.unit.agent.reporting.samples import document
from tests.unit.agent.web.face import Face


def test_status_for_people_and_for_programs(quorate: Run, config: Path) -> None:
    ran = quorate("status", "--config", config, "--node", "pg1")
    assert (ran.code, ran.err) == (0, "")
    assert "leader pg1, epoch 3" in ran.out
    assert from_json(quorate("status", "--config", config, "--node", "pg1", "--output", "json").out) == document()
    assert json.loads(quorate("status", "pg-main", "--config", config, "--output", "json").out)["name"] == "pg-main"


def test_another_node_answers_for_a_dead_one(quorate: Run, config: Path) -> None:
    assert quorate("status", "--config", config, "--node", "pg2").code == 0


def test_a_group_is_asked_of_a_node_that_knows_it(quorate: Run, tmp_path: Path, closed_port: int) -> None:
    bare = Face(document=replace(document(), node="bare", groups=()))
    with running(bare) as one, running(Face()) as two:
        file = write_config(tmp_path, one, two, closed_port)
        assert "node pg1" in quorate("status", "pg-main", "--config", file, "--node", "pg1").out
        assert "node bare" in quorate("status", "--config", file, "--node", "pg1").out


@pytest.mark.parametrize("command", [["status"], ["explain", "pg-main"], ["history"], ["pause", "pg-main", "--yes"]])
def test_nobody_reachable(command: list[str], quorate: Run, dead_config: Path) -> None:
    ran = quorate(*command, "--config", dead_config)
    assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1)
    assert "no agent answers (pg1: Connection refused; pg2: Connection refused)" in ran.err


@pytest.mark.parametrize("command", ["status", "explain", "history", "switchover", "pause", "resume"])
def test_no_such_group(command: str, quorate: Run, config: Path) -> None:
    ran = quorate(command, "pg-mian", "--config", config)
    assert (ran.code, ran.out) == (64, "")
    assert "pg-main" in ran.err


def test_an_agent_of_another_version(quorate: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Face, "explain", lambda *_: {"weather": "fine"})
    ran = quorate("explain", "pg-main", "--config", config, "--node", "pg1")
    assert (ran.code, ran.err) == (3, "quorate: pg1 answered something that this version cannot read\n")


def test_watching_shows_it_again_until_it_is_interrupted(quorate: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(status_commands.time, "sleep", pause)
    ran = quorate("status", "--watch", "--config", config, "--node", "pg1", "--output", "json")
    assert (ran.code, pauses) == (130, [1.0] * 3)
    assert [from_json(line) for line in ran.out.splitlines()] == [document()] * 3


def test_watching_goes_on_when_nobody_answers(quorate: Run, dead_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status_commands.time, "sleep", stop)
    ran = quorate("status", "--watch", "--config", dead_config)
    assert ran.code == 130
    assert "no agent answers" in ran.err


# ------------------------------------------------------------------ explain


EXPLANATION = Explanation("pg-main", "pg1", "leading", (RuleHeld("lease", "renew", "Renew when it is due."),), True, ("pg2", "pg3"), (), ())  # noqa: FBT003


def test_explain(quorate: Run, config: Path, face: Face) -> None:
    face.explanation = EXPLANATION
    ran = quorate("explain", "pg-main", "--config", config, "--node", "pg1")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "pg-main as pg1 sees it: leading",
        "Rules that hold now:",
        "  renew (lease): Renew when it is due.",
        "If the leader died this second, pg2 would take over, else pg3.",
    ]
    face.explanation = replace(EXPLANATION, waiting="commits wait for pg2")
    assert "Now commits wait for pg2." in quorate("explain", "pg-main", "--config", config, "--node", "pg1").out.splitlines()
    told = json.loads(quorate("explain", "pg-main", "--config", config, "--node", "pg1", "--output", "json").out)
    assert told["heirs"] == ["pg2", "pg3"]


def test_explain_what_would_block() -> None:
    lines = explain_lines(
        replace(
            EXPLANATION, failover_possible=False, heirs=(), blocking=("the group is paused",), rejected=(("pg2", "it is too far behind"),)
        )
    )
    assert lines[-4:] == [
        "If the leader died this second, nobody would take over:",
        "  the group is paused",
        "Who could not:",
        "  pg2: it is too far behind",
    ]


# ------------------------------------------------------------------ history


def test_history(quorate: Run, config: Path) -> None:
    ran = quorate("history", "pg-main", "--config", config)
    assert ran.code == 0
    last = ran.out.splitlines()[-1].split()
    assert last[:5] == ["pg-main", "2", "pg2", "pg1", "crashed"]
    assert "1970-01-01 00:00:50" in ran.out
    told = json.loads(quorate("history", "--config", config, "--output", "json").out)
    assert [e["epoch"] for e in told["history"]["pg-main"]] == [1, 2]


def test_a_history_that_is_verified(quorate: Run, config: Path, face: Face) -> None:
    good = quorate("history", "--verify", "--config", config)
    assert (good.code, good.out.splitlines()[-1]) == (0, "nothing in it contradicts itself")
    face.entries = (face.entries[1], face.entries[0])
    bad = quorate("history", "--verify", "--config", config, "--output", "json")
    assert bad.code == 1
    assert json.loads(bad.out)["contradictions"] == ["pg-main: epoch 1 follows epoch 2: epochs only grow"]
    assert "epochs only grow" in bad.err
