from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision.command import FenceService, RenewLease, Resource, StartService, TakeLease
from agent.decision.engines.base import Rejoin
from agent.decision.view import IntentKind
from agent.instant import NANOSECONDS, Instant
from tests.scenarios.building import context
from tests.scenarios.pieces import START, instant

HOLDER: Mapping[str, Any] = {"node": "pg1"}


def seconds(moment: Instant | None) -> float | None:
    return None if moment is None else round((moment.boot_ns - START.boot_ns) / NANOSECONDS, 3)


@pytest.mark.parametrize(("answered", "blind"), [("never", True), ("3s ago", False), ("3.01s ago", True)])
def test_blind_after_three_renewals_without_a_reading(answered: str, blind: bool) -> None:
    assert context({"answered": answered}).is_blind is blind


def test_never_formed_is_no_key_a_coordinator_that_answers_and_a_disk_that_knows_no_epoch() -> None:
    assert context({"lease": "none"}).never_formed
    assert not context({"lease": "none", "highest_epoch": 1}).never_formed
    assert not context({"lease": "none", "answered": "never"}).never_formed
    assert not context().never_formed


@pytest.mark.parametrize(
    ("given", "deadline_s"),
    [
        ({"tenure": "none"}, None),
        ({"tenure": {"sent": "1s ago"}}, 4.0),
        ({"tenure": {"sent": "1s ago"}, "fences": {"armed": {"epoch": 7, "deadline": "in 2s"}}}, 2.0),
        ({"tenure": {"sent": "1s ago"}, "fences": {"armed": {"epoch": 6, "deadline": "in 2s"}}}, 4.0),
        ({"tenure": {"sent": "1s ago"}, "fences": {"armed": {"epoch": 7, "deadline": "in 2s"}}, "group": {"fences": []}}, 4.0),
        ({"tenure": {"sent": "1s ago", "attempts": [{"ttl": 1.5}]}, "fences": {"armed": "none"}}, 0.5),
        ({"tenure": {"sent": "unknown", "adopted_deadline": "in 1s"}, "fences": {"armed": "none"}}, 1.0),
        ({"tenure": {"sent": "unknown"}, "fences": {"armed": "none"}}, None),
    ],
)
def test_the_deadline_is_the_earlier_of_the_own_and_the_one_of_the_watchdog(given: Mapping[str, Any], deadline_s: float | None) -> None:
    assert seconds(context({**HOLDER, **given}).deadline) == deadline_s


@pytest.mark.parametrize(
    ("given", "live", "late"),
    [
        ({"tenure": "none"}, False, False),
        ({"tenure": {"sent": "4.9s ago"}}, True, False),
        ({"tenure": {"sent": "5s ago"}}, False, True),
        ({"tenure": {"sent": "unknown"}}, False, False),
        ({"tenure": {"sent": "9s ago"}, "lease": {"paused": True}}, True, False),
        ({"tenure": {"sent": "unknown"}, "lease": {"paused": True}}, True, False),
        ({"tenure": {"sent": "9s ago", "attempts": [{"paused": False}]}, "lease": {"paused": True}}, False, True),
    ],
)
def test_live_late_or_unknown_and_never_late_while_paused(given: Mapping[str, Any], live: bool, late: bool) -> None:
    ctx = context({**HOLDER, **given})
    assert (ctx.is_live, ctx.is_late) == (live, late)


def test_a_paused_holder_goes_by_its_own_date_for_the_watchdogs_stands_still() -> None:
    ctx = context({**HOLDER, "lease": {"paused": True}, "fences": {"armed": {"epoch": 7, "deadline": "9s ago"}}})
    assert seconds(ctx.deadline) == 4.7


def test_either_clock_ends_the_own_time_and_both_must_agree_on_anothers() -> None:
    ctx = context({**HOLDER, "tenure": {"sent": "4.9s ago"}, "lease": {"moved": "5.6s ago"}})
    ahead = Instant(ctx.now.boot_ns + NANOSECONDS // 5, ctx.now.raw_ns)
    late = type(ctx)(ctx.view, ctx.memory, ctx.engine, ahead)
    assert (late.is_late, late.is_expired) == (True, False)


def test_who_holds_by_the_record() -> None:
    assert context(HOLDER).is_holder_by_record
    assert not context(HOLDER).is_led_by_other
    assert context().is_led_by_other
    assert not context({"lease": "none"}).is_led_by_other
    assert not context({"lease": {"state": "vacated"}}).is_led_by_other
    assert not context({**HOLDER, "lease": {"state": "vacated"}}).is_holder_by_record


@pytest.mark.parametrize(
    ("given", "may"),
    [
        ({"service": {"state": "down"}}, False),
        ({"service": {"state": "standby"}}, False),
        ({"service": {"state": "starting"}}, True),
        ({"service": {"state": "unknown"}}, True),
        ({"in_flight": ["PromoteService"]}, True),
    ],
)
def test_all_but_a_proven_no_may_be_writable(given: Mapping[str, Any], may: bool) -> None:
    assert context(given).may_be_writable is may


@pytest.mark.parametrize(
    ("fence", "fenced"),
    [({}, False), ({"ok": False, "ended": "0.1s ago"}, False), ({"ended": "2s ago"}, False), ({"ended": "0.1s ago"}, True)],
)
def test_fenced_since_the_crash_and_not_before_it(fence: Mapping[str, Any], fenced: bool) -> None:
    ctx = context({**HOLDER, "service": {"state": "down", "since": "1s ago"}, "outcomes": {"FenceService": fence} if fence else {}})
    assert ctx.fenced_since_crash is fenced


@pytest.mark.parametrize(
    ("given", "armed"),
    [
        ({}, True),
        ({"fences": {"armed": "none"}}, False),
        ({"fences": {"watchdog_alive": False}}, False),
        ({"fences": {"suspended": True}}, False),
        ({"fences": {"armed": "none"}, "group": {"fences": ["seal"]}}, True),
        ({"tenure": "none"}, False),
    ],
)
def test_armed_for_this_very_epoch_or_nobody_asked(given: Mapping[str, Any], armed: bool) -> None:
    assert context({**HOLDER, **given}).is_armed is armed


def test_missing_fences_are_those_required_that_do_not_stand() -> None:
    assert context({"fences": {"standing": ["kernel"]}}).missing_fences == ("seal", "watchdog")


@pytest.mark.parametrize(
    ("given", "expired", "vacancy"),
    [
        ({"lease": {"moved": "5.6s ago"}}, False, False),
        ({"lease": {"moved": "5.7s ago"}}, True, False),
        ({"lease": {"moved": "5.7s ago"}, "votes": {"pg2": "down", "pg3": "down"}}, True, True),
        ({"lease": {"moved": "5.7s ago", "paused": True}, "votes": {"pg2": "down", "pg3": "down"}}, False, False),
        ({"lease": {"moved": "5.7s ago", "key": "unreadable"}}, False, False),
        ({"lease": {"moved": "0s ago", "state": "vacated"}}, False, True),
        ({"lease": {"moved": "0s ago", "state": "vacated"}, "lags": True}, False, False),
        ({"lease": {"moved": "0s ago", "state": "vacated"}, "went_back": True}, False, False),
        ({"lease": {"moved": "5.6s ago", "state": "vacated", "debt": [6, "pg3", 1.0]}}, False, False),
        ({"lease": {"moved": "5.7s ago", "state": "vacated", "debt": [6, "pg3", 1.0]}}, True, True),
    ],
)
def test_when_somebody_may_take_the_lease(given: Mapping[str, Any], expired: bool, vacancy: bool) -> None:
    ctx = context(given)
    assert (ctx.is_expired, ctx.is_vacancy) == (expired, vacancy)


def test_a_vacancy_began_when_a_give_up_was_read_or_when_it_was_noticed() -> None:
    assert seconds(context({"lease": {"state": "vacated", "moved": "2s ago"}}, vacancy_since=-1.0).vacancy_began) == -2.0
    assert seconds(context({"lease": {"moved": "9s ago"}}, vacancy_since=-1.0).vacancy_began) == -1.0
    assert context({"lease": "none"}).vacancy_began is None


def test_without_a_record_there_is_no_quorum_no_silence_and_no_leader() -> None:
    ctx = context({"lease": "none"})
    assert (ctx.votes, ctx.has_quorum, ctx.lease_silence_s, ctx.leader, ctx.rejoin) == ((), False, 0.0, None, Rejoin.WAIT)


def test_nothing_is_concluded_from_a_leader_nobody_hears() -> None:
    assert context().rejoin is Rejoin.FOLLOW
    assert context({"members": {"pg1": {"heard": "4s ago"}}}).rejoin is Rejoin.WAIT


def test_the_oldest_intent_is_the_one_written_first() -> None:
    intents = [{"kind": "pause", "index": 9}, {"kind": "pause", "index": 5, "identity": "z"}, {"kind": "resume", "index": 7}]
    ctx = context({"intents": intents})
    assert ctx.intent(IntentKind.SWITCHOVER) is None
    oldest = ctx.intent(IntentKind.PAUSE)
    assert oldest is not None
    assert oldest.identity == "z"
    assert ctx.pause_intent == oldest
    assert context().pause_intent is None


def test_a_busy_resource_and_a_kind_in_flight() -> None:
    ctx = context({"in_flight": ["StartService"]})
    assert ctx.is_busy(Resource.SERVICE)
    assert not ctx.is_busy(Resource.LEASE)
    assert ctx.in_flight(StartService)
    assert not ctx.in_flight(FenceService)


@pytest.mark.parametrize(("failures", "pause_s"), [(0, 0.1), (1, 0.2), (2, 0.4), (6, 6.4), (7, 10.0), (99, 10.0)])
def test_each_failure_doubles_the_pause_up_to_ten_seconds(failures: int, pause_s: float) -> None:
    ctx = context({"outcomes": {"TakeLease": {"ok": False, "failures": failures, "ended": "1s ago"}}})
    assert ctx.retry_at(TakeLease) == instant(-1.0).after(pause_s)
    assert ctx.may_try(TakeLease) is (pause_s <= 1.0)


def test_what_never_ran_or_succeeded_may_be_tried() -> None:
    ctx = context({"outcomes": {"TakeLease": {"ok": True}}})
    assert ctx.may_try(TakeLease)
    assert ctx.may_try(RenewLease)


def test_a_node_of_the_group_is_a_member_or_a_witness() -> None:
    assert context().is_member
    assert not context({"node": "edge1"}).is_member
    assert context().state.value == "standby"


def test_the_order_the_prospects_and_the_plan_are_asked_with_what_this_node_knows() -> None:
    stopped = {"stopped_for_epoch": 7, "upstream": "none"}
    assert context({"lease": {"state": "vacated"}, "service": stopped}).ranking.order == ("pg2",)
    assert context({"members": {"pg3": {"position": [3, 3000]}}}).prospects.order == ("pg2",)
    behind = {"members": {"pg2": {"position": [3, 3000]}, "pg3": "none"}}
    assert context({"node": "pg1", **behind}).prospects.order == ("pg2",)
    assert context({"node": "pg1", **behind, "service": {"replicas": []}}).prospects.order == ()


def test_the_plan_goes_by_the_record_that_is_known_to_have_committed() -> None:
    given = {"node": "pg1", "group": {"durability": "sync"}, "lease": {"sync_set": []}, "tenure": {"record": {"sync_set": ["pg2"]}}}
    assert context({**given, "service": {"sync_names": []}}).sync_plan.names == ("pg2",)


def test_the_watchdog_is_waited_for_only_where_it_has_to_stand() -> None:
    assert context({"node": "pg1", "fences": {"standing": ["seal"]}}).missing_fences == ("watchdog",)
    assert context({"group": {"fences": []}}).missing_fences == ()
