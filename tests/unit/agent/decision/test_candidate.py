from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision import candidate
from agent.decision.candidate import Ranking
from agent.decision.context import Context
from tests.scenarios.building import context
from tests.scenarios.words import merge

STOPPED = {"stopped_for_epoch": 7, "upstream": "none"}
VACANT: Mapping[str, Any] = {"lease": {"state": "vacated"}, "service": STOPPED, "members": {"pg3": STOPPED}}


def ranked(change: Mapping[str, Any]) -> Ranking:
    return context(merge(VACANT, change)).ranking


def test_equal_positions_are_ordered_by_priority() -> None:
    assert ranked({}).order == ("pg2", "pg3")


def test_equal_in_everything_are_ordered_by_name() -> None:
    assert ranked({"group": {"members": {"pg1": {}, "pg3": {}, "pg2": {}}}}).order == ("pg2", "pg3")


def test_the_longer_log_goes_before_priority_and_the_later_timeline_before_the_longer_log() -> None:
    assert ranked({"members": {"pg3": {"position": [3, 5001]}}}).order == ("pg3", "pg2")
    assert ranked(
        {"service": {"position": [2, 3000]}, "members": {"pg3": {"position": [3, 2999]}, "pg1": {"position": [3, 3000]}}}
    ).order == ("pg3", "pg2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"group": {"members": {"pg1": {}, "pg2": {}, "pg3": {"priority": 0}}}}, "it is configured never to be chosen"),
        ({"group": {"members": {"pg1": {}, "pg2": {}, "pg3": {"nofailover": True}}}}, "it is configured never to be chosen"),
        ({"members": {"pg3": "none"}}, "its agent is not heard"),
        ({"members": {"pg3": {"heard": "4s ago"}}}, "its agent is not heard"),
        ({"members": {"pg3": {"state": "starting"}}}, "its service is starting"),
        ({"members": {"pg3": {"problem": "its disk is full"}}}, "its disk is full"),
        ({"lease": {"sync_set": ["pg2"]}}, "it is not in the sync set: an acknowledged write could be missing there"),
        ({"members": {"pg3": {"position": "none"}}}, "its position is not known"),
        ({"members": {"pg3": {"stopped_for_epoch": 6}}}, "its final position for epoch 7 is not known yet"),
        ({"members": {"pg3": {"position": [3, 3999]}}}, "it is 1001 bytes behind the last known position; max_lag is 1000"),
    ],
)
def test_who_must_not_be_chosen_is_named_with_the_reason(change: Mapping[str, Any], reason: str) -> None:
    ranking = ranked(change)
    assert ranking.order == ("pg2",)
    assert ranking.rejected["pg3"] == reason


def test_lag_counts_from_where_the_holder_was_heard_last() -> None:
    assert ranked({"members": {"pg1": {"position": [3, 6001], "heard": "60s ago"}}}).order == ()
    assert ranked({"members": {"pg1": "none"}}).order == ("pg2", "pg3")
    assert ranked({"members": {"pg1": {"position": "none"}}}).order == ("pg2", "pg3")


def test_in_sync_lag_is_no_reason() -> None:
    assert ranked({"lease": {"sync_set": ["pg2"]}, "members": {"pg1": {"position": [3, 9000]}}}).order == ("pg2",)


def test_the_last_holder_is_eligible_in_its_own_vacancy() -> None:
    ctx = context({"node": "pg1", "lease": {"state": "vacated", "sync_set": []}, "service": {"state": "standby", **STOPPED}})
    assert ctx.ranking.order == ("pg1",)


def test_who_gave_up_comes_last_whatever_it_has() -> None:
    own = {"node": "pg1", "service": {"state": "standby", "position": [3, 5500], **STOPPED}, "members": {"pg2": STOPPED, "pg3": STOPPED}}
    assert context({"lease": {"state": "vacated"}, **own}).ranking.order == ("pg2", "pg3", "pg1")
    assert context({**own, "tenure": "none"}).ranking.order == ("pg1", "pg2", "pg3")


def test_prospects_are_all_but_the_leader_before_anybody_stopped() -> None:
    prospects = context({"node": "pg1"}).prospects
    assert prospects.order == ("pg2", "pg3")
    assert prospects.rejected == {"pg1": "it is the leader"}


def test_the_leader_itself_sees_its_standbys_nearer_than_their_heartbeats() -> None:
    behind = {"members": {"pg2": {"position": [3, 3000]}, "pg3": {"position": [3, 3000]}}}
    own_sight = {"service": {"replicas": [{"name": "pg2", "flushed": 4900}, {"name": "pg3", "flushed": 3100}]}}
    assert context({"node": "pg1", **behind, **own_sight}).prospects.order == ("pg2",)
    assert context({"node": "pg2", "members": {"pg3": {"position": [3, 3000]}}}).prospects.order == ("pg2",)


def gathered(change: Mapping[str, Any]) -> bool:
    ctx: Context = context(merge({"lease": {"state": "vacated", "moved": "0.1s ago"}, "service": STOPPED}, change))
    assert ctx.record is not None
    assert ctx.vacancy_began is not None
    return candidate.has_gathered(ctx.group, ctx.record, ctx.view.members, ctx.vacancy_began, ctx.now)


@pytest.mark.parametrize(
    ("change", "enough"),
    [
        ({}, False),
        ({"members": {"pg3": STOPPED}}, True),
        ({"members": {"pg3": {"heard": "4s ago"}}}, True),
        ({"members": {"pg3": {"state": "down"}}}, True),
        ({"group": {"members": {"pg1": {}, "pg2": {}}, "witnesses": ["edge1"]}}, True),
        ({"lease": {"moved": "0.3s ago"}}, True),
        ({"lease": {"sync_set": ["pg2"]}}, True),
    ],
)
def test_async_waits_for_all_live_standbys_or_300_ms_and_sync_for_nobody(change: Mapping[str, Any], enough: bool) -> None:
    assert gathered(change) is enough
