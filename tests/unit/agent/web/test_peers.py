"""The peers' endpoint on a real server, asked by hand: what comes in, and what does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import aiohttp
import pytest

from agent.codec import dumps, loads
from agent.configuration.peer_keys import PeerKeys
from agent.coordination.failsafe_rules import Answer, Question
from agent.coordination.peer_auth import MAC, NONCE, PEER, STAMP, Answered, Asked, Door, signed_with
from agent.reporting.metrics import Metrics
from agent.web.access import Access
from agent.web.peers import PeerEdge
from agent.web.server import Serving, make_app, serve
from tests.unit.agent.stage import ShiftedClock
from tests.unit.agent.web.face import Face

KEYS = PeerKeys((b"k" * 32,))
PATH = "/api/v1/peers/pg/promise"
QUESTION = Question("pg", 7, 40, "round", "pg1", "life-1", "r40", 2.0)


@dataclass
class Desk:
    asked: list[Question] = field(default_factory=list)

    async def answer(self, question: Question) -> Answer:
        self.asked.append(question)
        return Answer("pg2", question.group, question.epoch, question.nonce, promised=True)


@dataclass
class Peer:
    """Another agent, by hand."""

    serving: Serving
    desk: Desk
    stamp: str = ""
    count: int = 0

    async def ask(self, body: bytes, keys: PeerKeys = KEYS, path: str = PATH, **headers: str) -> tuple[int, bytes, Asked, dict[str, str]]:
        self.count += 1
        asked = Asked("POST", path, headers.pop("sender", "pg1"), "pg2", self.stamp, f"n{self.count}", body)
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{self.serving.port}{path}", data=body, headers={**asked.headers(keys), **headers}) as response,
        ):
            self.stamp = response.headers.get(STAMP, self.stamp)
            return response.status, await response.read(), asked, dict(response.headers)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    desk = Desk()
    app = make_app(Face(), Metrics(), Access(None), PeerEdge(Door("pg2", KEYS, ShiftedClock()), {"pg": desk}))
    serving = await serve(app, "127.0.0.1", 0)
    yield Peer(serving, desk)
    await serving.close()


async def test_the_first_question_gets_a_stamp_and_the_second_an_answer(peer: Peer) -> None:
    assert (await peer.ask(dumps(QUESTION)))[0] == 409
    assert peer.desk.asked == []
    status, body, asked, headers = await peer.ask(dumps(QUESTION))
    assert (status, loads(Answer, body)) == (200, Answer("pg2", "pg", 7, "round", promised=True))
    answered = Answered(200, "pg1", "pg2", headers[STAMP], asked.nonce, body)
    assert headers[PEER] == "pg2"
    assert signed_with(answered, headers[MAC], KEYS) is not None
    assert peer.desk.asked == [QUESTION]


async def test_a_question_that_is_sent_twice_is_answered_once(peer: Peer) -> None:
    await peer.ask(dumps(QUESTION))
    asked = Asked("POST", PATH, "pg1", "pg2", peer.stamp, "same", dumps(QUESTION))
    url, statuses = f"http://127.0.0.1:{peer.serving.port}{PATH}", []
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.post(url, data=asked.body, headers=asked.headers(KEYS)) as response:
                statuses.append(response.status)
    assert (statuses, len(peer.desk.asked)) == ([200, 409], 1)


@pytest.mark.parametrize("headers", [{MAC: "0" * 64}, {NONCE: "other"}, {PEER: "pg3"}, {"Quorate-For": "pg3"}])
async def test_who_is_not_signed_for_does_not_come_in(peer: Peer, headers: dict[str, str]) -> None:
    assert (await peer.ask(dumps(QUESTION)))[0] == 409
    status, _, _, got = await peer.ask(dumps(QUESTION), **headers)
    assert (status, MAC in got, peer.desk.asked) == (401, False, [])


async def test_another_key_does_not_open(peer: Peer) -> None:
    assert (await peer.ask(dumps(QUESTION), PeerKeys((b"x" * 32,))))[0] == 401


async def test_no_token_and_no_loopback_opens_it(peer: Peer) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"http://127.0.0.1:{peer.serving.port}{PATH}", data=b"{}") as response:
        assert response.status == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 400),
        (b"nonsense", 400),
        (dumps(replace(QUESTION, group="other")), 400),
        (dumps(replace(QUESTION, holder="pg3")), 400),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_in_a_signed_answer(peer: Peer, body: bytes, status: int) -> None:
    await peer.ask(body)
    got, _, _, headers = await peer.ask(body)
    assert (got, MAC in headers, peer.desk.asked) == (status, True, [])


async def test_a_group_that_this_node_does_not_vote_in(peer: Peer) -> None:
    other = dumps(replace(QUESTION, group="other"))
    await peer.ask(other, path="/api/v1/peers/other/promise")
    assert (await peer.ask(other, path="/api/v1/peers/other/promise"))[0] == 404


async def test_without_a_key_nobody_comes_in() -> None:
    serving = await serve(make_app(Face(), Metrics(), Access(None)), "127.0.0.1", 0)
    try:
        assert (await Peer(serving, Desk()).ask(dumps(QUESTION)))[0] == 404
    finally:
        await serving.close()
