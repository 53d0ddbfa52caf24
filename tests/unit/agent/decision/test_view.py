from __future__ import annotations

from tests.scenarios.building import scene


def test_voters_are_members_and_witnesses_once_each_and_sorted() -> None:
    assert scene({"group": {"witnesses": ["edge1", "pg2"]}}).view.group.voters == ("edge1", "pg1", "pg2", "pg3")
