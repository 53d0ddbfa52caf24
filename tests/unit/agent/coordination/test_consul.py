"""What the coordinator on Consul promises beyond the contract (tests/contract): identity, hidden folders, waits, what it says of itself."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from agent.clock import SystemClock
from agent.coordination.consul import ConsulCoordinator
from agent.coordination.consul_access import Access, ConsulPlace
from agent.coordination.coordinator import Committed, Operation, Verb
from agent.errors import CoordinationError, CoordinationRefused
from tests.lab.servers.consul.consul import Acl, ConsulCluster, ConsulServer, Tls, free_loopback_addresses, loopback_cluster
from tests.plugins.left_out import require_part
from tests.unit.agent.coordination.rude_server import HANG, Said, rude

pytestmark = pytest.mark.slow

TIMEOUT_S = 5.0
SET = Operation(Verb.SET, "pg/key", value=b"1")
FOUND = Said(body='[{"Key": "quorate/pg/key", "Value": "MQ==", "ModifyIndex": 7}]')
NOTHING = Said(404, "")

Connect = Callable[..., ConsulCoordinator]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    made: list[ConsulCoordinator] = []

    def make(*urls: str, **more: object) -> ConsulCoordinator:
        place = ConsulPlace(urls, **more)  # type: ignore[arg-type]
        made.append(ConsulCoordinator(place, Access(place, Path.read_text), SystemClock()))
        return made[-1]

    yield make
    for coordinator in made:
        await coordinator.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[ConsulCluster]:
    with loopback_cluster(require_part("Consul"), servers=1, acl=Acl()) as one:
        yield one


@pytest.fixture
def full(cluster: ConsulCluster) -> dict[str, str]:
    """A token that may do everything."""
    assert cluster.acl is not None
    return {"token": cluster.acl.management_token}


# ---------------------------------------------------------------------------------------------------- identity


async def test_the_identity_lies_beside_the_data(cluster: ConsulCluster, connect: Connect, full: dict[str, str]) -> None:
    one, two, other = connect(*cluster.urls, **full), connect(*cluster.urls, **full), connect(*cluster.urls, prefix="other", **full)
    first, same = await asyncio.gather(one.identity(), two.identity())
    assert first == same
    assert first.startswith("consul-")
    assert await other.identity() != first
    cluster.servers[0].ask("/v1/kv/quorate/?recurse", "DELETE")
    assert await one.identity() != first, "whoever deleted all leases made another store"


async def test_a_restored_snapshot_is_the_same_store_gone_back(cluster: ConsulCluster, connect: Connect, full: dict[str, str]) -> None:
    one = connect(*cluster.urls, prefix="kept", **full)
    identity = await one.identity()
    await one.transact((SET,), TIMEOUT_S)
    before = await one.read("pg/", TIMEOUT_S)
    snapshot = await asyncio.to_thread(cluster.servers[0].ask, "/v1/snapshot", timeout_s=10)
    await one.transact((replace(SET, value=b"2"),), TIMEOUT_S)
    await asyncio.to_thread(_restore, cluster.servers[0], snapshot)
    await asyncio.to_thread(cluster.wait_leader)
    assert await one.identity() == identity
    assert await one.read("pg/", TIMEOUT_S) == before, "the index goes back with the data: whoever wrote later sees it"


def _restore(server: ConsulServer, snapshot: bytes) -> None:
    assert server.plan.acl is not None
    headers = {"X-Consul-Token": server.plan.acl.management_token}
    request = urllib.request.Request(f"{server.plan.url}/v1/snapshot", data=snapshot, method="PUT", headers=headers)  # noqa: S310
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20):
        pass


async def test_a_rebuilt_datacentre_is_another_store(connect: Connect) -> None:
    identities = []
    for _ in range(2):
        with loopback_cluster(require_part("Consul"), servers=1) as rebuilt:
            identities.append(await connect(*rebuilt.urls).identity())
    assert identities[0] != identities[1]


# ---------------------------------------------------------------------------------------------------- rights


async def test_a_folder_that_may_not_be_read_is_never_empty(cluster: ConsulCluster, connect: Connect, full: dict[str, str]) -> None:
    await connect(*cluster.urls, **full).transact((SET,), TIMEOUT_S)
    some = 'key_prefix "quorate/" { policy = "write" } key "quorate/pg/key" { policy = "deny" }'
    for token in (None, cluster.token_for('session_prefix "" { policy = "write" }'), cluster.token_for(some)):
        coordinator = connect(*cluster.urls, token=token)
        with pytest.raises(CoordinationRefused):
            await coordinator.read("pg/", TIMEOUT_S)
        with pytest.raises(CoordinationRefused):
            await coordinator.wait("pg/", 0, 0.2)
        with pytest.raises(CoordinationRefused):
            await coordinator.transact((SET,), TIMEOUT_S)


async def test_an_unknown_token_is_refused_by_everything(cluster: ConsulCluster, connect: Connect) -> None:
    secret = "6e1b4a4e-0000-0000-0000-000000000000"
    coordinator = connect(*cluster.urls, token=secret)
    for question in (
        coordinator.identity,
        lambda: coordinator.open_session("x"),
        lambda: coordinator.session_is_alive("x"),
        lambda: coordinator.read("pg/", TIMEOUT_S),
        lambda: coordinator.transact((SET,), TIMEOUT_S),
    ):
        with pytest.raises(CoordinationRefused, match="ACL not found") as error:
            await question()
        assert secret not in str(error.value)


# ---------------------------------------------------------------------------------------------------- waits


async def test_a_wait_that_ends_by_its_time_reads_anew(connect: Connect) -> None:
    """Consul then answers what it knew when it was asked; a server that lost its majority meanwhile would pass that off as now."""
    async with rude(FOUND) as server:
        assert (await connect(server.url).wait("pg/", 7, 0.2)).index == 7
        assert [("index=7" in line) for line in server.asked] == [True, False]


async def test_a_wait_that_rings_is_the_answer(connect: Connect) -> None:
    async with rude(FOUND) as server:
        assert (await connect(server.url).wait("pg/", 3, 0.2)).index == 7
        assert len(server.asked) == 1


async def test_a_wait_at_an_address_that_hangs_is_answered_by_another_one(connect: Connect) -> None:
    async with rude(HANG) as hung, rude(FOUND) as good:
        coordinator = connect(hung.url, good.url)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await coordinator.wait("pg/", 7, 0.4)).index == 7
        assert loop.time() - began < 2
        await coordinator.wait("pg/", 7, 0.1)
        assert len(hung.asked) == 1


async def test_an_empty_folder_is_asked_for_one_key_too(connect: Connect) -> None:
    async with rude(NOTHING) as server:
        assert (await connect(server.url).read("pg/", TIMEOUT_S)).entries == {}
        assert [line.split("?")[0] for line in server.asked] == ["GET /v1/kv/quorate/pg/"] * 2
    async with rude(NOTHING, Said(403, "Permission denied")) as server:
        with pytest.raises(CoordinationRefused):
            await connect(server.url).read("pg/", TIMEOUT_S)


# ---------------------------------------------------------------------------------------------------- without Consul, and with TLS


async def test_it_is_made_without_consul_and_every_call_says_that_it_is_away(connect: Connect) -> None:
    coordinator = connect("http://127.0.0.1:1")
    assert coordinator.description == "Consul at http://127.0.0.1:1, keys below quorate/: it survives the loss of a minority of its servers"
    for question in (coordinator.identity, lambda: coordinator.open_session("x"), lambda: coordinator.wait("pg/", 0, 0.1)):
        with pytest.raises(CoordinationError, match=r"Consul at http://127\.0\.0\.1:1: no connection"):
            await question()


async def test_of_three_servers_two_are_enough_whichever_is_asked(connect: Connect) -> None:
    with loopback_cluster(require_part("Consul")) as three:
        coordinator = connect(*three.urls)
        first = await coordinator.transact((SET,), TIMEOUT_S)
        assert isinstance(first, Committed)
        leader = await asyncio.to_thread(three.wait_leader)
        leader.kill()
        survivors = [server for server in three.servers if server is not leader]
        await asyncio.to_thread(three.wait_leader, 20, survivors)
        assert isinstance(await coordinator.transact((SET,), TIMEOUT_S), Committed)
        survivors[0].freeze()  # now there is no majority, and one that accepts and never answers
        for _ in range(2):
            with pytest.raises(CoordinationError):
                await coordinator.transact((SET,), 0.5)
        survivors[0].thaw()
        leader.start()
        await asyncio.to_thread(three.wait_leader)
        assert (await coordinator.read("pg/", TIMEOUT_S)).index > first.index


async def test_slow_elections_are_told(connect: Connect) -> None:
    said = Said(body='{"Config": {"Server": true}, "DebugConfig": {"ConsulRaftElectionTimeout": "5s"}}')
    identity = Said(body='[{"Key": "quorate/_identity", "Value": "MQ==", "ModifyIndex": 1}]')
    async with rude(said, identity) as server:
        coordinator = connect(server.url)
        await coordinator.identity()
        assert coordinator.description.endswith("nothing can be written for about 15 s (raft_multiplier 5; with 1 about 3 s)")


def certificates(tmp_path: Path, address: str) -> Tls:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("server", "client"):
        shown = authority.issue_cert(address)
        shown.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        shown.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    return Tls(tmp_path / "ca.pem", tmp_path / "server.pem", tmp_path / "server.key", ask_for_client_cert=True)


async def test_tls_with_certificates_on_both_sides(connect: Connect, tmp_path: Path) -> None:
    (address,) = free_loopback_addresses(1)
    tls = certificates(tmp_path, address)
    with loopback_cluster(require_part("Consul"), servers=1, tls=tls, addresses=(address,)):
        url = f"https://{address}:{tls.port}"
        shown = {"cert": tmp_path / "client.pem", "key": tmp_path / "client.key"}
        coordinator = connect(url, ca_file=tls.ca_file, **shown)
        assert isinstance(await coordinator.transact((SET,), TIMEOUT_S), Committed)
        with pytest.raises(CoordinationError, match="certificate verify failed"):
            await connect(url, **shown).read("pg/", TIMEOUT_S)
        with pytest.raises(CoordinationError):
            await connect(url, ca_file=tls.ca_file).read("pg/", TIMEOUT_S)
