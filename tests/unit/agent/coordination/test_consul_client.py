"""How questions reach Consul when its addresses misbehave. What Consul itself does: tests/contract and test_consul.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.coordination import consul_client
from agent.coordination.consul_access import Access, ConsulPlace
from agent.coordination.consul_client import Addresses, ConsulClient
from agent.coordination.consul_requests import get_key, list_folder, transaction
from agent.coordination.coordinator import Committed, Operation, Refused, Verb
from agent.errors import CoordinationError, CoordinationRefused
from tests.polling import eventually_async
from tests.unit.agent.coordination.rude_server import CUT, HANG, NONSENSE, RudeServer, Said, rude

READ = list_folder("quorate", "pg/")
WRITE = transaction("quorate", (Operation(Verb.SET, "pg/key", value=b"1"),), 1)
QUESTION = transaction("quorate", (Operation(Verb.CHECK_INDEX, "pg/key", index=1),), 1)
DONE = Said(body='{"Results": [{"KV": {"ModifyIndex": 42}}], "Errors": null}')
NO_LEADER = Said(500, "No cluster leader")
TOKEN = "0c6a8a1e-secret"

MakeClient = Callable[..., ConsulClient]


def no_file(_: Path) -> str:
    raise AssertionError("no token file is configured")


@pytest.fixture
async def client_of() -> AsyncIterator[MakeClient]:
    made: list[ConsulClient] = []

    def make(*servers: RudeServer | str, token: str | None = None) -> ConsulClient:
        urls = tuple(server if isinstance(server, str) else server.url for server in servers)
        made.append(ConsulClient(urls, Access(ConsulPlace(urls, token=token), no_file), SystemClock()))
        return made[-1]

    yield make
    for client in made:
        await client.close()


def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


async def took_s(question: asyncio.Future[object] | object) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await question  # type: ignore[misc]
    return loop.time() - began


# ---------------------------------------------------------------------------------------------------- what may be asked again


@pytest.mark.parametrize(
    "fault", [HANG, CUT, NONSENSE, NO_LEADER, Said(500, "rpc error making call: EOF"), Said(200, "no JSON"), Said(301)]
)
async def test_a_reading_is_answered_by_the_next_address_within_its_deadline(client_of: MakeClient, fault: Said | str) -> None:
    async with rude(fault) as bad, rude(Said()) as good:
        client = client_of(bad, good)
        assert (await client.ask(READ, 1.0)).index == 7
        assert client.addresses.in_order == (good.url, bad.url)


async def test_an_address_that_hangs_costs_one_share_of_one_deadline_only(client_of: MakeClient) -> None:
    async with rude(HANG) as hung, rude(Said()) as good, rude(Said()) as third:
        client = client_of(hung, good, third)
        assert 0.25 < await took_s(client.ask(READ, 0.9)) < 0.8
        for _ in range(3):
            await client.ask(READ, 0.9)
        assert (len(hung.asked), len(good.asked), len(third.asked)) == (1, 4, 0)


@pytest.mark.parametrize(
    "fault", [HANG, CUT, NONSENSE, Said(500, "rpc error making call: leadership lost"), Said(200, "no JSON"), Said(502)]
)
async def test_a_transaction_whose_outcome_is_unknown_is_sent_once_and_the_next_one_goes_elsewhere(
    client_of: MakeClient, fault: Said | str
) -> None:
    async with rude(fault) as bad, rude(DONE) as good:
        client = client_of(bad, good)
        with pytest.raises(CoordinationError) as error:
            await client.ask(WRITE, 0.5)
        assert not isinstance(error.value, CoordinationRefused)
        assert bad.url in str(error.value)
        assert (len(bad.asked), len(good.asked)) == (1, 0)
        assert await client.ask(WRITE, 0.5) == Committed(42)
        assert (len(bad.asked), len(good.asked)) == (1, 1)


async def test_a_transaction_is_not_sent_again_over_a_connection_that_was_kept(client_of: MakeClient) -> None:
    async with rude(DONE, CUT, DONE) as server:
        client = client_of(server)
        assert await client.ask(WRITE, 1.0) == Committed(42)
        with pytest.raises(CoordinationError):
            await client.ask(WRITE, 1.0)
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    "nothing_done", [NO_LEADER, Said(500, "rpc error getting client: failed to get conn"), Said(429, "rate limit exceeded")]
)
async def test_a_transaction_goes_on_where_consul_says_that_it_did_nothing(client_of: MakeClient, nothing_done: Said) -> None:
    async with rude(nothing_done) as bad, rude(DONE) as good:
        assert await client_of(bad, good).ask(WRITE, 1.0) == Committed(42)


async def test_a_transaction_goes_on_at_once_where_nobody_listens(client_of: MakeClient) -> None:
    async with rude(DONE) as good:
        client = client_of(nobody(), nobody(), good)
        assert await took_s(client.ask(WRITE, 5.0)) < 1.0
        assert client.addresses.in_order[0] == good.url


async def test_a_transaction_goes_on_when_no_connection_comes_about(client_of: MakeClient) -> None:
    """A listener whose queue is full: the kernel lets the caller wait, as a host that is gone does."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with socket.socket() as first, socket.socket() as second:
            for waiting in (first, second):
                waiting.settimeout(0)
                waiting.connect_ex(("127.0.0.1", port))
            async with rude(DONE) as good:
                assert await client_of(f"http://127.0.0.1:{port}", good).ask(WRITE, 0.6) == Committed(42)


async def test_checks_alone_are_a_question_and_may_be_asked_again(client_of: MakeClient) -> None:
    refused = Said(409, '{"Results": null, "Errors": [{"OpIndex": 0, "What": "failed index check"}]}')
    async with rude(CUT) as bad, rude(refused) as good:
        assert await client_of(bad, good).ask(QUESTION, 1.0) == Refused(0, "failed index check")
        assert "consistent=1" in good.asked[0]


async def test_when_all_fail_the_last_reason_is_told(client_of: MakeClient) -> None:
    first, last = nobody(), nobody()
    with pytest.raises(CoordinationError, match=f"^Consul at {last}: no connection: Connect"):
        await client_of(first, last).ask(READ, 1.0)


async def test_a_deadline_is_kept(client_of: MakeClient) -> None:
    async with rude(HANG) as hung:
        client = client_of(hung)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(CoordinationError, match=r"no answer within 0\.3 s"):
            await client.ask(WRITE, 0.3)
        assert 0.25 < loop.time() - began < 1.5


# ---------------------------------------------------------------------------------------------------- what is an answer


async def test_a_refused_token_is_told_with_address_and_reason_and_without_the_token(client_of: MakeClient) -> None:
    async with rude(Said(403, "rpc error making call: ACL not found")) as server, rude(Said()) as other:
        for question in (READ, WRITE):
            with pytest.raises(CoordinationRefused, match=f"Consul at {server.url} denies access: ACL not found") as error:
                await client_of(server, other, token=TOKEN).ask(question, 1.0)
            assert TOKEN not in str(error.value)
        assert other.asked == []


async def test_denied_operations_are_an_error_and_no_refusal_of_the_transaction(client_of: MakeClient) -> None:
    denied = Said(409, '{"Results": null, "Errors": [{"OpIndex": 0, "What": "Permission denied: key:write"}]}')
    async with rude(denied) as server:
        with pytest.raises(CoordinationRefused, match="Permission denied: key:write"):
            await client_of(server).ask(WRITE, 1.0)


async def test_what_a_token_may_not_read_is_never_taken_for_absent(client_of: MakeClient) -> None:
    async with rude(Said(headers=("X-Consul-Index: 7", "X-Consul-Results-Filtered-By-Acls: true"))) as server:
        with pytest.raises(CoordinationRefused, match="may not read all"):
            await client_of(server).ask(READ, 1.0)


@pytest.mark.parametrize("status", [400, 413])
async def test_a_question_that_consul_does_not_take_is_refused(client_of: MakeClient, status: int) -> None:
    async with rude(Said(status, "Request body too large")) as server:
        with pytest.raises(CoordinationRefused, match="Request body too large"):
            await client_of(server).ask(WRITE, 1.0)


@pytest.mark.parametrize(
    "answer",
    [Said(body="{"), Said(body='[{"Key": 1}]'), Said(headers=()), Said(body="\udcff".encode("utf-8", "surrogateescape").decode("latin-1"))],
)
async def test_an_answer_of_something_else_is_no_answer(client_of: MakeClient, answer: Said) -> None:
    async with rude(answer) as server:
        with pytest.raises(CoordinationError):
            await client_of(server).ask(READ, 1.0)


async def test_an_answer_without_end_is_no_answer(client_of: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_client, "MAX_ANSWER_BYTES", 1000)
    async with rude(Said(body="[" + " " * 2000 + "]")) as server:
        with pytest.raises(CoordinationError, match="longer than 1000 bytes"):
            await client_of(server).ask(READ, 1.0)


# ---------------------------------------------------------------------------------------------------- what is sent


async def test_the_configured_token_is_sent_with_everything_and_the_environment_counts_for_nothing(
    client_of: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "of-the-environment")
    monkeypatch.setenv("HTTP_PROXY", nobody())
    monkeypatch.setenv("http_proxy", nobody())
    async with rude(Said(), DONE, Said(404, "")) as server:
        client = client_of(server, token=TOKEN)
        await client.ask(READ, 1.0)
        await client.ask(WRITE, 1.0)
        await client.ask(get_key("quorate", "_identity"), 1.0)
        assert [f"X-Consul-Token: {TOKEN}" in head for head in server.heads] == [True] * 3
        assert "of-the-environment" not in "".join(server.heads)
    async with rude(Said()) as server:
        await client_of(server).ask(READ, 1.0)
        assert "X-Consul-Token" not in server.heads[0]


async def test_a_wait_that_hangs_holds_up_no_other_question(client_of: MakeClient) -> None:
    async with rude(HANG, Said(), DONE) as server:
        client = client_of(server)
        waiting = asyncio.create_task(client.wait(list_folder("quorate", "pg/", 7, 5.0), 5.0))
        await eventually_async(lambda: server.asked)
        await client.ask(READ, 1.0)
        await client.ask(WRITE, 1.0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert "index=7&wait=5000ms" in server.asked[0]


def test_addresses_that_failed_come_last() -> None:
    addresses = Addresses(("a", "b", "c"))
    addresses.failed("a")
    addresses.failed("b")
    assert addresses.in_order == ("c", "a", "b")
