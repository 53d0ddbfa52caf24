from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from agent.decision import orders
from agent.decision.command import Command
from agent.decision.context import Context
from tests.scenarios.building import context

STANDBY = {"node": "pg1", "service": {"state": "standby"}}
VACANT = {"lease": {"state": "vacated", "cause": "it crashed"}}


@pytest.mark.parametrize(
    ("order", "given", "name", "fields"),
    [
        (orders.recreate, {"node": "pg1", "lease": {"key": "absent"}}, "FormGroup", {"epoch": 7, "words": ()}),
        (orders.form, {"lease": "none", "words": {"pg2": {}, "edge1": {}}}, "FormGroup", {"epoch": 0}),
        (orders.vacate, {"node": "pg1"}, "VacateLease", {"epoch": 7}),
        (orders.renew, {"node": "pg1"}, "RenewLease", {"relock_over": None}),
        (orders.retake, {"node": "pg1", "tenure": "none"}, "TakeLease", {"votes": ()}),
        (orders.take_vacancy, VACANT, "TakeLease", {"votes": ()}),
        (orders.fence("why"), {}, "FenceService", {"cause": "why"}),
        (orders.stop("why"), {}, "StopService", {"cause": "why"}),
        (orders.promote, STANDBY, "PromoteService", {"sync_names": None}),
        (orders.follow, {}, "FollowLeader", {"leader": "pg1", "epoch": 7}),
        (orders.set_sync_names, {"node": "pg1", "service": {"sync_names": ["pg3"]}}, "SetSyncNames", {"names": ()}),
        (orders.vote(down=True), {}, "CastVote", {"down": True, "over_index": 0, "evidence": "it answers"}),
        (orders.vote(down=False), {"votes": {"pg2": {"index": 5}}, "observation": "none"}, "CastVote", {"over_index": 5, "evidence": ""}),
        (orders.finish, {"node": "pg1", "intents": [{"kind": "resume"}]}, "FinishIntent", {"identity": "i0", "index": 800}),
    ],
)
def test_an_order_carries_all_it_needs(
    order: Callable[[Context], tuple[Command, ...]], given: Mapping[str, Any], name: str, fields: Mapping[str, Any]
) -> None:
    (command,) = order(context(given))
    assert type(command).__name__ == name
    assert {field: getattr(command, field) for field in fields} == fields


def test_nothing_is_nothing() -> None:
    assert orders.nothing(context()) == ()


def test_a_fence_under_way_is_not_ordered_twice() -> None:
    assert orders.fence("x")(context({"in_flight": ["FenceService"]})) == ()


def test_only_members_words_are_checked() -> None:
    (command,) = orders.form(context({"lease": "none", "words": {"pg2": {}, "edge1": {}, "pg1": {}}}))
    assert [w.voter for w in command.words] == ["pg1", "pg2"]  # type: ignore[attr-defined]  # a FormGroup


def test_a_lost_lock_is_taken_again_over_what_was_read() -> None:
    (command,) = orders.renew(context({"node": "pg1", "lease": {"locked_by": "none"}}))
    assert command.relock_over.index == 900  # type: ignore[attr-defined]  # a RenewLease


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (VACANT, "pg1 gave up: it crashed"),
        ({"votes": {"pg2": "down", "pg3": "down"}}, "the lease of pg1 ran out; 2 voters call it down"),
    ],
)
def test_a_takeover_says_why(given: Mapping[str, Any], cause: str) -> None:
    (command,) = orders.take_vacancy(context(given))
    assert command.record.cause == cause  # type: ignore[attr-defined]  # a TakeLease


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({"service": {"position": [2, 9000]}}, "rewind"),
        ({"service": {"position": [2, 9000]}, "outcomes": {"RejoinService": {}}}, "rewind"),
        ({"service": {"position": [2, 9000]}, "outcomes": {"RejoinService": {"ok": False}}}, "copy"),
        ({"service": {"initialised": False}}, "copy"),
    ],
)
def test_how_to_rejoin(given: Mapping[str, Any], mode: str) -> None:
    (command,) = orders.rejoin(context(given))
    assert command.mode.value == mode  # type: ignore[attr-defined]  # a RejoinService
