from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from agent.decision import conditions as c
from agent.decision.context import Context
from tests.scenarios.building import context
from tests.scenarios.words import merge

HOLDER: Mapping[str, Any] = {"node": "pg1"}
STANDBY: Mapping[str, Any] = {**HOLDER, "service": {"state": "standby"}}
DOWN: Mapping[str, Any] = {**HOLDER, "service": {"state": "down", "since": "1s ago"}, "outcomes": {"FenceService": {}}}
ALONE: Mapping[str, Any] = {**DOWN, "members": {"pg2": "none", "pg3": "none"}}
WORDS: Mapping[str, Any] = {
    "lease": "none",
    "service": {"state": "standby"},
    "words": {"pg1": {}, "pg2": {"position": [3, 9000]}, "pg3": {}},
}
STOPPED = {"stopped_for_epoch": 7, "upstream": "none"}
VACANT: Mapping[str, Any] = {"lease": {"state": "vacated"}, "service": STOPPED, "members": {"pg3": STOPPED}}
EXPIRED: Mapping[str, Any] = {"lease": {"moved": "6s ago"}, "votes": {"pg2": "down", "pg3": "down"}}
PAUSED = {"lease": {"paused": True}}
LOST: Mapping[str, Any] = {**HOLDER, "lease": {"key": "absent"}}
OWN: Mapping[str, Any] = {**STANDBY, "tenure": "none"}
STRAY: Mapping[str, Any] = {"service": {"state": "primary"}}
BLIND: Mapping[str, Any] = {**STRAY, "answered": "never", "lease": {"key": "absent"}}
ARMED = {"fences": {"armed": {"epoch": 7, "deadline": "in 1s"}}}
HUNG: Mapping[str, Any] = {"service": {"state": "hung", "since": "10s ago"}}
DIVERGED: Mapping[str, Any] = {"service": {"position": [2, 9000], "upstream": "none"}}
SYNC: Mapping[str, Any] = {**HOLDER, "group": {"durability": "sync"}, "service": {"sync_names": []}}
SWITCH = {**HOLDER, "intents": [{"kind": "switchover"}]}


def failed(command: str, ended: str = "0.1s ago") -> Mapping[str, Any]:
    return {"outcomes": {command: {"ok": False, "ended": ended}}}


@pytest.mark.parametrize(
    ("condition", "base", "change", "holds"),
    [
        (c.key_is_lost, LOST, {}, True),
        (c.key_is_lost, LOST, {"tenure": {"sent": "9s ago"}}, False),
        (c.key_is_lost, LOST, {"answered": "4s ago"}, False),
        (c.key_is_lost, LOST, {"lags": True}, False),
        (c.key_is_lost, LOST, failed("FormGroup"), False),
        (c.key_is_lost, HOLDER, {}, False),
        (c.may_form, WORDS, {}, True),
        (c.may_form, WORDS, {"session": "none"}, False),
        (c.may_form, WORDS, {"service": {"state": "primary"}}, False),
        (c.may_form, WORDS, {"highest_epoch": 3}, False),
        (c.may_form, WORDS, {"words": {"pg1": {"position": [3, 9999]}}}, False),
        (c.may_form, WORDS, {"fences": {"standing": []}}, False),
        (c.may_form, WORDS, failed("FormGroup"), False),
        (c.must_relock, HOLDER, {}, False),
        (c.must_relock, HOLDER, {"lease": {"locked_by": "none"}}, True),
        (c.must_relock, HOLDER, {"lease": {"locked_by": "none"}, "tenure": {"index": 950}}, False),
        (c.must_relock, LOST, {}, False),
        (c.must_relock, {}, {}, False),
        (c.renewal_is_due, HOLDER, {"tenure": {"sent": "1s ago"}}, True),
        (c.renewal_is_due, HOLDER, {"tenure": {"sent": "0.9s ago"}}, False),
        (c.renewal_is_due, HOLDER, {"tenure": {"sent": "unknown", "adopted_deadline": "in 1s"}}, True),
        (c.renewal_is_due, HOLDER, {"tenure": {"sent": "6s ago"}}, False),
        (c.renewal_is_due, HOLDER, {"tenure": {"sent": "1s ago"}, "session": "none"}, False),
        (c.renewal_is_due, HOLDER, {"tenure": {"sent": "1s ago"}, **failed("RenewLease")}, False),
        (c.renewal_is_due, HOLDER, {"tenure": {"sent": "1s ago"}, **failed("RenewLease", "0.2s ago")}, True),
        (c.renewal_is_due, HOLDER, {"tenure": {"sent": "1s ago"}, "outcomes": {"RenewLease": {}}}, True),
        (c.renewal_is_due, HOLDER, {"intents": [{"kind": "pause"}]}, True),
        (c.renewal_is_due, HOLDER, {"intents": [{"kind": "pause"}], "tenure": {"attempts": [{}]}}, False),
        (c.renewal_is_due, HOLDER, {"intents": [{"kind": "pause"}], **failed("RenewLease")}, False),
        (c.renewal_is_due, {}, {}, False),
        (c.may_retake, OWN, {}, True),
        (c.may_retake, OWN, {"lease": {"state": "vacated"}}, False),
        (c.may_retake, OWN, failed("TakeLease"), False),
        (c.may_retake, OWN, {"answered": "4s ago"}, False),
        (c.may_retake, OWN, {"group": {"members": {"pg2": {}, "pg3": {}}}}, False),
        (c.may_retake, STANDBY, {}, False),
        (c.may_retake, OWN, {"lease": {"incarnation": "elsewhere-1"}}, False),
        (c.may_retake, OWN, {"lease": {"incarnation": "elsewhere-1", "moved": "9s ago"}}, True),
        (c.may_retake, OWN, {"lease": {"incarnation": "boot-before", "moved": "0.1s ago"}}, True),
        (c.may_retake, ALONE, {"tenure": {"sent": "6s ago"}}, True),
        (c.may_retake, ALONE, {"tenure": {"sent": "6s ago"}, **failed("FenceService")}, False),
        (c.may_take, VACANT, {}, True),
        (c.may_take, VACANT, {"lease": {"state": "held"}}, False),
        (c.may_take, VACANT, failed("TakeLease"), False),
        (c.may_take, VACANT, {"session": "none"}, False),
        (c.may_take, VACANT, {"service": {"stopped_for_epoch": 6}}, False),
        (c.is_stray, STRAY, {}, True),
        (c.is_stray, {}, {"in_flight": ["PromoteService"]}, True),
        (c.is_stray, HOLDER, {}, False),
        (c.is_stray, HOLDER, {"tenure": {"sent": "9s ago"}}, False),
        (c.is_stray, HOLDER, {"tenure": {"sent": "unknown"}}, True),
        (c.is_stray, {**HOLDER, **STRAY}, {"tenure": "none", **PAUSED}, False),
        (c.is_stray, STRAY, PAUSED, True),
        (c.is_stray, HOLDER, {"tenure": {"sent": "unknown"}, **PAUSED}, False),
        (c.is_stray, BLIND, {}, True),
        (c.is_stray, BLIND, ARMED, False),
        (c.is_stray, BLIND, {"fences": {"armed": {"epoch": 7, "deadline": "0s ago"}}}, True),
        (c.is_stray, BLIND, merge(ARMED, {"fences": {"watchdog_alive": False}}), True),
        (c.is_stray, STRAY, ARMED, True),
        (c.is_unformed_stray, STRAY, {"lease": "none"}, True),
        (c.is_unformed_stray, STRAY, {}, False),
        (c.is_unformed_stray, STRAY, {"lease": "none", "in_flight": ["StartService"]}, False),
        (c.is_unformed_stray, STRAY, {"lease": "none", **failed("StopService")}, False),
        (c.is_crashed, {}, {"service": {"state": "crashed"}}, True),
        (c.is_crashed, {}, {"service": {"state": "crashed"}, "in_flight": ["StartService"]}, False),
        (c.is_crashed, {}, {"service": {"state": "crashed"}, **PAUSED}, True),
        (c.is_crashed, HOLDER, {"service": {"state": "crashed"}, **PAUSED}, False),
        (c.must_prove_down, DOWN, {}, False),
        (c.must_prove_down, DOWN, failed("FenceService"), True),
        (c.must_prove_down, DOWN, {**failed("FenceService"), **PAUSED}, False),
        (c.must_prove_down, {}, {"service": {"state": "down"}}, False),
        (c.is_hung, HUNG, {}, True),
        (c.is_hung, HUNG, {"service": {"since": "9s ago"}}, False),
        (c.is_hung, HUNG, {"service": {"since": "5s ago"}, **HOLDER}, True),
        (c.is_hung, HUNG, PAUSED, False),
        (c.is_hung, HUNG, {"service": {"state": "starting"}}, False),
        (c.lets_another_try, STANDBY, {"fences": {"standing": []}}, True),
        (c.lets_another_try, STANDBY, {}, False),
        (c.lets_another_try, STANDBY, {"fences": {"standing": []}, **PAUSED}, False),
        (c.lets_another_try, STANDBY, {"fences": {"standing": []}, "members": ALONE["members"]}, False),
        (c.lets_another_try, STANDBY, {"fences": {"standing": []}, "lease": {"key": "unreadable"}}, False),
        (c.is_unfenced, HOLDER, {"fences": {"standing": []}}, True),
        (c.is_unfenced, HOLDER, {"fences": {"standing": ["watchdog"]}}, False),
        (c.is_unfenced, HOLDER, {"fences": {"standing": []}, **PAUSED}, False),
        (c.is_unfenced, {}, {"fences": {"standing": []}}, False),
        (c.steps_down, HOLDER, {"fences": {"standing": []}}, True),
        (c.steps_down, HOLDER, {"fences": {"standing": []}, **failed("StopService")}, False),
        (c.switches_over, SWITCH, {}, True),
        (c.switches_over, SWITCH, {"went_back": True}, False),
        (c.switches_over, SWITCH, {"lease": {"locked_by": "none"}}, False),
        (c.switches_over, SWITCH, failed("StopService"), False),
        (c.switches_over, SWITCH, {"tenure": {"sent": "9s ago"}}, False),
        (c.switches_over, HOLDER, {}, False),
        (c.restarts_in_place, ALONE, {}, True),
        (c.restarts_in_place, ALONE, PAUSED, False),
        (c.restarts_in_place, ALONE, failed("FenceService"), False),
        (c.restarts_in_place, ALONE, {"tenure": {"attempts": [{"state": "vacated"}]}}, False),
        (c.restarts_in_place, ALONE, {"tenure": {"sent": "9s ago"}}, False),
        (c.restarts_in_place, ALONE, failed("StartService"), False),
        (c.restarts_in_place, DOWN, {}, False),
        (c.vacate_may_commit, {}, {}, False),
        (c.may_promote, STANDBY, {}, True),
        (c.may_promote, STANDBY, failed("PromoteService"), False),
        (c.may_promote, STANDBY, {"intents": [{"kind": "pause"}]}, False),
        (c.may_promote, HOLDER, {}, False),
        (c.lacks_seal, HOLDER, {"service": {"sealed": False}}, True),
        (c.lacks_seal, HOLDER, {}, False),
        (c.lacks_seal, HOLDER, {"service": {"sealed": False}, "group": {"fences": ["watchdog"]}}, False),
        (c.lacks_seal, HOLDER, {"service": {"sealed": False}, **failed("SealService")}, False),
        (c.must_stop_receiving, STANDBY, {"service": {"upstream": "pg3"}}, True),
        (c.must_stop_receiving, STANDBY, {"service": {"upstream": "pg3", "receiving": True}}, True),
        (c.must_stop_receiving, STANDBY, {}, False),
        (c.must_stop_receiving, EXPIRED, {}, True),
        (c.must_stop_receiving, EXPIRED, {"service": STOPPED}, False),
        (c.must_stop_receiving, EXPIRED, failed("StopReceiving"), False),
        (c.must_stop_receiving, EXPIRED, {"service": {"state": "down"}}, False),
        (c.must_stop_receiving, {}, {}, False),
        (c.may_start, {}, {"service": {"state": "down"}}, True),
        (c.may_start, {}, {"service": {"state": "down"}, "went_back": True}, False),
        (c.may_start, {}, {"service": {"state": "down"}, **PAUSED}, False),
        (c.may_start, {}, {"service": {"state": "down", "initialised": False}}, False),
        (c.may_start, {}, {"service": {"state": "down"}, **failed("StartService")}, False),
        (c.may_start, DOWN, {}, False),
        (c.must_follow, {}, {}, False),
        (c.must_follow, {}, {"service": {"upstream": "pg3"}}, True),
        (c.must_follow, {}, {"service": {"receiving": False}}, True),
        (c.must_follow, {}, {"service": {"receiving": False}, "outcomes": {"FollowLeader": {"ended": "1.9s ago"}}}, False),
        (c.must_follow, {}, {"service": {"receiving": False}, "outcomes": {"FollowLeader": {"ended": "2s ago"}}}, True),
        (c.must_follow, {}, {"service": {"receiving": False}, "members": {"pg1": {"state": "standby"}}}, False),
        (c.must_follow, {}, {"service": {"upstream": "pg3"}, **failed("FollowLeader")}, False),
        (c.must_follow, {}, {"service": {"upstream": "pg3", "state": "starting"}}, False),
        (c.must_follow, {}, {"service": {"upstream": "pg3"}, "went_back": True}, False),
        (c.must_follow, EXPIRED, {"service": {"upstream": "pg3"}}, False),
        (c.must_follow, DIVERGED, {}, False),
        (c.must_rejoin, DIVERGED, {}, True),
        (c.must_rejoin, DIVERGED, PAUSED, False),
        (c.must_rejoin, DIVERGED, failed("RejoinService"), False),
        (c.must_rejoin, DIVERGED, {"service": {"state": "starting"}}, False),
        (c.must_rejoin, {}, {"service": {"state": "down", "initialised": False}}, True),
        (c.must_rejoin, {}, {"service": {"state": "down"}}, False),
        (c.must_rejoin, EXPIRED, DIVERGED, False),
        (c.sync_names_differ, SYNC, {}, True),
        (c.sync_names_differ, SYNC, {"service": {"sync_names": ["pg2"]}}, False),
        (c.sync_names_differ, SYNC, {"service": {"state": "standby"}}, False),
        (c.sync_names_differ, SYNC, {"lease": {"key": "unreadable"}}, False),
        (c.sync_names_differ, SYNC, failed("SetSyncNames"), False),
        (c.may_give_word, WORDS, {}, True),
        (c.may_give_word, WORDS, {"words": {"pg2": {"position": [3, 5000]}}}, False),
        (c.may_give_word, {"lease": "none"}, {"service": {"state": "standby"}}, True),
        (c.may_give_word, WORDS, {"service": {"state": "primary"}}, False),
        (c.may_give_word, WORDS, {"service": {"state": "down"}}, False),
        (c.may_give_word, WORDS, {"service": {"state": "down", "initialised": False, "position": "none"}}, True),
        (c.may_give_word, WORDS, {"node": "edge1"}, False),
        (c.may_give_word, WORDS, {"went_back": True}, False),
        (c.may_give_word, WORDS, failed("GiveWord"), False),
    ],
)
def test_when_it_holds(condition: Callable[[Context], bool], base: Mapping[str, Any], change: Mapping[str, Any], holds: bool) -> None:
    given = (
        {**base, **change}
        if base is EXPIRED and change is DIVERGED
        else merge(base, change)
        if change.get("lease") != "none"
        else {**base, **change}
    )
    assert condition(context(given)) is holds


@pytest.mark.parametrize(("given", "epoch"), [(HOLDER, 7), ({}, 7), ({"lease": "none"}, 0)])
def test_the_epoch_a_command_is_decided_in(given: Mapping[str, Any], epoch: int) -> None:
    assert c.epoch(context(given)) == epoch
