from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision import durability
from agent.decision.durability import SyncPlan
from tests.scenarios.building import context

PG2_SYNC = {"name": "pg2", "sync": True, "flushed": 4000}
ALONE: list[dict[str, Any]] = []


def plan(durability_: str, set_: list[str] | None, service: Mapping[str, Any], missing_s: float | None = None) -> SyncPlan:
    given = {"node": "pg1", "group": {"durability": durability_}, "lease": {"sync_set": set_}, "service": service}
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


@pytest.mark.parametrize(
    ("replicas", "names", "best"),
    [
        ([], [], None),
        ([{"name": "pg3"}, {"name": "pg2"}], [], "pg2"),
        ([{"name": "pg3"}, {"name": "pg2"}], ["pg3"], "pg3"),
        ([{"name": "pg3"}, {"name": "pg2", "streaming": False}], [], "pg3"),
        ([{"name": "stranger"}, {"name": "pg1"}], [], None),
    ],
)
def test_the_best_standby_is_the_one_waited_for_then_by_priority(replicas: list[Any], names: list[str], best: str | None) -> None:
    ctx = context({"node": "pg1", "service": {"replicas": replicas, "sync_names": names}})
    found = durability.best_replica(ctx.group, "pg1", ctx.view.service)
    assert (None if found is None else found.name) == best


@pytest.mark.parametrize("standing", [{"nofailover": True}, {"priority": 0}])
def test_a_standby_that_may_never_lead_is_not_waited_for(standing: dict[str, Any]) -> None:
    ctx = context({"node": "pg1", "group": {"members": {"pg1": {}, "pg2": standing}}})
    assert durability.best_replica(ctx.group, "pg1", ctx.view.service) is None


@pytest.mark.parametrize(
    ("set_", "names", "replicas", "missing"),
    [
        (["pg2"], [], [{"name": "pg2"}], False),
        (["pg2"], [], [{"name": "pg2", "streaming": False}], True),
        ([], ["pg2"], [], True),
        (None, [], [], False),
    ],
)
def test_somebody_promised_or_waited_for_is_missing(set_: list[str] | None, names: list[str], replicas: list[Any], missing: bool) -> None:
    ctx = context({"node": "pg1", "lease": {"sync_set": set_}, "service": {"sync_names": names, "replicas": replicas}})
    assert ctx.record is not None
    assert durability.is_missing(ctx.record, ctx.view.service) is missing
