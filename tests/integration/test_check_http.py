"""The http check against a real server, TLS included."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from checks.base import Level, Result, RunLog, Status
from checks.http import BODY_LIMIT_BYTES, HttpCheck, HttpFacts, HttpOptions
from tests.servers.misbehaving import answering


async def handle(request: web.Request) -> web.StreamResponse:
    match request.path:
        case "/well":
            return web.Response(text="all is well")
        case "/moved":
            raise web.HTTPFound("/well")
        case "/echo":
            return web.Response(text=f"{request.method} {request.headers.get('Authorization')} {request.headers.get('Accept-Encoding')}")
        case "/endless":
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b"x" * 65536)
        case "/half":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b"half")
            assert request.transport is not None
            request.transport.abort()
            return response
        case "/begun":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b".")
            await asyncio.Event().wait()
            raise AssertionError
        case _:
            raise web.HTTPServiceUnavailable


@asynccontextmanager
async def serving(trust: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust)
    await site.start()
    [address] = runner.addresses
    try:
        yield f"{'http' if trust is None else 'https'}://127.0.0.1:{address[1]}"
    finally:
        await runner.cleanup()


async def ask(url: str, timeout_s: float = 2.0, **options: object) -> Result:
    check = HttpCheck(Level.READINESS, HttpOptions.model_validate({"url": url, **options}))
    try:
        return await check.probe(timeout_s, RunLog())
    finally:
        await check.close()


async def test_an_expected_answer_is_healthy() -> None:
    async with serving() as server:
        result = await ask(f"{server}/well", expect_text="is well")
    assert (result.status, result.sentence) == (Status.HEALTHY, f"{server}/well answered 200")
    assert result.facts == HttpFacts(200, len("all is well"))


async def test_an_unexpected_code_or_text_is_unhealthy() -> None:
    async with serving() as server:
        code = await ask(f"{server}/ill", expect_status=[200, "3xx"])
        text = await ask(f"{server}/well", expect_text="all is lost")
    assert (code.status, code.sentence) == (Status.UNHEALTHY, f"{server}/ill answered 503, expected 200 or 3xx")
    assert (text.status, text.sentence) == (Status.UNHEALTHY, f"{server}/well answered 200, but without the expected text")


async def test_a_redirect_is_not_followed() -> None:
    async with serving() as server:
        assert (await ask(f"{server}/moved")).status is Status.UNHEALTHY
        assert (await ask(f"{server}/moved", expect_status=302)).status is Status.HEALTHY


async def test_method_and_headers_are_sent_and_nothing_compressed_is_asked_for() -> None:
    async with serving() as server:
        result = await ask(f"{server}/echo", method="POST", headers={"Authorization": "Bearer x"}, expect_text="POST Bearer x identity")
    assert result.status is Status.HEALTHY


async def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with serving() as server:
        assert (await ask(f"{server}/well")).status is Status.HEALTHY


async def test_an_endless_body_is_read_only_so_far() -> None:
    async with serving() as server:
        result = await ask(f"{server}/endless", 10.0, expect_text="never")
    assert result.status is Status.UNHEALTHY
    assert result.facts == HttpFacts(200, BODY_LIMIT_BYTES)


async def test_a_body_that_never_ends_is_cut_at_the_deadline_and_is_not_read_when_no_text_is_expected() -> None:
    async with serving() as server:
        slow = await ask(f"{server}/begun", 0.3, expect_text="never")
        unread = await ask(f"{server}/begun", 0.3)
    assert (slow.status, unread.status) == (Status.UNHEALTHY, Status.HEALTHY)
    assert "reading the body" in slow.sentence


async def test_half_an_answer_is_the_targets_fault() -> None:
    async with serving() as server:
        result = await ask(f"{server}/half", expect_text="whole")
    assert (result.status, result.sentence) == (Status.UNHEALTHY, f"{server}/half closed the connection in the middle of its answer")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 ???\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"220 smtp\r\n"])
async def test_what_is_not_http_is_the_targets_fault(answer: bytes) -> None:
    async with answering(answer) as port:
        result = await ask(f"http://127.0.0.1:{port}/")
    assert (result.status, result.sentence) == (Status.UNHEALTHY, f"http://127.0.0.1:{port}/ does not answer as HTTP")


# ------------------------------------------------------------------ TLS


def authority(folder: Path, name: str = "ca.pem", **certificate: object) -> tuple[Path, ssl.SSLContext]:
    """The file of a fresh authority, and a server that has a certificate of it."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / name))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", **certificate).configure_cert(context)  # type: ignore[arg-type]
    return folder / name, context


async def test_a_trusted_certificate_is_well(tmp_path: Path) -> None:
    ca, trust = authority(tmp_path)
    async with serving(trust) as server:
        assert (await ask(f"{server}/well", ca=ca)).status is Status.HEALTHY


async def test_an_untrusted_certificate_is_our_fault_unless_nobody_wants_to_know(tmp_path: Path) -> None:
    _, trust = authority(tmp_path)
    other, _ = authority(tmp_path, "other.pem")
    async with serving(trust) as server:
        result = await ask(f"{server}/well", ca=other)
        unverified = await ask(f"{server}/well", verify=False)
    assert result.status is Status.UNKNOWN
    assert result.sentence.startswith(f"the certificate of {server}/well is not accepted: ")
    assert unverified.status is Status.HEALTHY


async def test_an_expired_certificate_is_the_targets_fault(tmp_path: Path) -> None:
    ca, trust = authority(tmp_path, not_before=datetime.now(UTC) - timedelta(days=9), not_after=datetime.now(UTC) - timedelta(days=1))
    async with serving(trust) as server:
        result = await ask(f"{server}/well", ca=ca)
    assert (result.status, result.sentence) == (Status.UNHEALTHY, f"the certificate of {server}/well has expired")


async def test_a_plain_server_where_tls_is_demanded_is_our_fault() -> None:
    async with serving() as server:
        result = await ask(server.replace("http:", "https:") + "/well")
    assert result.status is Status.UNKNOWN
    assert "does not speak TLS as expected" in result.sentence


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_read_is_our_fault(tmp_path: Path, content: str | None) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_text(content, encoding="utf-8")
    result = await ask("https://127.0.0.1:1/", ca=ca)
    assert result.status is Status.UNKNOWN
    assert f"ca: {ca} cannot be read" in result.sentence
