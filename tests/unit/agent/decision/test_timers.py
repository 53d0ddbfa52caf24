from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision.timers import SLACK_NS, wake_up
from agent.instant import NANOSECONDS, Instant
from tests.scenarios.building import context

FAR = {"lease": "none", "members": {"pg1": "none", "pg3": "none"}}
"""Nothing in sight: a turn after a second, and the own last reading grows old only later."""


def wakes_s(given: Mapping[str, Any], **remembered: float) -> float:
    ctx = context(given, **remembered)
    return (wake_up(ctx).boot_ns - ctx.now.boot_ns) / NANOSECONDS


@pytest.mark.parametrize(
    ("given", "remembered", "seconds"),
    [
        ({}, {}, 1.0),
        ({"answered": "2.6s ago"}, {}, 0.4),
        ({"members": {"pg1": {"heard": "2.6s ago"}}}, {}, 0.4),
        ({"lease": {"moved": "2.1s ago"}}, {}, 0.4),
        ({"lease": {"moved": "5.2s ago"}}, {}, 0.411),
        ({"lease": {"moved": "5.2s ago", "wait": 5.7}}, {}, 0.5),
        ({"node": "pg1", "tenure": {"sent": "0.6s ago"}}, {}, 0.4),
        ({"node": "pg1", "tenure": {"sent": "4.1s ago"}}, {}, 0.4),
        ({"node": "pg1", "tenure": {"sent": "4.7s ago"}}, {}, 0.3),
        ({"node": "pg1", "fences": {"armed": {"epoch": 7, "deadline": "in 0.2s"}}}, {}, 0.2),
        ({"node": "pg1", "lease": {"debt": [6, "pg3", 2.0]}, "tenure": {"began": "1.6s ago"}}, {}, 0.4),
        ({"node": "pg1", "service": {"state": "down"}}, {"unwritable_since": -9.7}, 0.3),
        ({"lease": {"moved": "9s ago"}}, {"vacancy_since": -0.1}, 0.2),
        ({"outcomes": {"CastVote": {"ok": False, "ended": "0.1s ago"}}}, {}, 0.1),
        ({"outcomes": {"FollowLeader": {"ended": "1.6s ago"}}}, {}, 0.4),
        ({"intents": [{"kind": "pause", "seen": "59.6s ago"}]}, {}, 0.4),
        ({"observation": {"asked": "2.6s ago"}}, {}, 0.4),
        ({"observation": {"since": "9.6s ago"}}, {}, 0.4),
        ({"observation": "none"}, {}, 1.0),
        ({"service": {"state": "hung", "since": "9.6s ago"}}, {}, 0.4),
        ({"node": "pg1", "service": {"state": "hung", "since": "4.7s ago"}}, {}, 0.3),
        (FAR, {}, 1.0),
    ],
)
def test_the_nearest_bound_wakes(given: Mapping[str, Any], remembered: Mapping[str, float], seconds: float) -> None:
    assert wakes_s(given, **remembered) == pytest.approx(seconds, abs=0.001)


def test_a_bound_is_never_met_a_nanosecond_too_early() -> None:
    """(5 + 0.5) * 1.01 / 0.99 s is no whole number of nanoseconds: woken exactly there, the lease would not yet have run out."""
    ctx = context({"lease": {"moved": "5.2s ago"}})
    assert not ctx.is_expired
    late = type(ctx)(ctx.view, ctx.memory, ctx.engine, wake_up(ctx))
    assert late.is_expired
    early = Instant(late.now.boot_ns - SLACK_NS - 1, late.now.raw_ns - SLACK_NS - 1)
    assert not type(ctx)(ctx.view, ctx.memory, ctx.engine, early).is_expired


def drifted(given: Mapping[str, Any], boot_ns: int, raw_ns: int) -> tuple[int, int]:
    """What is left by each clock when they have run apart."""
    ctx = context(given)
    now = Instant(ctx.now.boot_ns + boot_ns, ctx.now.raw_ns + raw_ns)
    moment = wake_up(type(ctx)(ctx.view, ctx.memory, ctx.engine, now))
    return moment.boot_ns - now.boot_ns, moment.raw_ns - now.raw_ns


def test_clocks_that_ran_apart_wake_the_holder_by_the_faster_and_others_by_the_slower() -> None:
    ahead_ns = NANOSECONDS // 5
    holder = {"node": "pg1", "tenure": {"sent": "0.6s ago"}, "lease": {"moved": "0s ago"}}
    assert drifted(holder, ahead_ns, 0) == pytest.approx((0.2e9, 0.2e9), abs=10)
    observer = {"lease": {"moved": "2.1s ago"}, "members": {"pg1": {"heard": "0s ago"}, "pg3": {"heard": "0s ago"}}, "answered": "0s ago"}
    assert drifted(observer, ahead_ns, 0) == pytest.approx((0.4e9, 0.4e9), abs=10)


def test_a_bound_that_one_clock_has_passed_is_no_reason_to_spin() -> None:
    passed = drifted({"node": "pg1", "tenure": {"sent": "4.9s ago"}, "lease": {"moved": "0s ago"}}, NANOSECONDS, 0)
    assert min(passed) > NANOSECONDS // 2
