from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from checks.traefik_facts import LoadBalancer, Overview, Router, Service, State, found

SERVICE = TypeAdapter(Service)
URLS = '{"url": "http://192.0.2.1"}, {"url": "http://192.0.2.2"}'


def service(more: str) -> Service:
    return SERVICE.validate_json(f'{{"name": "web@file", "status": "enabled", "type": "x"{more}}}')


def test_servers_and_those_that_are_down() -> None:
    seen = service(
        f', "loadBalancer": {{"servers": [{URLS}], "healthCheck": {{"path": "/"}}}},'
        '"serverStatus": {"http://192.0.2.1": "UP", "http://192.0.2.2": "DOWN"}'
    )
    assert (seen.servers, seen.down, seen.is_checked) == (2, ("http://192.0.2.2",), True)


def test_up_without_a_health_check_is_assumed() -> None:
    seen = service(f', "loadBalancer": {{"servers": [{URLS}]}}')
    assert (seen.servers, seen.down, seen.is_checked) == (2, (), False)
    assert service(', "loadBalancer": {}').servers == 0


def test_a_service_of_services_has_no_servers_of_its_own() -> None:
    assert service(', "weighted": {"services": []}').servers is None


def test_a_state_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError):
        SERVICE.validate_json('{"name": "a", "status": "odd"}')


def test_errors_and_warnings_are_counted_over_all() -> None:
    overview = TypeAdapter(Overview).validate_json(
        '{"http": {"routers": {"total": 3, "warnings": 1, "errors": 2}}, "tcp": {"services": {"total": 1, "errors": 1}}, "providers": []}'
    )
    assert (overview.errors, overview.warnings, overview.http.routers.total) == (3, 1, 3)


def test_a_name_without_a_provider_is_that_of_any() -> None:
    entries = (Router("web@file", State.ENABLED), Router("web@consul", State.ENABLED), Router("web2@file", State.ENABLED))
    assert [entry.name for entry in found(entries, "web")] == ["web@file", "web@consul"]
    assert [entry.name for entry in found(entries, "web@consul")] == ["web@consul"]
    assert found(entries, "we") == ()
    assert LoadBalancer().health_check is None
