from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision.succession import chosen, first_sync_names, first_to_form, turn_comes_at
from tests.scenarios.building import context
from tests.scenarios.pieces import START
from tests.scenarios.words import merge

WORDS = {"pg1": {"position": [3, 10]}, "pg2": {"position": [3, 20]}, "pg3": {"position": "none"}}
STOPPED = {"stopped_for_epoch": 7, "upstream": "none"}
VACANT: Mapping[str, Any] = {"lease": {"state": "vacated", "moved": "0s ago"}, "service": STOPPED, "members": {"pg3": STOPPED}}


@pytest.mark.parametrize(
    ("node", "words", "members", "first"),
    [
        ("pg2", WORDS, None, True),
        ("pg1", WORDS, None, False),
        ("edge1", WORDS, None, False),
        ("pg2", {"pg1": {}, "pg2": {"position": [3, 9000]}}, None, False),
        ("pg2", {**WORDS, "pg1": {"position": [3, 10], "system_identifier": "other"}}, None, False),
        ("pg2", {n: {"position": "none"} for n in WORDS}, None, False),
        ("pg1", WORDS, {"pg1": {}, "pg2": {"nofailover": True}, "pg3": {}}, True),
        ("pg1", WORDS, {"pg1": {}, "pg2": {"priority": 0}, "pg3": {}}, True),
        ("pg1", {"pg1": {}, "pg2": {}, "pg3": {}}, None, True),
    ],
)
def test_the_best_one_forms_when_every_word_is_there(
    node: str, words: Mapping[str, Any], members: Mapping[str, Any] | None, first: bool
) -> None:
    group = {"witnesses": ["edge1"], **({} if members is None else {"members": members})}
    assert first_to_form(context({"node": node, "lease": "none", "group": group, "words": words})) is first


def turn_s(change: Mapping[str, Any]) -> float | None:
    turn = turn_comes_at(context(merge(VACANT, change)))
    return None if turn is None else round((turn.boot_ns - START.boot_ns) / 1e9, 3)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({}, 0.0),
        ({"node": "pg3", "members": {"pg2": STOPPED}}, 0.5),
        ({"members": {"pg3": {"stopped_for_epoch": 6}}}, 0.3),
        ({"service": {"stopped_for_epoch": None}}, None),
        ({"lease": {"state": "held"}}, None),
        ({"lease": {"key": "absent"}}, None),
        ({"lease": {"heir": "pg2", "final_position": [3, 5000]}}, 0.0),
        ({"lease": {"heir": "pg2"}}, 0.0),
        ({"lease": {"heir": "pg2", "final_position": [3, 5001]}}, 5.611),
        ({"lease": {"heir": "pg3", "final_position": [3, 5000]}}, 5.611),
        ({"node": "pg3", "members": {"pg2": STOPPED}, "lease": {"heir": "pg2", "final_position": [3, 5000]}}, 6.111),
    ],
)
def test_when_the_turn_of_this_node_comes(change: Mapping[str, Any], seconds: float | None) -> None:
    assert turn_s(change) == seconds


def test_chosen_is_who_is_in_the_order_and_whose_turn_has_come() -> None:
    assert chosen(context(VACANT))
    assert not chosen(context(merge(VACANT, {"node": "pg3", "members": {"pg2": STOPPED}})))
    assert not chosen(context(merge(VACANT, {"service": {"stopped_for_epoch": None}})))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"group": {"durability": "async"}, "lease": {"sync_set": None}}, None),
        ({}, ("pg2",)),
        ({"members": {"pg3": {"position": [3, 5001]}}}, ("pg3",)),
        ({"members": {"pg2": {"heard": "4s ago"}}}, ("pg3",)),
        ({"members": {"pg2": {"state": "down"}, "pg3": {"position": "none"}}}, ("pg3",)),
        ({"members": {"pg2": "none", "pg3": "none"}}, ()),
        ({"group": {"members": {"pg1": {}, "pg2": {"priority": 0}, "pg3": {"nofailover": True}}}}, ()),
        ({"lease": {"sync_set": ["pg3"]}}, ("pg3",)),
        ({"tenure": {"attempts": [{"sync_set": ["pg3"]}]}}, ("pg3",)),
    ],
)
def test_whom_the_first_commits_wait_for(change: Mapping[str, Any], names: tuple[str, ...] | None) -> None:
    base = {
        "node": "pg1",
        "group": {"durability": "sync", "witnesses": ["edge1"]},
        "lease": {"sync_set": []},
        "service": {"state": "standby"},
    }
    assert first_sync_names(context(merge(base, change))) == names


def test_while_an_heir_is_waited_for_the_others_positions_had_time_enough() -> None:
    """The gathering counts from the vacancy itself; else a second wait, with a bound that no timer knows, would follow the first."""
    waited = {
        "node": "pg3",
        "members": {"pg2": {"upstream": "none"}},
        "lease": {"moved": "5.7s ago", "heir": "pg2", "final_position": [3, 9000]},
    }
    assert turn_s(waited) == -0.089
