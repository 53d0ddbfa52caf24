from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision.votes import may_call_down, own_vote, wants_withdrawal
from tests.scenarios.building import context
from tests.scenarios.words import merge

STILL: Mapping[str, Any] = {"lease": {"moved": "3s ago"}, "observation": {"writable": False, "since": "3s ago"}}


@pytest.mark.parametrize(
    ("change", "may"),
    [
        ({}, True),
        ({"lease": {"moved": "2.4s ago"}}, False),
        ({"lease": {"moved": "0s ago"}, "observation": {"since": "10s ago"}}, True),
        ({"lease": {"key": "absent"}}, False),
        ({"lease": {"key": "unreadable"}}, False),
        ({"lease": {"state": "vacated"}}, False),
        ({"observation": {"writable": True}}, False),
        ({"observation": {"writable": "unknown"}}, False),
        ({"observation": {"asked": "3.1s ago"}}, False),
        ({"observation": {"node": "pg3"}}, False),
        ({"observation": "none"}, False),
        ({"votes": {"pg2": "down"}}, False),
        ({"votes": {"pg2": "up"}}, True),
        ({"votes": {"pg2": {"epoch": 6}}}, True),
        ({"answered": "4s ago"}, False),
        ({"went_back": True}, False),
        ({"node": "edge9"}, False),
        ({"node": "pg1", "observation": {"node": "pg1"}}, False),
    ],
)
def test_down_is_called_only_on_a_fresh_look_and_a_lease_that_stands_still(change: Mapping[str, Any], may: bool) -> None:
    assert may_call_down(context(merge(STILL, change))) is may


@pytest.mark.parametrize(
    ("change", "wants"),
    [
        ({}, False),
        ({"votes": {"pg2": "up"}}, False),
        ({"votes": {"pg2": {"epoch": 6}}}, False),
        ({"lease": {"moved": "0.1s ago"}}, True),
        ({"observation": {"writable": True}}, True),
        ({"lease": {"moved": "0.1s ago"}, "answered": "4s ago"}, False),
    ],
)
def test_down_is_taken_back_when_its_ground_is_gone(change: Mapping[str, Any], wants: bool) -> None:
    assert wants_withdrawal(context(merge({**STILL, "votes": {"pg2": "down"}}, change))) is wants


def test_the_own_vote_is_found_whatever_its_epoch() -> None:
    assert own_vote(context()) is None
    found = own_vote(context({"votes": {"pg2": {"epoch": 6}}}))
    assert found is not None
    assert found.epoch == 6
