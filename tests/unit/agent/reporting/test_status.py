from __future__ import annotations

import json
from dataclasses import replace

import pytest

from agent.coordination.lease import LeaseState, Position
from agent.decision.durability import SyncWait
from agent.decision.view import FenceLayer, Intent, IntentKind, LeaseView, MemberView, RouteState, RouteView, ServiceState, View, VoteView
from agent.reporting.status import (
    GroupStatus,
    MemberStatus,
    Role,
    StatusUnreadable,
    SyncWaitStatus,
    build_group_status,
    from_json,
    lag_bytes,
    position_text,
    sync_wait_status,
    to_json,
)
from tests.unit.agent.reporting.samples import NOW, document, leading_view, lease, member, record


def build(view: View, *blocking: str) -> GroupStatus:
    return build_group_status(view, "leading", "Renew when it is due.", "renew", blocking, NOW)


def member_of(view: View, name: str) -> MemberStatus:
    return next(m for m in build(view).members if m.name == name)


def with_member(seen: MemberView) -> View:
    view = leading_view()
    return replace(view, members={**view.members, seen.name: seen})


def test_json_there_and_back() -> None:
    view = replace(
        leading_view(),
        intents=(Intent("i1", 9, IntentKind.SWITCHOVER, "pg2", 3, "anna@desk", "kernel", NOW.after(-2)),),
        votes={"edge1": VoteView("edge1", 5, 3, down=True, evidence="refused")},
    )
    whole = replace(document(), groups=(build(view, "nobody is there"),))
    assert from_json(to_json(whole)) == whole
    assert json.loads(to_json(whole))["groups"][0]["members"][0]["position_text"] == "2/0/3000148"


def test_json_of_a_newer_version_is_read_and_of_something_else_is_not() -> None:
    raw = json.loads(to_json(document()))
    assert from_json(json.dumps({**raw, "weather": "fine"})) == document()
    with pytest.raises(StatusUnreadable, match="node: Field required"):
        from_json(json.dumps({k: v for k, v in raw.items() if k != "node"}))
    with pytest.raises(StatusUnreadable, match="cannot read"):
        from_json("<html>")


def test_position_is_written_as_postgres_writes_it() -> None:
    assert position_text(Position(12, 0x1_0300_0148)) == "12/1/3000148"


def test_leader_and_lease() -> None:
    status = build(leading_view())
    assert (status.leader, status.epoch, status.lease_moved_s) == ("pg1", 3, 0.3)
    assert status.lease_remaining_s == 3.5, "the watchdog's deadline is earlier than the own one (4 s)"
    assert status.failover_possible
    assert not build(leading_view(), "nobody could").failover_possible


@pytest.mark.parametrize("change", ["another epoch", "no watchdog asked for"])
def test_a_deadline_that_does_not_bind_is_not_shown(change: str) -> None:
    view = leading_view()
    if change == "another epoch":
        view = replace(view, fences=replace(view.fences, armed_epoch=2))
    else:
        view = replace(view, group=replace(view.group, required_fences=frozenset[FenceLayer]()))
    assert build(view).lease_remaining_s == 4.0


def test_only_the_holder_knows_what_is_left() -> None:
    assert build(replace(leading_view(), node="pg2", tenure=None)).lease_remaining_s is None


def test_a_vacated_lease_has_no_leader_and_a_missing_one_nothing() -> None:
    vacated = replace(leading_view(), lease=lease(replace(record(), state=LeaseState.VACATED)), tenure=None)
    assert build(vacated).leader is None
    missing = build(replace(leading_view(), lease=LeaseView(), tenure=None))
    assert (missing.leader, missing.epoch, missing.votes_needed, missing.lease_moved_s, missing.paused) == (None, None, None, None, False)


def with_vip(seen: MemberView, *, present: bool, rival: str = "", sentence: str = "") -> MemberView:
    return replace(seen, routes=(RouteView("vip 192.0.2.100", present, rival, sentence=sentence),))


def test_members_then_witnesses_with_their_roles() -> None:
    members = build(leading_view()).members
    assert [(m.name, m.role) for m in members] == [("pg1", Role.LEADER), ("pg2", Role.STANDBY), ("edge1", Role.WITNESS)]
    assert all(m.healthy for m in members)
    assert [m.lag_bytes for m in members] == [None, 0x48, None]


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (replace(member("pg2", ServiceState.STANDBY, 1, "pg1"), moved=NOW.after(-60)), "its agent is not heard"),
        (member("pg2", ServiceState.DOWN, 1), "its service is down"),
        (member("pg2", ServiceState.PRIMARY, 1), "it takes writes and is not the leader"),
        (member("pg2", ServiceState.STANDBY, 1, "pg3"), "it does not follow pg1"),
        (replace(member("pg2", ServiceState.STANDBY, 1, "pg1"), receiving=False), "it receives nothing from pg1"),
        (replace(member("pg2", ServiceState.STANDBY, 1, "pg1"), problem="its disk is full"), "its disk is full"),
        (member("pg1", ServiceState.HUNG, 1), "it holds the lease and its service is hung"),
        (with_vip(member("pg1", ServiceState.PRIMARY, 1), present=False), "vip 192.0.2.100 is not raised"),
        (with_vip(member("pg1", ServiceState.PRIMARY, 1), present=True, rival="x", sentence="two answer"), "two answer"),
        (with_vip(member("pg2", ServiceState.STANDBY, 1, "pg1"), present=True), "it has vip 192.0.2.100 and is not the leader"),
        (replace(member("edge1", ServiceState.UNKNOWN, 1), moved=NOW.after(-60)), "its agent is not heard"),
    ],
)
def test_a_problem_is_said(seen: MemberView, problem: str) -> None:
    status = member_of(with_member(seen), seen.name)
    assert (status.healthy, status.problem) == (False, problem)


def test_an_address_is_well_where_the_leader_is_and_nowhere_else() -> None:
    one, two = member("pg1", ServiceState.PRIMARY, 1), member("pg2", ServiceState.STANDBY, 1, "pg1")
    seen = {"pg1": with_vip(one, present=True), "pg2": with_vip(two, present=False)}
    members = build(replace(leading_view(), members=seen)).members[:2]
    assert [m.problem for m in members] == ["", ""]
    assert [[route.state for route in m.routes] for m in members] == [[RouteState.PRESENT], [RouteState.ABSENT]]


def test_a_member_that_was_never_heard_of_is_listed() -> None:
    view = leading_view()
    status = member_of(replace(view, members={"pg1": view.members["pg1"]}), "pg2")
    assert (status.state, status.problem, status.position_text, status.heartbeat_age_s) == (
        ServiceState.UNKNOWN,
        "never heard of",
        None,
        None,
    )


def test_lag_is_unknown_across_timelines_and_never_negative() -> None:
    other_timeline = replace(member("pg2", ServiceState.STANDBY, 5, "pg1"), position=Position(1, 5))
    assert lag_bytes(with_member(other_timeline), "pg2") is None
    assert lag_bytes(with_member(replace(other_timeline, position=None)), "pg2") is None
    ahead = member("pg2", ServiceState.STANDBY, 0x9999999, "pg1")
    assert lag_bytes(with_member(ahead), "pg2") == 0


def test_only_votes_of_this_epoch_by_the_living_count() -> None:
    votes = {
        "edge1": VoteView("edge1", 1, 3, down=True, evidence="refused"),
        "pg2": VoteView("pg2", 2, 2, down=True),
        "stranger": VoteView("stranger", 3, 3, down=True),
    }
    counted = {v.voter: v.counts for v in build(replace(leading_view(), votes=votes)).votes}
    assert counted == {"edge1": True, "pg2": False, "stranger": False}


def test_how_long_commits_wait_and_for_whom() -> None:
    wait = SyncWait(("pg2",), NOW.after(-2.0), NOW.after(1.0))
    assert sync_wait_status(wait, NOW) == SyncWaitStatus(("pg2",), 2.0, 1.0)
    assert sync_wait_status(wait, NOW.after(5.0)) == SyncWaitStatus(("pg2",), 7.0, 0.0)
    assert sync_wait_status(None, NOW) is None


def test_fences_are_sorted_and_whole() -> None:
    fences = build(leading_view()).fences
    assert fences.standing == fences.required == (FenceLayer.SEAL, FenceLayer.WATCHDOG)
    assert (fences.watchdog_alive, fences.armed_epoch, fences.refused) == (True, 3, "")
    view = leading_view()
    assert build(replace(view, fences=replace(view.fences, kernel_problem="no right"))).fences.kernel_problem == "no right"
