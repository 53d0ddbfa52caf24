from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision.engines.base import Rejoin
from agent.decision.engines.postgres import PostgresEngine
from tests.scenarios.building import context
from tests.scenarios.words import merge

ENGINE = PostgresEngine()


@pytest.mark.parametrize(
    ("change", "rejoin"),
    [
        ({}, Rejoin.FOLLOW),
        ({"service": {"position": [2, 3000]}}, Rejoin.FOLLOW),
        ({"service": {"position": [2, 3001]}}, Rejoin.REWIND),
        ({"service": {"position": [4, 3000]}}, Rejoin.REWIND),
        ({"service": {"history": [[1, 1000], [2, 2999]]}}, Rejoin.COPY),
        ({"service": {"history": []}}, Rejoin.FOLLOW),
        ({"members": {"pg1": {"history": []}}}, Rejoin.FOLLOW),
        ({"service": {"own_timelines": [[6, 3]]}}, Rejoin.COPY),
        ({"service": {"own_timelines": [[6, 3]]}, "members": {"pg1": {"state": "standby"}}}, Rejoin.WAIT),
        ({"service": {"own_timelines": [[6, 2]]}}, Rejoin.FOLLOW),
        ({"service": {"own_timelines": [[6, 9]], "position": [9, 1]}}, Rejoin.REWIND),
        ({"service": {"initialised": False}}, Rejoin.COPY),
        ({"service": {"initialised": False}, "members": {"pg1": {"state": "standby"}}}, Rejoin.WAIT),
        ({"service": {"position": "none"}}, Rejoin.WAIT),
        ({"members": {"pg1": {"position": "none"}}}, Rejoin.WAIT),
        ({"members": {"pg1": {"system_identifier": "other"}}}, Rejoin.WAIT),
        ({"members": {"pg1": {"system_identifier": None}}}, Rejoin.FOLLOW),
        ({"service": {"system_identifier": None}}, Rejoin.FOLLOW),
        ({"members": {"pg1": {"state": "down"}}}, Rejoin.WAIT),
        ({"members": {"pg1": {"state": "standby"}}}, Rejoin.FOLLOW),
        ({"members": {"pg1": {"state": "standby"}}, "service": {"position": [3, 5001]}}, Rejoin.WAIT),
        ({"members": {"pg1": {"state": "standby"}}, "service": {"position": [2, 100]}}, Rejoin.WAIT),
        ({"lease": {"promotions": [[7, "pg2", 3, 2, 3000]]}, "service": {"own_timelines": [[7, 3]]}}, Rejoin.FOLLOW),
    ],
)
def test_how_a_member_becomes_the_leaders_standby(change: Mapping[str, Any], rejoin: Rejoin) -> None:
    ctx = context(merge({"service": {"upstream": "none"}}, change))
    assert ctx.record is not None
    assert ctx.leader is not None
    assert ENGINE.rejoin(ctx.view.service, ctx.leader, ctx.record, "pg2") is rejoin


AHEAD = [8, "pg2", 4, 3, 0]
"""Reserved after the newest promotion that is known to have happened."""
LINE = [[3, "pg3", 2, 1, 1000], [7, "pg1", 3, 2, 3000]]


@pytest.mark.parametrize(
    ("member", "promotions", "sentence"),
    [
        ({}, LINE, ""),
        ({"position": [9, 9]}, [], ""),
        ({"position": "none"}, LINE, "its position is not known"),
        ({"system_identifier": "other"}, LINE, "its system identifier other is not the group's 7300000000000000001"),
        ({"position": [2, 3000]}, LINE, ""),
        ({"position": [2, 3001]}, LINE, "it went on after timeline 2 ended"),
        ({"position": [1, 1000]}, LINE, ""),
        ({"position": [1, 1001]}, LINE, "it went on after timeline 1 ended"),
        ({"position": [1, 900]}, [[3, "pg3", 2, 1, 1000], [7, "pg1", 3, 2, 800]], "it went on after timeline 1 ended"),
        ({"position": [4, 9]}, LINE, "timeline 4 is no ancestor of the group's timeline 3"),
        ({"position": [1, 9]}, [[7, "pg1", 3, 2, 3000]], "timeline 1 is no ancestor of the group's timeline 3"),
        ({"position": [1, 9]}, [[7, "pg1", 3, 2, 3000], [6, "pg1", 2, 3, 9]], "timeline 1 is no ancestor of the group's timeline 3"),
        ({"history": [[1, 1000], [2, 2999]]}, LINE, "its timeline 3 began elsewhere than the group's"),
        ({"history": []}, LINE, ""),
        ({"position": [4, 9], "history": [[2, 3000], [3, 4000]]}, [*LINE, AHEAD], ""),
        ({"position": [4, 9], "history": [[2, 2900]]}, [*LINE, AHEAD], ""),
        ({"position": [4, 9], "history": [[2, 3001]]}, [*LINE, AHEAD], "timeline 4 is no ancestor of the group's timeline 3"),
        ({"position": [4, 9], "history": [[8, 9]]}, [*LINE, AHEAD], "timeline 4 is no ancestor of the group's timeline 3"),
        ({"position": [4, 9], "history": []}, [*LINE, AHEAD], "timeline 4 is no ancestor of the group's timeline 3"),
        ({"position": [5, 9]}, [*LINE, AHEAD], "timeline 5 is no ancestor of the group's timeline 3"),
        ({"position": [4, 9]}, [[6, "pg2", 4, 3, 0], *LINE], "timeline 4 is no ancestor of the group's timeline 3"),
        ({"position": [9, 9]}, [AHEAD], ""),
    ],
)
def test_whose_history_is_part_of_the_groups(member: Mapping[str, Any], promotions: list[Any], sentence: str) -> None:
    ctx = context({"lease": {"promotions": promotions}, "members": {"pg3": member}})
    assert ctx.record is not None
    assert ENGINE.divergence(ctx.view.members["pg3"], ctx.record) == sentence


def test_a_record_that_names_no_cluster_takes_any() -> None:
    ctx = context({"lease": {"system_identifier": None}, "members": {"pg3": {"system_identifier": "other"}}})
    assert ctx.record is not None
    assert ENGINE.divergence(ctx.view.members["pg3"], ctx.record) == ""
