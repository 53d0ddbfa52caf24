from __future__ import annotations

import asyncio

import pytest
from pydantic import TypeAdapter, ValidationError

from checks.base import RunLog
from checks.http_client import BODY_LIMIT_BYTES, Answer, BaseUrl, HttpClient, parse_json
from checks.network import ProbeFailed, Progress, Reason
from checks.tls_trust import Trust
from tests.servers.misbehaving import answering, refused

BASE = TypeAdapter(BaseUrl)
NUMBERS = TypeAdapter(tuple[int, ...])


def client(port: int) -> HttpClient:
    return HttpClient("the server", f"http://127.0.0.1:{port}", Trust())


async def get(port: int, path: str = "/x") -> Answer:
    async with asyncio.timeout(5), client(port).open(Progress(RunLog())) as session:
        return await session.get(path)


@pytest.mark.parametrize(("given", "kept"), [("http://x:1/", "http://x:1"), ("https://x/api/", "https://x/api")])
def test_a_base_url_ends_without_a_slash(given: str, kept: str) -> None:
    assert BASE.validate_python(given) == kept


@pytest.mark.parametrize("given", ["", "x:1", "ftp://x", "http://x/?a=1", "http://x/#a", "http://me:secret@x/", "http:///x"])
def test_other_addresses_are_refused(given: str) -> None:
    with pytest.raises(ValidationError):
        BASE.validate_python(given)


async def test_an_answer_is_whole_and_has_its_duration() -> None:
    async with answering(b"HTTP/1.1 201 Made\r\nX-Next-Page: 2\r\nContent-Length: 2\r\n\r\n\xffk", after_bytes=20) as port:
        answer = await get(port)
    assert (answer.code, answer.body, answer.text, answer.headers["X-Next-Page"]) == (201, b"\xffk", "�k", "2")
    assert 0 <= answer.took_s < 5


async def test_failures_have_their_names() -> None:
    with refused() as port, pytest.raises(ProbeFailed, match="the server refuses connections") as caught:
        await get(port)
    assert caught.value.failure.reason is Reason.REFUSED
    async with answering(b"220 smtp\r\n") as port:
        with pytest.raises(ProbeFailed, match="the server does not answer as HTTP"):
            await get(port)
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", after_bytes=20) as port:
        with pytest.raises(ProbeFailed, match="closed the connection in the middle of its answer"):
            await get(port)


async def test_a_body_is_read_only_so_far() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"1" * (BODY_LIMIT_BYTES + 1000), after_bytes=20) as port:
        answer = await get(port)
    assert len(answer.body) == BODY_LIMIT_BYTES


def answer_of(body: bytes) -> Answer:
    return Answer(200, body, {}, 0.0)


def test_json_becomes_a_typed_value_or_garbage() -> None:
    assert parse_json(NUMBERS, answer_of(b"[1, 2]"), "x") == (1, 2)
    for body in (b"", b"{}", b'["a"]', b"[1"):
        with pytest.raises(ProbeFailed, match=r"x answered with something that makes no sense$") as caught:
            parse_json(NUMBERS, answer_of(body), "x")
        assert caught.value.failure.reason is Reason.GARBAGE
    with pytest.raises(ProbeFailed, match="it is too long"):
        parse_json(NUMBERS, answer_of(b"[" * BODY_LIMIT_BYTES), "x")
