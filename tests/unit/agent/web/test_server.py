from __future__ import annotations

import asyncio
import json
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from agent.configuration.model import ApiTls
from agent.errors import ConfigurationError, QuorateError
from agent.reporting.metrics import Metrics
from agent.web import server
from agent.web.access import Access
from agent.web.server import make_app, serve, tls_context
from tests.unit.agent.web.face import Face, ask, serving


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/nowhere", 404, "nothing at this path"),
        ("DELETE", "/api/v1/status", 405, "not for this path"),
        ("POST", "/groups/pg-main/leader", 405, "not for this path"),
    ],
)
async def test_errors_are_a_sentence(method: str, path: str, status: int, sentence: str) -> None:
    async with serving(Face()) as port:
        said = await ask(port, path, method)
    assert said.status == status
    assert sentence in json.loads(said.body)["error"]
    assert said.headers["Content-Type"].startswith("application/json")


async def test_every_answer_has_the_headers() -> None:
    async with serving(Face()) as port:
        for path in ("/livez", "/nowhere", "/"):
            said = await ask(port, path)
            assert (said.headers["Cache-Control"], said.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


async def test_a_mistake_of_ours_is_no_traceback_for_the_asker() -> None:
    class Broken(Face):
        def readiness(self) -> tuple[bool, str]:
            raise KeyError("secret detail")

    async with serving(Broken()) as port:
        said = await ask(port, "/readyz")
    assert said.status == 500
    assert b"secret detail" not in said.body


async def test_a_port_that_is_taken_is_one_line() -> None:
    async with serving(Face()) as port:
        with pytest.raises(
            QuorateError, match=rf"^cannot listen on 127.0.0.1 port {port}: another program \(another agent\?\) has this port$"
        ):
            await serve(make_app(Face(), Metrics(), Access()), "127.0.0.1", port)


async def test_an_address_that_is_not_ours_is_one_line() -> None:
    with pytest.raises(QuorateError, match="this host has no such address"):
        await serve(make_app(Face(), Metrics(), Access()), "203.0.113.1", 0)


# ------------------------------------------------------------------ clients that are slow


async def ends_within(reader: asyncio.StreamReader, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        try:
            await reader.read()
        except ConnectionError:
            return


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
async def test_who_sends_no_whole_request_is_cut_off(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_S", 0.2)
    async with serving(Face()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await ends_within(reader, 5)
        writer.close()


async def test_who_sends_no_whole_body_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.2)
    async with serving(Face()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /api/v1/intents HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        await ends_within(reader, 5)
        writer.close()


async def test_who_does_not_read_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    face = Face()
    face.entries *= 100_000  # some ten megabytes: more than the kernel keeps for whoever does not read
    async with serving(face) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"GET /api/v1/history/pg-main HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            total = await asyncio.to_thread(read_slowly, client)
    assert total < 10_000_000


def read_slowly(client: socket.socket) -> int:
    """Wait until the server has cut us off, then count what is left."""
    import time  # noqa: PLC0415 - beside its one use

    deadline_s = time.monotonic() + 5
    total = 0
    while time.monotonic() < deadline_s:
        try:
            client.send(b"x")  # a connection that was aborted refuses this
            received = client.recv(1)
        except OSError:
            return total
        if not received:
            return total
        total += len(received)
    raise AssertionError("the server waits for a client that does not read")


async def test_one_connection_too_many_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    async with serving(Face()) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ends_within(reader, 5)
        for _, other in (*held, (reader, writer)):
            other.close()


# ------------------------------------------------------------------ TLS


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ApiTls, trustme.CA]:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return ApiTls(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem", client_ca=tmp_path / "ca.pem"), authority


async def https(port: int, context: ssl.SSLContext) -> int:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
        session.get(f"https://127.0.0.1:{port}/livez", ssl=context) as answer,
    ):
        return answer.status


async def test_tls_and_only_tls(tls: tuple[ApiTls, trustme.CA]) -> None:
    configured, authority = tls
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serving(Face(), tls=configured.model_copy(update={"client_ca": None})) as port:
        assert await https(port, trusting) == 200
        with pytest.raises(aiohttp.ClientError):
            await ask(port, "/livez")


async def test_clients_must_show_a_certificate_when_an_authority_is_named(tls: tuple[ApiTls, trustme.CA]) -> None:
    configured, authority = tls
    bare = ssl.create_default_context()
    authority.configure_trust(bare)
    shown = ssl.create_default_context()
    authority.configure_trust(shown)
    authority.issue_cert("client.example").configure_cert(shown)
    async with serving(Face(), tls=configured) as port:
        assert await https(port, shown) == 200
        with pytest.raises((aiohttp.ClientError, OSError)):
            await https(port, bare)


def test_bad_tls_files_are_one_line(tls: tuple[ApiTls, trustme.CA], tmp_path: Path) -> None:
    configured, _ = tls
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no pem")
    for change, said in (
        ({"key": tmp_path / "nowhere.pem"}, "No such file"),
        ({"cert": garbage}, "api.tls: cannot use"),
        ({"client_ca": garbage}, "api.tls.client_ca: cannot use"),
    ):
        with pytest.raises(ConfigurationError, match=said) as raised:
            tls_context(configured.model_copy(update=change))
        assert len(raised.value.problems) == 1
