"""The traefik check on a real Traefik, whose servers are real, refuse, or are not checked at all."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from checks.base import Level, Result, RunLog, Status
from checks.traefik import TraefikCheck, TraefikOptions
from checks.traefik_facts import TraefikFacts
from tests.polling import eventually_async
from tests.servers.misbehaving import answering
from tests.servers.traefik import TraefikServer

TIMEOUT_S = 5.0


class _Well(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        """Says nothing."""


@contextmanager
def backend() -> Iterator[str]:
    """A server that is well; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Well)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def dynamic(*servers: str, more: str = "") -> str:
    listed = ", ".join(f'{{url: "{server}"}}' for server in servers)
    return f"""
http:
  routers:
    web: {{rule: "Host(`web.example.test`)", service: web, entryPoints: [web]}}
    {more}
  services:
    web: {{loadBalancer: {{healthCheck: {{path: /, interval: 200ms, timeout: 100ms}}, servers: [{listed}]}}}}
"""


NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="session")
def binary() -> Path:
    from tests.plugins.left_out import require_part  # noqa: PLC0415 (a plugin must not be imported before pytest loads it)

    return require_part("Traefik")


@pytest.fixture
def traefik(binary: Path) -> Iterator[TraefikServer]:
    """A Traefik of this test's own; it serves nothing yet."""
    with TraefikServer(binary, "http: {}\n") as server:
        server.start()
        yield server


async def probe(server: TraefikServer | str, level: Level = Level.READINESS, timeout_s: float = TIMEOUT_S, **options: object) -> Result:
    url = server if isinstance(server, str) else server.url
    check = TraefikCheck(level, TraefikOptions.model_validate({"url": url, **options}))
    result = await check.probe(timeout_s, RunLog())
    await check.close()
    assert "hunter2" not in repr(result)
    return result


async def reached(server: TraefikServer, level: Level, status: Status, words: str, **options: object) -> Result:
    """The first result that is so: Traefik takes a moment to read its file and to ask its servers."""
    last: list[Result] = []

    async def is_so() -> bool:
        last[:] = [await probe(server, level, **options)]
        return last[0].status is status and words in last[0].sentence

    try:
        await eventually_async(is_so, 20.0)
    except AssertionError:
        pytest.fail(f"the last result was {last}")
    return last[0]


async def test_one_with_all_servers_up_is_healthy_at_every_level(traefik: TraefikServer) -> None:
    with backend() as first, backend() as second:
        traefik.change(dynamic(first, second))
        wanted = {"services": ["web@file"], "routers": ["web"], "entry_points": ["web"]}
        ready = await reached(traefik, Level.READINESS, Status.HEALTHY, "routers and", **wanted)
        deep = await reached(traefik, Level.DEEP, Status.HEALTHY, "routers and", **wanted)
        alive = await probe(traefik, Level.LIVENESS)
    assert alive.sentence == f"Traefik at {traefik.url} answers"
    assert isinstance(ready.facts, TraefikFacts)
    assert [service.name for service in ready.facts.services if service.name.endswith("@file")] == ["web@file"]
    assert isinstance(deep.facts, TraefikFacts)
    assert deep.facts.overview.http.routers.errors == 0


async def test_some_servers_down_is_degraded_and_all_is_unhealthy(traefik: TraefikServer) -> None:
    with backend() as first:
        traefik.change(dynamic(first, NOBODY))
        await reached(traefik, Level.READINESS, Status.DEGRADED, "1 of 2 servers of service web@file are DOWN: " + NOBODY, services=["web"])
        await reached(traefik, Level.DEEP, Status.DEGRADED, "1 of 2 servers of service web@file are DOWN")
    await reached(traefik, Level.READINESS, Status.UNHEALTHY, "all 2 server(s) of service web@file are DOWN", services=["web@file"])
    await reached(traefik, Level.DEEP, Status.UNHEALTHY, "all 2 server(s) of service web@file are DOWN")
    unasked = await probe(traefik, Level.READINESS)
    assert unasked.status is Status.HEALTHY


async def test_what_must_be_there_and_is_not_is_unhealthy(traefik: TraefikServer) -> None:
    assert (await probe(traefik, services=["web@file"])).sentence.endswith("there is no service web@file")
    assert (await probe(traefik, routers=["web"])).sentence.endswith("there is no router web")
    both = await probe(traefik, entry_points=["web", "websecure"], routers=["x"])
    assert both.status is Status.UNHEALTHY
    assert both.sentence.endswith("there is no entry point websecure; there is no router x")


async def test_a_router_with_an_error_is_told_by_its_name_and_by_the_counts(traefik: TraefikServer) -> None:
    traefik.change(dynamic(NOBODY, more='bad: {rule: "Host(`b.example.test`)", service: nowhere}'))
    result = await reached(traefik, Level.READINESS, Status.UNHEALTHY, "router bad@file is disabled", routers=["bad"])
    assert "does not exist" in result.sentence
    assert "1 error(s)" in (await probe(traefik, Level.DEEP)).sentence


async def test_up_that_nobody_checked_is_said(traefik: TraefikServer) -> None:
    traefik.change(f'http: {{services: {{plain: {{loadBalancer: {{servers: [{{url: "{NOBODY}"}}]}}}}}}}}\n')
    result = await reached(traefik, Level.READINESS, Status.HEALTHY, "it does not check the servers of", services=["plain"])
    assert "plain@file" in result.sentence


async def test_more_than_one_page_is_read(traefik: TraefikServer) -> None:
    services = ", ".join(f's{number:03}: {{loadBalancer: {{servers: [{{url: "{NOBODY}"}}]}}}}' for number in range(150))
    traefik.change(f"http: {{services: {{{services}}}}}\n")
    await reached(traefik, Level.READINESS, Status.HEALTHY, "does not check", services=["s000", "s149@file"])


async def test_a_tcp_service_is_found_too(traefik: TraefikServer) -> None:
    traefik.change('tcp: {services: {pg: {loadBalancer: {servers: [{address: "127.0.0.1:1"}]}}}}\n')
    await reached(traefik, Level.READINESS, Status.HEALTHY, "", services=["pg@file"])


async def test_without_api_or_ping_it_cannot_be_told(binary: Path) -> None:
    with TraefikServer(binary, "http: {}\n", insecure_api=False, ping=False) as server:
        server.start()
        api, ping = await probe(server), await probe(server, Level.LIVENESS)
    assert (api.status, "has no API here (yet)" in api.sentence) == (Status.UNKNOWN, True)
    assert (ping.status, "has no /ping here (yet)" in ping.sentence) == (Status.UNKNOWN, True)


async def test_a_login_is_sent_and_a_wrong_one_is_our_fault(binary: Path) -> None:
    hashed = "quorate:{SHA}" + base64.b64encode(__import__("hashlib").sha1(b"hunter2", usedforsecurity=False).digest()).decode()
    guarded = f"""
http:
  routers:
    api: {{rule: "PathPrefix(`/api`)", service: api@internal, entryPoints: [traefik], middlewares: [login]}}
  middlewares:
    login: {{basicAuth: {{users: ["{hashed}"]}}}}
"""
    with TraefikServer(binary, guarded, "--api=true", insecure_api=False) as server:
        server.start()
        await reached(server, Level.READINESS, Status.HEALTHY, "", user="quorate", password="hunter2")
        wrong, missing = await probe(server, user="quorate", password="wrong"), await probe(server)
    for result in (wrong, missing):
        assert (result.status, result.sentence.endswith("refuses the login: wrong or missing password")) == (Status.UNKNOWN, True)


async def test_one_that_ends_says_so_and_a_frozen_one_is_unhealthy_in_time(binary: Path) -> None:
    with TraefikServer(binary, "http: {}\n", "--entrypoints.traefik.transport.lifecycle.requestacceptgracetimeout=30s") as server:
        server.start()
        server.ask_to_stop()
        await reached(server, Level.LIVENESS, Status.UNHEALTHY, "is shutting down")
        server.freeze()
        for level in Level:
            frozen = await probe(server, level, 0.3)
            assert frozen.status is Status.UNHEALTHY
            assert "gave no answer within 0.3 s" in frozen.sentence


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"not json", "makes no sense"),
        (b"[]", "makes no sense"),
        (b'{"http": {"routers": {"total": "many"}}}', "makes no sense"),
    ],
)
async def test_an_api_that_says_something_else_is_the_targets_fault(body: bytes, words: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with answering(head + body, after_bytes=20) as port:
        result = await probe(f"http://127.0.0.1:{port}")
    assert (result.status, words in result.sentence) == (Status.UNHEALTHY, True)
