from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision.explain import Outlook, outlook
from tests.scenarios.building import context


def test_a_healthy_group_could_fail_over() -> None:
    assert outlook(context()) == Outlook(possible=True, heirs=("pg2", "pg3"), blocking=(), rejected=(("pg1", "it is the leader"),))


def test_without_a_record_nothing_can_be_said() -> None:
    assert outlook(context({"lease": "none"})) == Outlook(possible=False, heirs=(), blocking=("there is no readable lease",), rejected=())


@pytest.mark.parametrize(
    ("given", "blocking"),
    [
        ({"answered": "4s ago"}, "the coordinator does not answer this node"),
        ({"went_back": True}, "coordination went back in time: a person has to look"),
        ({"lease": {"paused": True}}, "the group is paused"),
        ({"lease": {"sync_set": []}}, "no member could take over"),
        ({"members": {"pg3": {"heard": "4s ago"}}}, "only 1 voters besides the leader are heard; 2 votes are needed"),
    ],
)
def test_what_blocks_is_said(given: Mapping[str, Any], blocking: str) -> None:
    found = outlook(context(given))
    assert not found.possible
    assert blocking in found.blocking


def test_who_is_too_far_behind_is_no_heir() -> None:
    found = outlook(context({"members": {"pg3": {"position": [3, 100]}}}))
    assert found.heirs == ("pg2",)
    assert ("pg3", "it is 4900 bytes behind the last known position; max_lag is 1000") in found.rejected
