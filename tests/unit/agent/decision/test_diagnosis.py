from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision.diagnosis import Situation, diagnose
from tests.scenarios.building import context

HOLDER = {"node": "pg1"}


@pytest.mark.parametrize(
    ("given", "situation"),
    [
        ({**HOLDER, "tenure": {"sent": "6s ago"}, "went_back": True}, Situation.LATE),
        ({**HOLDER, "tenure": {"sent": "6s ago"}, "service": {"state": "standby"}}, Situation.PROMOTING),
        ({"went_back": True, "service": {"state": "primary"}}, Situation.WENT_BACK),
        ({"service": {"state": "primary"}, "answered": "never"}, Situation.STRAY_PRIMARY),
        ({"answered": "never"}, Situation.BLIND),
        ({**HOLDER, "answered": "never"}, Situation.LEADING),
        ({**HOLDER, "service": {"state": "down"}}, Situation.CRASHED),
        ({**HOLDER, "service": {"state": "crashed"}}, Situation.CRASHED),
        ({"service": {"state": "crashed"}}, Situation.REJOINING),
        ({**HOLDER, "service": {"state": "hung"}}, Situation.HUNG),
        ({**HOLDER, "fences": {"standing": []}}, Situation.UNFENCED),
        ({**HOLDER, "fences": {"standing": []}, "lease": {"paused": True}}, Situation.PAUSED),
        ({**HOLDER, "intents": [{"kind": "switchover"}]}, Situation.STEPPING_DOWN),
        ({**HOLDER, "service": {"state": "starting"}}, Situation.PROMOTING),
        ({"lease": {"paused": True}}, Situation.PAUSED),
        (HOLDER, Situation.LEADING),
        ({"lease": {"key": "unreadable"}}, Situation.UNREADABLE),
        ({"lease": "none"}, Situation.UNFORMED),
        ({"lease": {"key": "absent"}}, Situation.KEY_LOST),
        ({"lease": {"state": "vacated"}}, Situation.VACANT),
        ({"lease": {"state": "vacated", "debt": [6, "pg3", 5.0]}}, Situation.VACANT),
        ({"lease": {"moved": "5.7s ago"}}, Situation.EXPIRED),
        ({"lease": {"moved": "2.5s ago"}}, Situation.SILENT),
        ({"node": "edge1", "group": {"witnesses": ["edge1"]}}, Situation.WITNESSING),
        ({}, Situation.FOLLOWING),
        ({"service": {"upstream": "pg3"}}, Situation.REJOINING),
        ({**HOLDER, "tenure": "none", "service": {"state": "standby"}}, Situation.REJOINING),
    ],
)
def test_the_first_name_that_fits(given: Mapping[str, Any], situation: Situation) -> None:
    assert diagnose(context(given)) is situation
