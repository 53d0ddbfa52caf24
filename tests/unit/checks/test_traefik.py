from __future__ import annotations

import pytest
from pydantic import ValidationError

from checks.base import Level, Status
from checks.traefik import TraefikCheck, TraefikOptions, _conclude
from checks.traefik_facts import Count, LoadBalancer, Overview, Router, Section, Service, State, TraefikFacts

CALM = Overview(http=Section(routers=Count(4), services=Count(5)))


def service(name: str, down: int, of: int, *, is_checked: bool = True) -> Service:
    status = {f"http://192.0.2.{n}": "DOWN" if n < down else "UP" for n in range(of)}
    balancer = LoadBalancer(servers=tuple(status), healthCheck={} if is_checked else None)
    return Service(name=name, status=State.ENABLED, serverStatus=status, loadBalancer=balancer)


def said(level: Level, facts: TraefikFacts, **options: object) -> tuple[Status, str]:
    check = TraefikCheck(level, TraefikOptions.model_validate({"url": "http://x", **options}))
    result = _conclude("it", facts, tuple(check._findings(facts, frozenset({"web"}))))
    return result.status, result.sentence


@pytest.mark.parametrize(
    ("down", "of", "status"), [(0, 2, Status.HEALTHY), (1, 2, Status.DEGRADED), (2, 2, Status.UNHEALTHY), (0, 0, Status.UNHEALTHY)]
)
def test_how_many_servers_of_a_named_service_are_down(down: int, of: int, status: Status) -> None:
    assert said(Level.READINESS, TraefikFacts(CALM, (), (service("web@file", down, of),)), services=["web"])[0] is status


def test_deep_looks_at_every_service_and_does_not_say_a_named_one_twice() -> None:
    facts = TraefikFacts(CALM, (), (service("a@file", 2, 2), service("b@file", 1, 2), service("c@file", 0, 0)))
    status, sentence = said(Level.DEEP, facts, services=["a"])
    assert status is Status.UNHEALTHY
    assert sentence.count("a@file") == 1
    assert sentence.startswith(
        "it: all 2 server(s) of service a@file are DOWN; 1 of 2 servers of service b@file are DOWN: http://192.0.2.0"
    )
    assert sentence.endswith("service c@file has no servers")


def test_routers_by_their_state() -> None:
    broken, doubtful = Router("a@file", State.DISABLED, ("no\nsuch",)), Router("b@file", State.WARNING, ("hm",))
    facts = TraefikFacts(CALM, (broken, doubtful))
    assert said(Level.READINESS, facts, routers=["a"]) == (Status.UNHEALTHY, "it: router a@file is disabled: no such")
    assert said(Level.READINESS, facts, routers=["b"]) == (Status.DEGRADED, "it: router b@file has a warning: hm")
    assert said(Level.READINESS, facts, routers=["c"])[0] is Status.UNHEALTHY


def test_entry_points_and_counts() -> None:
    troubled = TraefikFacts(Overview(http=Section(middlewares=Count(1, 2, 1))))
    assert said(Level.READINESS, troubled, entry_points=["web"])[0] is Status.HEALTHY
    assert said(Level.READINESS, troubled, entry_points=["websecure"]) == (Status.UNHEALTHY, "it: there is no entry point websecure")
    status, sentence = said(Level.DEEP, troubled)
    assert (status, "1 error(s)" in sentence, "2 warning(s)" in sentence) == (Status.DEGRADED, True, True)


def test_what_is_well_says_what_it_does_not_check_and_is_bounded() -> None:
    services = tuple(service(f"s{n}@file", 0, 1, is_checked=False) for n in range(9))
    status, sentence = said(Level.DEEP, TraefikFacts(CALM, (), services))
    assert status is Status.HEALTHY
    assert sentence.startswith("it has 4 routers and 5 services; it does not check the servers of s0@file, s1@file")
    assert sentence.endswith("and 4 more")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"user": "a"}, "user together with password"),
        ({"password": "a"}, "user together with password"),
        ({"user": "a", "password": "b", "password_file": "/c"}, "not both"),
        ({"url": "http://x/?a=b"}, "the address alone"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TraefikOptions.model_validate({"url": "http://x", **options})
