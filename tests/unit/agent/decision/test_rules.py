from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision.command import Command
from agent.decision.rules import TABLE, Concern
from tests.scenarios.building import context
from tests.scenarios.reading import load_all, play

BY_NAME = {rule.name: rule for rule in TABLE}


def test_names_are_said_once_and_every_row_has_a_sentence() -> None:
    assert len(BY_NAME) == len(TABLE)
    assert all(rule.sentence.endswith(".") for rule in TABLE)


@pytest.mark.parametrize("concern", [c for c in Concern if c is not Concern.LEASE])
def test_a_busy_row_goes_before_all_that_is_not_a_fence(concern: Concern) -> None:
    rows = [rule.name for rule in TABLE if rule.concern is concern]
    busy = rows.index(f"{concern.value}-busy")
    assert all("fence" in name or name in ("adopt-unformed", "routes-drop") for name in rows[:busy])


def test_a_frozen_lease_goes_before_everything() -> None:
    assert [rule.name for rule in TABLE if rule.concern is Concern.LEASE][:2] == ["lease-frozen", "lease-busy"]


def test_every_row_holds_somewhere_in_the_scenarios() -> None:
    held = {rule.name for scenario in load_all() for _, decision in play(scenario) for rule in decision.rules}
    assert held == set(BY_NAME)


@pytest.mark.parametrize(
    ("rule", "given", "commands"),
    [
        ("fence-failed-promotion", {"node": "pg1", "service": {"state": "standby"}, "fences": {"standing": []}}, ["FenceService"]),
        ("restart-in-place", {"node": "pg1", "service": {"state": "down"}}, ["StartService"]),
        ("stop-receiving", {}, ["StopReceiving"]),
        ("seal", {}, ["SealService"]),
        ("start", {}, ["StartService"]),
        ("give-word", {}, ["GiveWord"]),
        ("service-busy", {}, []),
    ],
)
def test_what_a_row_orders(rule: str, given: Mapping[str, Any], commands: list[str]) -> None:
    ordered: tuple[Command, ...] = BY_NAME[rule].commands(context(given))
    assert [type(c).__name__ for c in ordered] == commands


@pytest.mark.parametrize(
    ("rule", "given", "holds"),
    [
        ("lease-frozen", {"went_back": True}, True),
        ("lease-busy", {"in_flight": ["RenewLease"]}, True),
        ("lease-busy", {}, False),
        ("give-up", {"node": "pg1", "service": {"state": "down", "since": "9s ago"}, "outcomes": {"FenceService": {}}}, True),
        ("give-up", {"node": "pg1"}, False),
        ("fence-late", {"node": "pg1", "tenure": {"sent": "9s ago"}}, True),
        ("fence-stray", {"service": {"state": "primary"}}, True),
        ("fence-stray", {"service": {"state": "primary"}, "lease": "none"}, False),
        ("service-busy", {"in_flight": ["StartService"]}, True),
        ("settings-busy", {"in_flight": ["SetSyncNames"]}, True),
        ("vote-busy", {"in_flight": ["CastVote"]}, True),
        ("vote-busy", {"lags": True}, True),
        ("call-down", {"lease": {"moved": "3s ago"}, "observation": {"writable": False}}, True),
        ("withdraw-vote", {"votes": {"pg2": "down"}}, True),
        ("intent-busy", {"in_flight": ["FinishIntent"]}, True),
        ("intent-busy", {"lags": True}, True),
        ("finish-intent", {"node": "pg1", "intents": [{"kind": "resume"}]}, True),
        ("finish-intent", {"node": "pg1", "intents": [{"kind": "resume"}], "went_back": True}, False),
    ],
)
def test_when_a_row_holds(rule: str, given: Mapping[str, Any], holds: bool) -> None:
    assert bool(BY_NAME[rule].holds(context(given))) is holds
