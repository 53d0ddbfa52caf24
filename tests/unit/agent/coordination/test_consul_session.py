"""Sessions on a real Consul: how they are made, kept alive, and which of those left behind are swept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.coordination import consul_session
from agent.coordination.consul import ConsulCoordinator
from agent.coordination.consul_access import Access, ConsulPlace
from agent.coordination.consul_client import ConsulClient
from agent.coordination.consul_requests import create_session, session_exists
from agent.coordination.consul_session import MARK, Sessions
from agent.coordination.node_state import machine_id
from agent.coordination.process_life import Life, own_life
from agent.errors import CoordinationError, CoordinationRefused
from tests.lab.servers.consul.consul import ConsulCluster, loopback_cluster
from tests.plugins.left_out import require_part
from tests.polling import eventually_async, holds_async
from tests.unit.agent.coordination.rude_server import HANG, Said, rude

pytestmark = pytest.mark.slow

NAME = "quorate-pg-pg1"
TIMEOUT_S = 5.0
CREATED = Said(body='{"ID": "s1"}')
NONE = Said(body="[]")


@pytest.fixture(scope="module")
def cluster() -> Iterator[ConsulCluster]:
    with loopback_cluster(require_part("Consul"), servers=1) as one:
        yield one


Connect = Callable[..., Awaitable[tuple[ConsulClient, Sessions]]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    made: list[tuple[ConsulClient, Sessions]] = []

    async def make(url: str, nonce: str = "n1") -> tuple[ConsulClient, Sessions]:
        client = ConsulClient((url,), Access(ConsulPlace((url,)), Path.read_text), SystemClock())
        made.append((client, Sessions(client, nonce)))
        return made[-1]

    yield make
    for client, sessions in made:
        await sessions.close()
        await client.close()


def full_name(name: str = NAME, machine: str | None = None, nonce: str = "n1", life: Life | None = None) -> str:
    return MARK + json.dumps([name, machine_id() if machine is None else machine, nonce, *astuple(life or own_life())])


DEAD = replace(own_life(), started=own_life().started - 1)
"""Our pid, at another time."""


async def test_a_session_has_no_lock_delay_and_depends_on_no_check(cluster: ConsulCluster, connect: Connect) -> None:
    _, sessions = await connect(cluster.urls[0])
    session = await sessions.open(NAME, TIMEOUT_S)
    (raw,) = json.loads(cluster.servers[0].ask(f"/v1/session/info/{session}"))
    assert (raw["LockDelay"], raw["NodeChecks"], raw["Behavior"], raw["TTL"]) == (0, [], "release", "10s")
    assert raw["Name"] == full_name()


@pytest.mark.parametrize(
    ("left_behind", "swept"),
    [
        (full_name(), True),  # of this very client, which does not know it: its answer was lost
        (full_name(life=DEAD), True),
        (full_name(life=replace(own_life(), boot="another boot")), True),
        (full_name(nonce="n2"), False),  # of another client of this process
        (full_name(life=replace(own_life(), namespace="another")), False),  # nobody can tell
        (full_name(machine="another machine", life=DEAD), False),
        (full_name(machine="", life=DEAD), False),
        (full_name("quorate-pg-pg2", life=DEAD), False),
        (full_name(life=DEAD).removeprefix(MARK), False),
        (MARK + "[]", False),
        (MARK + "{", False),
        (MARK + "7", False),
        ("somebody else's", False),
    ],
)
async def test_only_what_nobody_owns_is_swept(cluster: ConsulCluster, connect: Connect, left_behind: str, swept: bool) -> None:
    client, sessions = await connect(cluster.urls[0])
    other = await client.ask(create_session(left_behind), TIMEOUT_S)
    session = await sessions.open(NAME, TIMEOUT_S)
    assert await client.ask(session_exists(other), TIMEOUT_S) is not swept
    assert await client.ask(session_exists(session), TIMEOUT_S)
    await sessions.close_session(other, TIMEOUT_S)


async def test_a_machine_without_a_name_sweeps_nothing(cluster: ConsulCluster, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_session, "machine_id", lambda: "")
    client, sessions = await connect(cluster.urls[0])
    other = await client.ask(create_session(full_name(machine="", life=DEAD)), TIMEOUT_S)
    await sessions.open(NAME, TIMEOUT_S)
    assert await client.ask(session_exists(other), TIMEOUT_S)


async def test_sessions_of_another_prefix_are_somebody_elses(cluster: ConsulCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two installations with the same names on machines cloned from one image: each would end the other's session, for ever."""

    def coordinator(prefix: str) -> ConsulCoordinator:
        place = ConsulPlace((cluster.urls[0],), prefix)
        return ConsulCoordinator(place, Access(place, Path.read_text), SystemClock())

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(consul_session, "own_life", lambda: replace(own_life(), boot="another boot"))
        theirs, before = coordinator("staging"), coordinator("quorate")
    ours = coordinator("quorate")
    session, orphan = await theirs.open_session(NAME), await before.open_session(NAME)
    await ours.open_session(NAME)
    assert await theirs.session_is_alive(session)
    assert not await ours.session_is_alive(orphan)
    for each in (theirs, before, ours):
        await each.close()


async def test_a_second_session_of_a_name_leaves_the_first(cluster: ConsulCluster, connect: Connect) -> None:
    client, sessions = await connect(cluster.urls[0])
    both = await asyncio.gather(*(sessions.open(NAME, TIMEOUT_S) for _ in range(2)))
    assert [await client.ask(session_exists(each), TIMEOUT_S) for each in both] == [True, True]


@pytest.mark.parametrize("name", ["", "x" * 201])
async def test_a_name_has_bounds(connect: Connect, name: str) -> None:
    _, sessions = await connect("http://127.0.0.1:1")
    with pytest.raises(CoordinationRefused, match="1 to 200 characters"):
        await sessions.open(name, TIMEOUT_S)


async def test_without_consul_there_is_no_session_and_the_next_try_makes_one(connect: Connect) -> None:
    async with rude(Said(500, "No cluster leader"), CREATED, NONE) as server:
        _, sessions = await connect(server.url)
        with pytest.raises(CoordinationError):
            await sessions.open(NAME, TIMEOUT_S)
        assert await sessions.open(NAME, TIMEOUT_S) == "s1"


async def test_a_sweep_that_fails_costs_nothing_but_itself(connect: Connect) -> None:
    async with rude(CREATED, Said(403, "Permission denied")) as server:
        _, sessions = await connect(server.url)
        assert await sessions.open(NAME, TIMEOUT_S) == "s1"


# ---------------------------------------------------------------------------------------------------- renewals


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_session, "RENEW_EVERY_S", 0.05)
    monkeypatch.setattr(consul_session, "RENEW_AGAIN_S", 0.02)
    monkeypatch.setattr(consul_session, "RENEW_TIMEOUT_S", 0.2)


def renewals(asked: list[str]) -> int:
    return sum(line.startswith("PUT /v1/session/renew/s1") for line in asked)


@pytest.mark.usefixtures("fast")
async def test_a_session_is_renewed_until_the_client_is_closed(connect: Connect) -> None:
    async with rude(CREATED, NONE, Said(500, "No cluster leader"), HANG, NONE) as server:
        _, sessions = await connect(server.url)
        await sessions.open(NAME, TIMEOUT_S)
        await eventually_async(lambda: renewals(server.asked) > 5, 10)  # through a failure and a question that hung
        await sessions.close()
        count = renewals(server.asked)
        await holds_async(lambda: renewals(server.asked) == count, 0.3)


@pytest.mark.usefixtures("fast")
async def test_a_session_that_was_closed_or_has_ended_is_renewed_no_more(connect: Connect) -> None:
    async with rude(CREATED, NONE, NONE, Said(404, "not found"), NONE) as server:
        _, sessions = await connect(server.url)
        await sessions.open(NAME, TIMEOUT_S)
        await eventually_async(lambda: renewals(server.asked) == 2, 10)
        await holds_async(lambda: renewals(server.asked) == 2, 0.3)
    async with rude(CREATED, NONE, Said(body="true"), NONE) as server:
        _, sessions = await connect(server.url)
        await sessions.open(NAME, TIMEOUT_S)
        await sessions.close_session("s1", TIMEOUT_S)
        count = renewals(server.asked)
        await holds_async(lambda: renewals(server.asked) == count, 0.3)


async def test_three_renewals_fit_into_a_sessions_time() -> None:
    assert consul_session.RENEW_EVERY_S * 3 <= consul_session.SESSION_TTL_S
    assert consul_session.RENEW_EVERY_S + 2 * (consul_session.RENEW_AGAIN_S + consul_session.RENEW_TIMEOUT_S) < consul_session.SESSION_TTL_S
