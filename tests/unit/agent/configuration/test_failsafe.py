from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.configuration.failsafe import NO_KEY, cautions, failsafe_absence, judge_failsafe
from agent.configuration.model import Configuration

KEY = {"peer_key_file": "/etc/quorate/peer.key"}


def configuration(
    lease: dict[str, Any] | None = None, *, api: dict[str, Any] | None = None, members: str = "abc", local: bool = False
) -> Configuration:
    where = {"local": {"path": "/var/lib/quorate/c.sqlite"}} if local else {"consul": {}}
    group = {"engine": "postgres", "members": {name: {} for name in members}, "lease": lease or {}}
    nodes = {name: {"api": f"192.0.2.{number}:8480"} for number, name in enumerate(members, start=1)}
    return Configuration.model_validate({"coordination": where, "api": api or {}, "nodes": nodes, "groups": {"pg": group}})


@pytest.mark.parametrize(
    ("given", "absence"),
    [
        (configuration(api=KEY), ""),
        (configuration(), NO_KEY),
        (configuration({"failsafe": False}, api=KEY), "it is switched off"),
        (configuration(members="a"), ""),
    ],
)
def test_whether_the_holder_asks(given: Configuration, absence: str) -> None:
    assert failsafe_absence(given, "pg") == absence


def test_what_was_asked_for_in_so_many_words_and_cannot_be_is_a_mistake() -> None:
    (problem,) = judge_failsafe(configuration({"failsafe": True}))
    assert (problem.path, problem.sentence) == (("groups", "pg", "lease", "failsafe"), NO_KEY)
    assert list(judge_failsafe(configuration({"failsafe": True}, api=KEY))) == []
    assert list(judge_failsafe(configuration())) == []
    assert list(judge_failsafe(configuration({"failsafe": True}, local=True))) == []


def test_the_default_without_a_key_is_a_caution_where_a_coordinator_can_be_away() -> None:
    (caution,) = cautions(configuration())
    assert caution.startswith("group pg: failsafe is off")
    assert cautions(configuration(api=KEY)) == cautions(configuration(local=True)) == cautions(configuration({"failsafe": False})) == ()


def test_a_key_file_is_a_path() -> None:
    assert configuration(api=KEY).api.peer_key_file == Path("/etc/quorate/peer.key")
