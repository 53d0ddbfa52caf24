from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.coordination.lease import Position
from agent.decision import durability
from agent.decision.durability import SyncPlan
from agent.decision.view import Replica, ServiceState, ServiceView
from agent.instant import Instant
from tests.scenarios.building import context

PG2_SYNC = {"name": "pg2", "sync": True, "flushed": 4000}
ALONE: list[dict[str, Any]] = []


def plan(durability_: str, set_: list[str] | None, service: Mapping[str, Any], missing_s: float | None = None) -> SyncPlan:
    given = {"node": "pg1", "group": {"durability": durability_}, "lease": {"sync_set": set_}, "service": {"seen": "0s ago", **service}}
    return context(given, **({} if missing_s is None else {"sync_missing_since": -missing_s})).sync_plan


@pytest.mark.parametrize(
    ("durability_", "set_", "service", "missing_s", "changes", "record_set", "names"),
    [
        ("async", None, {}, None, False, None, None),
        ("async", None, {"sync_names": ["pg2"]}, None, False, None, ()),
        ("async", ["pg2"], {}, None, True, None, None),
        ("sync", None, {}, None, True, (), None),
        ("sync", ["pg2"], {}, None, False, None, None),
        ("sync", ["pg2"], {"sync_names": ["pg3"]}, None, False, None, ("pg2",)),
        ("sync", ["pg2"], {"replicas": ALONE}, 2.9, False, None, None),
        ("sync", ["pg2"], {"replicas": ALONE}, 3.0, True, (), None),
        ("sync", [], {"replicas": ALONE}, None, False, None, None),
        ("sync", [], {"replicas": ALONE, "sync_names": ["pg2"]}, 2.9, False, None, None),
        ("sync", [], {"replicas": ALONE, "sync_names": ["pg2"]}, 3.0, False, None, ()),
        ("sync", [], {"replicas": [PG2_SYNC]}, None, False, None, ("pg2",)),
        ("sync", [], {"replicas": [PG2_SYNC], "sync_names": ["pg2"]}, None, False, None, ("pg2",)),
        ("sync", [], {"replicas": [PG2_SYNC], "sync_names": ["pg2"], "sync_effective_lsn": 4001}, None, False, None, None),
        (
            "sync",
            [],
            {"replicas": [{**PG2_SYNC, "sync": False}], "sync_names": ["pg2"], "sync_effective_lsn": 4000},
            None,
            False,
            None,
            None,
        ),
        ("sync", [], {"replicas": [PG2_SYNC], "sync_names": ["pg2"], "sync_effective_lsn": 4000}, None, True, ("pg2",), None),
    ],
)
def test_one_step_at_a_time(
    durability_: str,
    set_: list[str] | None,
    service: Mapping[str, Any],
    missing_s: float | None,
    changes: bool,
    record_set: tuple[str, ...] | None,
    names: tuple[str, ...] | None,
) -> None:
    step = plan(durability_, set_, service, missing_s)
    assert (step.record_changes, step.record_set, step.names) == (changes, record_set, names)


def test_what_was_not_looked_at_since_proves_no_silence() -> None:
    assert not plan("sync", ["pg2"], {"replicas": ALONE, "seen": "0.1s ago"}, 3.05).record_changes


@pytest.mark.parametrize(
    ("replicas", "names", "best"),
    [
        ([{"name": "pg2", "heard": "3s ago"}, {"name": "pg3", "heard": "2.9s ago"}], ["pg2"], "pg3"),
        ([{"name": "pg2", "heard": "never"}], [], None),
        ([{"name": "pg2", "heard": "9s ago"}, {"name": "pg2", "sender": 101}], [], None),
        ([{"name": "pg2", "heard": "9s ago", "streaming": False}, {"name": "pg2", "sender": 101}], [], "pg2"),
        ([], [], None),
        ([{"name": "pg3"}, {"name": "pg2"}], [], "pg2"),
        ([{"name": "pg3"}, {"name": "pg2"}], ["pg3"], "pg3"),
        ([{"name": "pg3"}, {"name": "pg2", "streaming": False}], [], "pg3"),
        ([{"name": "stranger"}, {"name": "pg1"}], [], None),
    ],
)
def test_the_best_standby_is_the_one_waited_for_then_by_priority(replicas: list[Any], names: list[str], best: str | None) -> None:
    ctx = context({"node": "pg1", "service": {"replicas": replicas, "sync_names": names, "seen": "0s ago"}})
    found = durability.best_replica(ctx.group, "pg1", ctx.view.service)
    assert (None if found is None else found.name) == best


@pytest.mark.parametrize("standing", [{"nofailover": True}, {"priority": 0}])
def test_a_standby_that_may_never_lead_is_not_waited_for(standing: dict[str, Any]) -> None:
    ctx = context({"node": "pg1", "group": {"members": {"pg1": {}, "pg2": standing}}})
    assert durability.best_replica(ctx.group, "pg1", ctx.view.service) is None


PG2 = {"name": "pg2", "heard": "0s ago"}
SILENT = {"name": "pg2", "heard": "0.7s ago"}
UNHEARD = {"name": "pg2", "heard": "never"}


@pytest.mark.parametrize(
    ("set_", "names", "replicas", "before_s", "missing_s"),
    [
        (["pg2"], [], [PG2], None, None),
        (["pg2"], [], [PG2], 5.0, None),
        (["pg2"], [], [{**PG2, "streaming": False}], None, 0.0),
        (["pg2"], [], [{**PG2, "streaming": False}], 0.4, 0.4),
        ([], ["pg2"], [], None, 0.0),
        (None, [], [], 5.0, None),
        (["pg2"], [], [SILENT], None, 0.7),
        (["pg2"], [], [SILENT], 5.0, 0.7),
        (["pg2"], [], [UNHEARD], None, 0.0),
        (["pg2"], [], [UNHEARD], 0.4, 0.4),
        (["pg2"], [], [PG2, {**SILENT, "sender": 101}], None, 0.7),
        (["pg2"], ["pg2", "pg3"], [SILENT], None, 0.7),
    ],
)
def test_since_when_somebody_promised_or_waited_for_shows_no_life(
    set_: list[str] | None, names: list[str], replicas: list[Any], before_s: float | None, missing_s: float | None
) -> None:
    given = {"node": "pg1", "lease": {"sync_set": set_}, "service": {"sync_names": names, "replicas": replicas, "seen": "0s ago"}}
    ctx = context(given)
    assert ctx.record is not None
    before = None if before_s is None else ctx.now.after(-before_s)
    since = durability.missing_since(ctx.record, ctx.view.service, before, ctx.now)
    assert since == (None if missing_s is None else ctx.now.after(-missing_s))


# ------------------------------------------------------------------ signs of life

NOW = Instant(10 * 10**9, 10 * 10**9)
EARLIER = NOW.after(-4.0)


def primary(lsn: int, *replicas: Replica, state: ServiceState = ServiceState.PRIMARY) -> ServiceView:
    return ServiceView(state, position=Position(1, lsn), replicas=replicas)


def standby(flushed: int, reply: str = "12:00", sender: int = 100, heard: Instant | None = EARLIER) -> Replica:
    return Replica("pg2", streaming=True, flushed_lsn=flushed, is_sync=True, sender=sender, reply=reply, owes=flushed < 50, heard=heard)


@pytest.mark.parametrize(
    ("before", "seen", "heard"),
    [
        (primary(50, standby(40)), primary(60, standby(40, heard=None)), EARLIER),
        (primary(50, standby(40)), primary(60, standby(40, reply="12:01", heard=None)), NOW),
        (primary(50, standby(40)), primary(60, standby(40, reply="11:59", heard=None)), NOW),
        (primary(50, standby(40)), primary(60, standby(41, heard=None)), NOW),
        (primary(50, standby(50)), primary(50, standby(50, heard=None)), NOW),
        (primary(50, standby(50)), primary(60, standby(50, heard=None)), NOW),
        (primary(50, standby(40)), primary(60, standby(40, sender=101, heard=None)), NOW),
        (primary(50), primary(60, standby(40, heard=None)), NOW),
        (primary(50, standby(40, heard=None)), primary(60, standby(40, heard=None)), None),
        (primary(50, state=ServiceState.STANDBY), primary(60, standby(40, heard=None)), None),
        (primary(50, standby(40), state=ServiceState.HUNG), primary(60, standby(40, heard=None)), EARLIER),
        (primary(50, standby(40), state=ServiceState.HUNG), primary(60, standby(40, reply="12:01", heard=None)), NOW),
        (primary(50, standby(40)), ServiceView(ServiceState.HUNG), EARLIER),
        (ServiceView(ServiceState.UNKNOWN), primary(60, standby(60, heard=None)), NOW),
        (ServiceView(ServiceState.UNKNOWN), primary(60, standby(40, heard=None)), None),
    ],
)
def test_a_standby_that_owes_an_answer_is_alive_when_it_gives_any(before: ServiceView, seen: ServiceView, heard: Instant | None) -> None:
    [replica] = durability.with_signs_of_life(before, seen, NOW).replicas
    assert replica.heard == heard


# ------------------------------------------------------------------ for people


@pytest.mark.parametrize(
    ("given", "standbys"),
    [
        ({"service": {"replicas": [{**SILENT, "heard": "1s ago"}]}}, ("pg2",)),
        ({"service": {"replicas": [{**SILENT, "heard": "0.9s ago"}]}}, None),
        ({"service": {"replicas": [{**SILENT, "heard": "9s ago"}], "sync_names": []}}, None),
        ({"service": {"replicas": [{**SILENT, "heard": "9s ago"}], "state": "hung"}}, None),
        ({"service": {"replicas": [{**SILENT, "heard": "9s ago"}]}, "tenure": "none"}, None),
    ],
)
def test_commits_that_wait_in_vain_are_named_after_a_second(given: Mapping[str, Any], standbys: tuple[str, ...] | None) -> None:
    whole = {"node": "pg1", "group": {"durability": "sync"}, "lease": {"sync_set": ["pg2"]}, **given}
    seconds = float(given["service"]["replicas"][0]["heard"].split("s")[0])
    ctx = context({**whole, "service": {"seen": "0s ago", **given["service"]}}, sync_missing_since=-seconds)
    wait = ctx.sync_wait
    assert (None if wait is None else (wait.standbys, wait.since, wait.until)) == (
        None if standbys is None else (standbys, ctx.now.after(-seconds), ctx.now.after(3.0 - seconds))
    )
