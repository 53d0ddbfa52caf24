from __future__ import annotations

from dataclasses import replace

import pytest

from agent.coordination.lease import Position
from agent.decision.view import LeaseView, ServiceState, ServiceView, View
from agent.reporting.serving import serves_as
from tests.unit.agent.reporting.samples import NOW, leading_view, lease, record


def standby_view() -> View:
    service = ServiceView(ServiceState.STANDBY, NOW.after(-0.1), position=Position(2, 0x3000100), upstream="pg1", receiving=True)
    return replace(leading_view(), node="pg2", tenure=None, service=service)


def test_a_leader_takes_writes_under_a_lease() -> None:
    serves = serves_as(leading_view(), NOW)
    assert (serves.leader, serves.replica, serves.sync) == (True, False, False)


@pytest.mark.parametrize("late_s", [3.5, 4.0, 100.0])
def test_a_leader_whose_lease_is_over_is_nothing(late_s: float) -> None:
    view = leading_view()
    fresh = replace(view, service=replace(view.service, seen=NOW.after(late_s)))
    serves = serves_as(fresh, NOW.after(late_s))
    assert not serves.leader
    assert "no lease that lasts" in serves.sentence


def test_a_primary_without_a_lease_is_nothing() -> None:
    assert not serves_as(replace(leading_view(), tenure=None), NOW).leader


def test_old_facts_are_no_facts() -> None:
    view = leading_view()
    for service in (replace(view.service, seen=NOW.after(-3.1)), replace(view.service, seen=None)):
        assert serves_as(replace(view, service=service), NOW).sentence == "nobody has looked at the service lately"


def test_a_streaming_standby_is_a_replica_and_sync_when_in_the_set() -> None:
    serves = serves_as(standby_view(), NOW)
    assert (serves.leader, serves.replica, serves.sync, serves.lag_bytes) == (False, True, True, 0x48)
    alone = replace(standby_view(), lease=lease(replace(record(), sync_set=None)))
    assert (serves_as(alone, NOW).replica, serves_as(alone, NOW).sync) == (True, False)


@pytest.mark.parametrize("state", [s for s in ServiceState if s not in (ServiceState.PRIMARY, ServiceState.STANDBY)])
def test_any_other_state_is_nothing(state: ServiceState) -> None:
    view = standby_view()
    serves = serves_as(replace(view, service=replace(view.service, state=state)), NOW)
    assert (serves.leader, serves.replica, serves.sync) == (False, False, False)


def test_a_standby_that_does_not_receive_from_the_leader_is_nothing() -> None:
    view = standby_view()
    for service in (replace(view.service, receiving=False), replace(view.service, upstream="pg3")):
        assert not serves_as(replace(view, service=service), NOW).replica
    assert not serves_as(replace(view, lease=LeaseView()), NOW).replica
