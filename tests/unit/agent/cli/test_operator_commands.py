from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from agent.cli import operator_commands
from agent.decision.command import IntentOutcome
from agent.decision.view import IntentKind
from tests.unit.agent.cli.conftest import Run
from tests.unit.agent.web.face import Face


class Terminal(io.StringIO):
    """Standard input with a person at it."""

    def isatty(self) -> bool:
        return True


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))


def test_a_switchover_is_recorded_and_followed_to_its_end(quorate: Run, config: Path, face: Face) -> None:
    ran = quorate("switchover", "pg-main", "--to", "pg2", "--reason", "kernel update", "--config", config, "--node", "pg1")
    assert (ran.code, ran.out) == (0, "done: pg2 leads\n")
    assert "switchover of pg-main is recorded at pg1 as i1" in ran.err
    (intent,) = face.intents.values()
    assert (intent.kind, intent.node, intent.why) == (IntentKind.SWITCHOVER, "pg2", "kernel update")
    assert "@" in intent.who


@pytest.mark.parametrize("kind", ["pause", "resume"])
def test_pause_and_resume(kind: str, quorate: Run, config: Path, face: Face) -> None:
    assert quorate(kind, "pg-main", "--config", config).code == 0
    assert [i.kind.value for i in face.intents.values()] == [kind]


@pytest.mark.parametrize("outcome", [IntentOutcome.REFUSED, IntentOutcome.EXPIRED])
def test_refused_is_a_no(outcome: IntentOutcome, quorate: Run, config: Path, face: Face) -> None:
    face.ends_as = (outcome, "the group is paused: resume it first")
    ran = quorate("switchover", "pg-main", "--config", config)
    assert (ran.code, ran.out) == (1, f"{outcome.value}: the group is paused: resume it first\n")
    told = json.loads(quorate("switchover", "pg-main", "--config", config, "--output", "json").out)
    assert (told["outcome"], told["identity"], told["kind"]) == (outcome.value, "i2", "switchover")


def test_progress_is_shown_while_it_waits(quorate: Run, config: Path, face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    face.ends_as = None
    polls: list[float] = []

    def poll(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 2:
            identity, intent = next(iter(face.intents.items()))
            face.intents[identity] = type(intent)(intent.kind, None, 3, intent.who, intent.why, 0.0, IntentOutcome.DONE, "pg2 leads")

    monkeypatch.setattr(operator_commands.time, "sleep", poll)
    ran = quorate("switchover", "pg-main", "--config", config)
    assert (ran.code, ran.out, len(polls)) == (0, "done: pg2 leads\n", 2)
    assert ran.err.count("leader pg1, epoch 3: leading") == 1, "each change once"


def test_waiting_has_an_end(quorate: Run, config: Path, face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    face.ends_as = None
    monkeypatch.setattr(operator_commands, "WAIT_S", 0.5)
    ran = quorate("pause", "pg-main", "--config", config)
    assert ran.code == 3
    assert "has not ended" in ran.err


def test_not_waiting(quorate: Run, config: Path, face: Face) -> None:
    face.ends_as = None
    ran = quorate("pause", "pg-main", "--no-wait", "--config", config)
    assert (ran.code, ran.out) == (0, "recorded\n")


def test_a_person_is_asked(quorate: Run, config: Path, face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    at_a_terminal(monkeypatch, "n\n")
    ran = quorate("switchover", "pg-main", "--config", config)
    assert (ran.code, ran.out) == (1, "")
    assert "Switch pg-main over to the best other member?" in ran.err
    assert "nothing was done" in ran.err
    assert not face.intents
    at_a_terminal(monkeypatch, "y\n")
    assert quorate("switchover", "pg-main", "--config", config).code == 0
    at_a_terminal(monkeypatch, "")
    assert quorate("pause", "pg-main", "--yes", "--config", config).code == 0
    assert quorate("resume", "pg-main", "--config", config).code == 0


def test_a_person_who_leaves_is_no_yes(quorate: Run, config: Path, face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    at_a_terminal(monkeypatch, "")
    assert quorate("pause", "pg-main", "--config", config).code == 130
    assert not face.intents


def test_only_a_member_can_lead(quorate: Run, config: Path, face: Face) -> None:
    ran = quorate("switchover", "pg-main", "--to", "pg3", "--config", config)
    assert ran.code == 64
    assert "--to pg3: no member of pg-main" in ran.err
    assert not face.intents


def test_who_is_the_person_behind_sudo(quorate: Run, config: Path, face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    quorate("pause", "pg-main", "--config", config)
    assert next(iter(face.intents.values())).who.startswith("anna@")
