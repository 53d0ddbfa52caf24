from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from agent.decision import routes
from agent.decision.command import DropRoutes, HookRole, ProbeRoutes, RaiseRoutes, VacateLease
from agent.decision.engine import decide
from agent.decision.memory import Memory
from agent.decision.view import ServiceState
from tests.scenarios.anything import scenes
from tests.scenarios.building import Scene, context

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PRESENT, ABSENT = ["present"], ["absent"]


@PATIENT
@given(scenes())
def test_only_a_live_holder_whose_service_takes_writes_raises(seen: tuple[Scene, Memory]) -> None:
    decision = decide(seen[1], seen[0].view, seen[0].now)
    kinds = {type(command) for command in decision.commands}
    assert not {RaiseRoutes, DropRoutes} <= kinds
    if RaiseRoutes in kinds:
        view = seen[0].view
        assert view.tenure is not None
        assert view.service.state is ServiceState.PRIMARY
        assert view.highest_epoch <= view.tenure.epoch
        assert not view.tenure.record.paused


@PATIENT
@given(scenes())
def test_the_lease_is_given_up_with_an_address_up_only_after_the_drop_had_its_time(seen: tuple[Scene, Memory]) -> None:
    decision = decide(seen[1], seen[0].view, seen[0].now)
    if any(isinstance(command, VacateLease) for command in decision.commands):
        fence = seen[0].view.outcomes["FenceService"]
        waited_ns = seen[0].now.raw_ns - fence.ended.raw_ns
        assert not any(route.present is not False for route in seen[0].view.routes) or waited_ns >= 0.4e9


@pytest.mark.parametrize(
    ("state", "drops"),
    [
        *[(state, True) for state in ("down", "standby")],
        *[(state, False) for state in ("primary", "crashed", "hung", "starting", "unknown")],
    ],
)
def test_under_a_live_lease_only_a_proven_no_takes_it_off(state: str, drops: bool) -> None:
    assert routes.must_drop(context({"node": "pg1", "service": {"state": state}, "routes": PRESENT})) is drops


@pytest.mark.parametrize("state", ["down", "standby", "starting", "unknown", "hung"])
def test_without_the_lease_it_is_taken_off(state: str) -> None:
    service: dict[str, Any] = {"state": state, "upstream": "none"}
    assert routes.must_drop(context({"node": "pg2", "service": service, "routes": PRESENT}))


def test_a_stray_primary_is_killed_first() -> None:
    given: dict[str, Any] = {"node": "pg2", "service": {"state": "primary"}, "routes": PRESENT}
    assert not routes.must_drop(context(given))
    assert routes.must_drop(context({**given, "outcomes": {"FenceService": {"ok": False}}}))


def test_nothing_is_raised_while_a_give_up_is_on_its_way() -> None:
    given: dict[str, Any] = {"node": "pg1", "routes": ABSENT}
    assert routes.must_raise(context(given))
    assert not routes.must_raise(context({**given, "tenure": {"attempts": [{"state": "vacated"}]}}))
    assert not routes.must_raise(context({**given, "went_back": True}))
    assert not routes.must_raise(context({**given, "highest_epoch": 8}))


def test_an_old_answer_of_the_link_is_asked_again_before_a_promotion() -> None:
    def due(asked: str) -> bool:
        return routes.must_probe(context({"node": "pg1", "service": {"state": "standby"}, "routes": [{"asked": asked}]}))

    assert not due("4.9s ago")
    assert due("5.1s ago")


def hooks(role: str | None, epoch: int = 7, **given: Any) -> tuple[HookRole, int] | None:
    told = {} if role is None else {"told": {"epoch": epoch, "role": role}}
    return routes.occasion(context({"group": {"hooks": ["elected", "defeated"]}, **told, **given}))


def test_hooks_are_told_once_an_epoch_and_after_the_address_stands() -> None:
    assert hooks(None, node="pg1") == (HookRole.ELECTED, 7)
    assert hooks("elected", node="pg1") is None
    assert hooks("elected", 6, node="pg1") == (HookRole.ELECTED, 7)
    assert hooks("defeated", node="pg1") == (HookRole.ELECTED, 7)
    assert hooks(None, node="pg1", routes=ABSENT) is None
    assert hooks(None, node="pg1", routes=PRESENT) == (HookRole.ELECTED, 7)


def test_only_who_was_told_that_it_leads_is_told_that_it_does_not() -> None:
    assert hooks(None, node="pg2") is None
    assert hooks("defeated", node="pg2") is None
    assert hooks("elected", 6, node="pg2") == (HookRole.DEFEATED, 6)
    assert hooks("elected", 6, node="pg2", routes=PRESENT) is None
    assert hooks("elected", 6, node="pg2", answered="never") is None
    assert hooks("elected", 6, node="pg2", service={"state": "primary"}) is None


def test_a_hook_that_fails_is_tried_three_times_for_one_occasion() -> None:
    def tries(failures: int, role: str = "elected") -> bool:
        last = {"ok": False, "failures": failures, "ended": "60s ago", "command": {"role": role}}
        given: dict[str, Any] = {"node": "pg1", "group": {"hooks": ["elected"]}, "outcomes": {"RunHooks": last}}
        return routes.must_run_hooks(context(given))

    assert [tries(failures) for failures in (1, 2, 3, 9)] == [True, True, False, False]
    assert tries(9, role="defeated")


def test_its_commands_are_those_of_the_rules() -> None:
    ctx = context({"node": "pg1", "service": {"state": "standby"}, "routes": ABSENT})
    decision = decide(Memory(), ctx.view, ctx.now)
    assert any(isinstance(c, ProbeRoutes) for c in decision.commands)
