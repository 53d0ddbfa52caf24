from __future__ import annotations

from dataclasses import replace

import pytest

from agent.decision.situation import Situation
from agent.reporting.status import StatusDocument
from agent.web.health import LEADERSHIP, Part, health_of
from checks.base import Status
from tests.unit.agent.reporting.samples import check_status, document


def with_checks(*statuses: str) -> StatusDocument:
    return replace(document(), groups=(), checks=tuple(check_status(f"c{n}", status=s) for n, s in enumerate(statuses)))


def with_situation(situation: str, *blocking: str) -> StatusDocument:
    group = replace(document().groups[0], situation=situation, failover_possible=not blocking, blocking=blocking)
    return replace(document(), checks=(), groups=(group,))


def status_of(document: StatusDocument, part: Part = Part.ALL) -> Status:
    health = health_of(document, part)
    assert health is not None
    return health.status


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], Status.HEALTHY),
        (["healthy", "healthy"], Status.HEALTHY),
        (["healthy", "unknown"], Status.DEGRADED),
        (["degraded", "unknown"], Status.DEGRADED),
        (["unknown", "unhealthy"], Status.UNHEALTHY),
        (["what a newer agent says"], Status.DEGRADED),
    ],
)
def test_the_worst_counts_and_who_cannot_tell_is_never_unhealthy(statuses: list[str], expected: Status) -> None:
    assert status_of(with_checks(*statuses)) is expected


def test_every_situation_has_its_health() -> None:
    assert set(LEADERSHIP) == set(Situation)
    for situation, status in LEADERSHIP.items():
        assert status_of(with_situation(situation.value), Part.LEADERSHIP) is status


def test_no_failover_possible_is_degraded_and_says_why() -> None:
    health = health_of(with_situation("leading", "the group is paused"), Part.LEADERSHIP)
    assert health is not None
    assert health.status is Status.DEGRADED
    assert "No failover now: the group is paused." in health.checks[0].sentence
    assert status_of(with_situation("crashed", "nobody"), Part.LEADERSHIP) is Status.UNHEALTHY


def test_parts_hold_their_own_checks_only() -> None:
    database, leadership = health_of(document(), Part.DATABASE), health_of(document(), Part.LEADERSHIP)
    assert database is not None
    assert leadership is not None
    assert [item.name for item in database.checks] == ["pg-alive"]
    assert [item.name for item in leadership.checks] == ["pg-main"]


@pytest.mark.parametrize(
    ("part", "kind"), [(Part.DATABASE, "postgres"), (Part.REDIS, "redis"), (Part.TRAEFIK, "traefik"), (Part.LEADERSHIP, "consul")]
)
def test_a_check_belongs_to_the_part_of_its_kind(part: Part, kind: str) -> None:
    kinds = ("postgres", "redis", "traefik", "consul", "tcp")
    checks = tuple(replace(check_status(each, status="unhealthy"), kind=each) for each in kinds)
    health = health_of(replace(document(), groups=(), checks=checks), part)
    assert health is not None
    assert ([item.name for item in health.checks], health.status) == ([kind], Status.UNHEALTHY)


def test_a_part_that_is_not_configured_is_none_but_the_whole_never_is() -> None:
    bare = replace(document(), checks=(), groups=())
    assert health_of(bare, Part.DATABASE) is None
    assert health_of(bare, Part.LEADERSHIP) is None
    assert status_of(bare) is Status.HEALTHY
