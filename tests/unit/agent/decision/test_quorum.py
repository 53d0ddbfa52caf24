from __future__ import annotations

import pytest

from agent.coordination.lease import CountedVote
from agent.decision.quorum import counted_votes, is_fresh, votes_needed
from tests.scenarios.building import context


@pytest.mark.parametrize(("voters", "needed"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_a_majority_of_the_voters_and_one_of_two(voters: int, needed: int) -> None:
    assert votes_needed(voters) == needed


@pytest.mark.parametrize(("heard", "fresh"), [("0s ago", True), ("3s ago", True), ("3.001s ago", False)])
def test_a_member_counts_for_three_renewals(heard: str, fresh: bool) -> None:
    ctx = context({"members": {"pg3": {"heard": heard}}})
    assert is_fresh(ctx.view.members["pg3"], 1.0, ctx.now) is fresh


def test_nobody_is_not_fresh() -> None:
    ctx = context()
    assert not is_fresh(None, 1.0, ctx.now)


def test_only_live_voters_of_the_record_who_say_down_in_this_epoch_count() -> None:
    ctx = context(
        {
            "group": {"witnesses": ["edge1", "edge2", "edge3"]},
            "lease": {"voters": ["pg1", "pg2", "pg3", "edge1", "edge2", "gone"]},
            "votes": {"pg2": "down", "pg3": {"epoch": 6}, "edge1": "up", "edge2": "down", "edge3": "down", "gone": "down", "pg1": "down"},
            "members": {"edge2": {"heard": "9s ago"}},
        }
    )
    assert ctx.record is not None
    assert counted_votes(ctx.record, ctx.view.votes, ctx.view.members, 1.0, ctx.now) == (
        CountedVote("pg1", 706),
        CountedVote("pg2", 700),
    )
