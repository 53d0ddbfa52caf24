"""The line to other agents, against real servers on loopback: some are agents, some only pretend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web

from agent.codec import dumps
from agent.configuration.model import ApiTls
from agent.configuration.peer_keys import PeerKeys
from agent.coordination.failsafe_rules import Answer, Question
from agent.coordination.peer_auth import STAMP_S, Door
from agent.coordination.peer_client import PeerClient, tls_to_peers
from agent.errors import ConfigurationError, PeerError
from agent.reporting.metrics import Metrics
from agent.web.access import Access
from agent.web.peers import PeerEdge
from agent.web.server import make_app, serve
from tests.unit.agent.stage import ShiftedClock
from tests.unit.agent.web.face import Face

KEYS = PeerKeys((b"k" * 32, b"o" * 32))
QUESTION = Question("pg", 7, 40, "round", "pg1", "life-1", "r40", 2.0)
PROMISED = Answer("pg2", "pg", 7, "round", promised=True)


@dataclass
class Desk:
    asked: list[Question] = field(default_factory=list)
    wait: asyncio.Event | None = None

    async def answer(self, question: Question) -> Answer:
        self.asked.append(question)
        if self.wait is not None:
            await self.wait.wait()
        return PROMISED


@asynccontextmanager
async def agent(desk: Desk, keys: PeerKeys = KEYS, node: str = "pg2", tls: ApiTls | None = None) -> AsyncIterator[str]:
    """A real agent's edge; its HOST:PORT."""
    app = make_app(Face(), Metrics(), Access(None), PeerEdge(Door(node, keys, ShiftedClock()), {"pg": desk}))
    serving = await serve(app, "127.0.0.1", 0, tls)
    try:
        yield f"127.0.0.1:{serving.port}"
    finally:
        await serving.close()


@asynccontextmanager
async def pretender(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server that is no agent."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(
    address: str, keys: PeerKeys = KEYS, tls: ApiTls | None = None, clock: ShiftedClock | None = None
) -> AsyncIterator[PeerClient]:
    line = PeerClient("pg1", {"pg2": address}, keys, clock or ShiftedClock(), None if tls is None else tls_to_peers(tls))
    try:
        yield line
    finally:
        await line.close()


async def test_it_asks_and_believes_a_signed_answer() -> None:
    desk = Desk()
    async with agent(desk) as address, client(address) as line:
        for _ in range(3):
            assert await line.ask_promise("pg2", QUESTION, 5.0) == PROMISED
    assert desk.asked == [QUESTION] * 3


async def test_a_voter_that_restarted_is_asked_once_more_with_its_new_stamp() -> None:
    async with agent(Desk()) as address, client(address) as line:
        await line.ask_promise("pg2", QUESTION, 5.0)
        line._stamps["pg2"] = "an-earlier-life"
        assert await line.ask_promise("pg2", QUESTION, 5.0) == PROMISED


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with agent(Desk()) as address, client(address) as line:
        assert await line.ask_promise("pg2", QUESTION, 5.0) == PROMISED


async def test_a_wall_clock_that_is_an_hour_off_changes_nothing() -> None:
    clock = ShiftedClock()
    clock.shift_s = 60 * STAMP_S
    async with agent(Desk()) as address, client(address, clock=clock) as line:
        assert await line.ask_promise("pg2", QUESTION, 5.0) == PROMISED


async def test_while_the_key_is_being_changed_both_sides_understand_each_other() -> None:
    old_first = PeerKeys((b"o" * 32, b"k" * 32))
    async with agent(Desk(), old_first) as address, client(address) as line:
        assert await line.ask_promise("pg2", QUESTION, 5.0) == PROMISED


async def test_another_key_is_refused_by_both_sides() -> None:
    desk = Desk()
    async with agent(desk, PeerKeys((b"x" * 32,))) as address, client(address) as line:
        with pytest.raises(PeerError, match=r"\(401\) is not pg2's agent, or has another peer key"):
            await line.ask_promise("pg2", QUESTION, 5.0)
    assert desk.asked == []


async def test_an_address_that_is_another_nodes_today_is_not_believed() -> None:
    desk = Desk()
    async with agent(desk, node="pg3") as address, client(address) as line:
        with pytest.raises(PeerError, match="is not pg2's agent"):
            await line.ask_promise("pg2", QUESTION, 5.0)
    assert desk.asked == []


async def test_who_only_repeats_a_signed_answer_is_not_believed() -> None:
    """The answer to an earlier question, word by word."""
    kept: list[tuple[int, bytes, dict[str, str]]] = []
    async with agent(Desk()) as address, aiohttp.ClientSession() as session:

        async def repeat(request: web.Request) -> web.Response:
            if not kept:
                url, body = f"http://{address}{request.path}", await request.read()
                async with session.post(url, data=body, headers=_signed(request.headers)) as real:
                    kept.append((real.status, await real.read(), _signed(real.headers)))
            status, answer, headers = kept[0]
            return web.Response(status=status, body=answer, headers=headers)

        async with pretender(repeat) as middle, client(middle) as line:
            with pytest.raises(PeerError, match="is not pg2's agent"):
                await line.ask_promise("pg2", QUESTION, 5.0)
    assert kept[0][0] == 409, "the first one was believed: it was the answer to that question"


def _signed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("Quorate-")}


@pytest.mark.parametrize(
    ("response", "complaint"),
    [
        (web.Response(body=dumps(PROMISED)), "is not pg2's agent"),
        (web.Response(status=302, headers={"Location": "http://192.0.2.1/"}), r"\(302\) is not"),
        (web.Response(status=500), r"\(500\) is not"),
        (web.Response(body=b"x" * 20_000), "too long"),
    ],
    ids=["unsigned", "redirect", "broken", "long"],
)
async def test_what_is_no_agent_is_not_believed(response: web.Response, complaint: str) -> None:
    async def handle(_: web.Request) -> web.Response:
        return response

    async with pretender(handle) as address, client(address) as line:
        with pytest.raises(PeerError, match=complaint):
            await line.ask_promise("pg2", QUESTION, 5.0)


async def test_a_voter_that_does_not_answer_costs_its_time_and_no_more() -> None:
    desk = Desk(wait=asyncio.Event())
    async with agent(desk) as address, client(address) as line:
        with pytest.raises(PeerError, match=r"no answer within 0.3 s"):
            await line.ask_promise("pg2", QUESTION, 0.3)
        assert desk.wait is not None
        desk.wait.set()
        assert await line.ask_promise("pg2", QUESTION, 5.0) == PROMISED


async def test_a_voter_that_is_gone_is_a_sentence() -> None:
    async with agent(Desk()) as address:
        pass
    async with client(address) as line:
        with pytest.raises(PeerError, match="cannot be reached"):
            await line.ask_promise("pg2", QUESTION, 5.0)
        with pytest.raises(PeerError, match="nobody knows"):
            await line.ask_promise("pg9", QUESTION, 5.0)


async def test_a_group_that_it_does_not_vote_in() -> None:
    async with agent(Desk()) as address, client(address) as line:
        with pytest.raises(PeerError, match="answered 404"):
            await line.ask_promise("pg2", Question("other", 7, 40, "round", "pg1", "life-1", "r40", 2.0), 5.0)


# ------------------------------------------------------------------ TLS


def certificate(ca: trustme.CA, folder: Path, name: str, *, client_ca: bool) -> ApiTls:
    made = ca.issue_cert(name)
    for path, pem in (
        (folder / f"{name}.crt", made.cert_chain_pems[0]),
        (folder / f"{name}.key", made.private_key_pem),
        (folder / "ca.crt", ca.cert_pem),
    ):
        pem.write_to_path(path)
    return ApiTls(cert=folder / f"{name}.crt", key=folder / f"{name}.key", client_ca=folder / "ca.crt" if client_ca else None)


@pytest.mark.parametrize("client_ca", [True, False])
async def test_over_tls_with_and_without_certificates_of_both(tmp_path: Path, client_ca: bool) -> None:
    ca = trustme.CA()
    theirs, ours = (certificate(ca, tmp_path, name, client_ca=client_ca) for name in ("pg2.example.test", "pg1.example.test"))
    async with agent(Desk(), tls=theirs) as address, client(address, tls=ours) as line:
        assert await line.ask_promise("pg2", QUESTION, 5.0) == PROMISED


async def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    theirs = certificate(trustme.CA(), tmp_path / "a", "pg2.example.test", client_ca=False)
    ours = certificate(trustme.CA(), tmp_path / "b", "pg1.example.test", client_ca=True)
    async with agent(Desk(), tls=theirs) as address, client(address, tls=ours) as line:
        with pytest.raises(PeerError, match="cannot be reached"):
            await line.ask_promise("pg2", QUESTION, 5.0)


def test_a_bad_certificate_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nothing")
    with pytest.raises(ConfigurationError, match=r"^api\.tls: "):
        tls_to_peers(ApiTls(cert=tmp_path / "x", key=tmp_path / "x"))
