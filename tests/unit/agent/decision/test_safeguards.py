from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision import safeguards
from agent.decision.safeguards import forbids_promotion, forbids_takeover, gives_up, remaining_left_s, switchover_target
from tests.scenarios.building import context
from tests.scenarios.words import merge

ELECTED: Mapping[str, Any] = {"node": "pg1", "service": {"state": "standby"}}
READY: Mapping[str, Any] = {"lease": {"state": "vacated"}, "service": {"stopped_for_epoch": 7, "upstream": "none"}}
DOWN: Mapping[str, Any] = {
    "node": "pg1",
    "service": {"state": "down", "since": "1s ago"},
    "outcomes": {"FenceService": {"ended": "0.5s ago"}},
}


def test_a_holder_with_everything_in_place_may_promote() -> None:
    assert forbids_promotion(context(ELECTED)) == ()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tenure": "none"}, "this node does not hold the lease"),
        ({"tenure": {"sent": "6s ago"}}, "the lease's time is over"),
        ({"tenure": {"sent": "unknown", "adopted_deadline": "in 4s"}}, "the lease was adopted after a restart and not yet renewed"),
        ({"tenure": {"attempts": [{"state": "vacated"}]}}, "a give-up of this epoch was sent and may yet commit"),
        ({"tenure": {"record": {"state": "vacated"}}}, "the lease was given up"),
        ({"went_back": True}, "coordination went back in time"),
        ({"lease": {"paused": True}}, "the group is paused"),
        ({"tenure": {"record": {"paused": True}}, "lease": {"key": "absent"}}, "the group is paused"),
        ({"lease": {"promotions": [[7, "pg1", 3, 2, 0]]}}, "the record reserves no timeline number for it"),
        ({"lease": {"promotions": [[6, "pg1", 4, 3, 0]]}}, "the record reserves no timeline number for it"),
        ({"service": {"position": "none"}}, "the record reserves no timeline number for it"),
        ({"highest_epoch": 8}, "a higher epoch was seen"),
        (
            {"lease": {"debt": [6, "pg3", 4.0]}, "tenure": {"began": "3.9s ago"}},
            "elected is not allowed: a predecessor is not yet proven over",
        ),
        ({"fences": {"standing": ["seal"]}}, "fences are missing: watchdog"),
        ({"fences": {"armed": "none", "refused": "latched"}}, "the watchdog is not armed for epoch 7 latched"),
        (
            {"fences": {"standing": ["seal", "watchdog", "kernel"], "kernel_epoch": 6}},
            "the port is not leased to the kernel for epoch 7",
        ),
        (
            {"group": {"fences": ["seal", "watchdog", "kernel"]}, "fences": {"kernel_epoch": None, "kernel_problem": "no right"}},
            "the port is not leased to the kernel for epoch 7 no right",
        ),
        ({"group": {"fences": ["seal", "kernel"]}, "fences": {"standing": ["seal"]}}, "fences are missing: kernel"),
        ({"service": {"state": "primary"}}, "the service is primary"),
        ({"service": {"upstream": "pg3"}}, "the service still receives from an older epoch"),
        ({"service": {"upstream": "pg3", "receiving": True}}, "the service still receives from an older epoch"),
        ({"tenure": {"sent": "4.5s ago"}}, "too little of the lease is left: renew first"),
    ],
)
def test_each_safeguard_forbids_alone(change: Mapping[str, Any], sentence: str) -> None:
    assert sentence in forbids_promotion(context(merge(ELECTED, change)))


def test_a_debt_ends_with_its_wait_and_the_seal_is_set_by_the_promotion() -> None:
    paid = {"lease": {"debt": [6, "pg3", 4.0]}, "tenure": {"began": "4s ago"}, "fences": {"standing": ["watchdog"]}}
    assert forbids_promotion(context(merge(ELECTED, paid))) == ()
    assert not safeguards.debt_is_over(context())


def test_what_is_left_of_the_own_lease() -> None:
    assert remaining_left_s(context(ELECTED)) == pytest.approx(4.7)
    assert remaining_left_s(context()) == 0.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lease": {"key": "absent"}}, "there is no readable lease"),
        ({"answered": "4s ago"}, "the coordinator does not answer"),
        ({"went_back": True}, "coordination went back in time"),
        ({"lags": True}, "the reading is older than this node's own last write"),
        ({"node": "pg1", "lease": {"state": "held"}}, "this node holds the lease"),
        ({"session": "none"}, "this node has no session"),
        ({"lease": {"paused": True}}, "the group is paused"),
        ({"service": {"state": "starting"}}, "the local service is starting"),
        ({"fences": {"standing": []}}, "fences are missing: watchdog"),
    ],
)
def test_what_forbids_a_takeover(change: Mapping[str, Any], sentence: str) -> None:
    assert sentence in forbids_takeover(context(merge(READY, change)))
    assert forbids_takeover(context(READY)) == ()


@pytest.mark.parametrize(
    ("node", "intents", "forbidden"),
    [("pg1", [], True), ("pg1", [{"kind": "pause"}], True), ("pg1", [{"kind": "resume"}], False), ("pg2", [{"kind": "resume"}], True)],
)
def test_only_resume_lets_only_the_holder_out_of_its_pause(node: str, intents: list[Any], forbidden: bool) -> None:
    ctx = context({"node": node, "lease": {"paused": True}, "tenure": "none", "service": {"state": "standby"}, "intents": intents})
    assert ("the group is paused" in forbids_takeover(ctx)) is forbidden


@pytest.mark.parametrize(
    ("change", "target"),
    [
        ({}, "pg2"),
        ({"intents": [{"kind": "switchover", "to": "pg3"}]}, "pg3"),
        ({"intents": [{"kind": "switchover", "to": "pg1"}]}, None),
        ({"intents": [{"kind": "switchover", "epoch": 6}]}, None),
        ({"intents": []}, None),
        ({"lease": {"paused": True}}, None),
        ({"lease": {"key": "absent"}}, None),
        ({"lease": {"sync_set": []}}, None),
    ],
)
def test_who_a_switchover_is_for(change: Mapping[str, Any], target: str | None) -> None:
    found = switchover_target(context(merge({"node": "pg1", "intents": [{"kind": "switchover"}]}, change)))
    assert (None if found is None else found[1]) == target


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "its service crashed"),
        ({"tenure": "none"}, ""),
        ({"lease": {"key": "absent"}}, ""),
        ({"lease": {"paused": True}}, ""),
        ({"service": {"state": "standby"}}, ""),
        ({"outcomes": {"FenceService": {"ok": False}}}, ""),
        ({"intents": [{"kind": "switchover"}]}, "switchover"),
        ({"members": {"pg2": "none", "pg3": "none"}}, ""),
        ({"tenure": {"sent": "9s ago"}}, "its lease ran out"),
        ({"outcomes": {"PromoteService": {"ok": False, "failures": 3}}}, "its promotion keeps failing"),
        ({"outcomes": {"PromoteService": {"ok": False, "failures": 2}}, "group": {"on_crash": "restart"}}, ""),
        ({"fences": {"standing": []}}, "its fences are missing: watchdog"),
        ({"group": {"on_crash": "restart"}}, ""),
        ({"group": {"on_crash": "restart", "restart_timeout": 2.0}}, "its service took no writes for 2 s"),
        ({"group": {"on_crash": "restart", "restart_timeout": 2.0}, "lease": {"debt": [6, "pg3", 999.0]}}, ""),
    ],
)
def test_when_a_holder_gives_up_and_why(change: Mapping[str, Any], reason: str) -> None:
    assert gives_up(context(merge(DOWN, change), unwritable_since=-3.0)) == reason
