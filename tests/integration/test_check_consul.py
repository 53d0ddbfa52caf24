"""The consul check on real servers: one alone, three of which one is killed, access control, TLS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from checks.base import Level, Result, RunLog, Status
from checks.consul import ConsulCheck, ConsulFacts, ConsulOptions
from tests.lab.servers.consul.consul import Acl, ConsulCluster, ConsulServer, ServerPlan, Tls, free_loopback_addresses, loopback_cluster
from tests.polling import eventually, eventually_async
from tests.servers.misbehaving import answering

TIMEOUT_S = 5.0


@pytest.fixture(scope="session")
def binary() -> Path:
    from tests.plugins.left_out import require_part  # noqa: PLC0415 (a plugin must not be imported before pytest loads it)

    return require_part("Consul")


@pytest.fixture(scope="module")
def one(binary: Path) -> Iterator[ConsulCluster]:
    """One server that leads itself. Tests leave it as it was."""
    with loopback_cluster(binary, servers=1) as cluster:
        wait_autopilot(cluster.servers[0])
        yield cluster


def wait_autopilot(server: ConsulServer) -> None:
    """Until autopilot calls all servers healthy: it looks every other second only."""

    def is_well() -> bool:
        with suppress(OSError):  # 429 until then
            server.ask("/v1/operator/autopilot/health")
            return True
        return False

    eventually(is_well, 30.0, what="autopilot calls all servers healthy")


async def probe(url: str, level: Level = Level.LIVENESS, timeout_s: float = TIMEOUT_S, **options: object) -> Result:
    check = ConsulCheck(level, ConsulOptions.model_validate({"url": url, **options}))
    result = await check.probe(timeout_s, RunLog())
    await check.close()
    assert str(options.get("token", "hunter2")) not in repr(result)
    return result


@pytest.mark.parametrize("level", list(Level))
async def test_one_that_leads_is_healthy_at_every_level(one: ConsulCluster, level: Level) -> None:
    result = await probe(one.urls[0], level, peers=1)
    assert result.status is Status.HEALTHY, result
    assert result.sentence.startswith(f"Consul at {one.urls[0]} ")


async def test_deep_reads_all_facts(one: ConsulCluster) -> None:
    facts = (await probe(one.urls[0], Level.DEEP)).facts
    assert isinstance(facts, ConsulFacts)
    assert (len(facts.peers), facts.leader) == (1, f"{one.servers[0].plan.address}:8300")
    assert facts.autopilot is not None
    assert [server.is_healthy for server in facts.autopilot.servers] == [True]
    assert facts.raft_multiplier == 1
    assert facts.read_latency_s is not None


async def test_another_number_of_servers_and_a_slow_read_are_told(one: ConsulCluster) -> None:
    few = await probe(one.urls[0], Level.READINESS, peers=3)
    slow = await probe(one.urls[0], Level.DEEP, slow_after="0.001ms")
    assert (few.status, few.sentence.endswith("and 1 server(s); there should be 3")) == (Status.DEGRADED, True)
    assert (slow.status, "a consistent read took" in slow.sentence) == (Status.DEGRADED, True)


async def test_the_slow_default_of_raft_is_told_unless_it_is_wanted(binary: Path, tmp_path: Path) -> None:
    [address] = free_loopback_addresses(1)
    server = ConsulServer(ServerPlan("slow", tmp_path, binary, address, raft_multiplier=5))
    server.start()
    try:
        ConsulCluster([server]).wait_leader(60.0)
        wait_autopilot(server)
        told = await probe(server.plan.url, Level.DEEP)
        wanted = await probe(server.plan.url, Level.DEEP, slow_raft=True)
    finally:
        server.kill()
    assert (told.status, "raft_multiplier is 5" in told.sentence) == (Status.DEGRADED, True)
    assert wanted.status is Status.HEALTHY


async def test_a_server_that_dies_is_told_and_without_a_majority_nobody_is_ready(binary: Path) -> None:
    with loopback_cluster(binary) as cluster:
        leader = cluster.wait_leader()
        first, second = (server for server in cluster.servers if server is not leader)

        async def is_told(level: Level, status: Status, words: str) -> bool:
            result = await probe(leader.plan.url, level, peers=3)
            return result.status is status and words in result.sentence

        await eventually_async(lambda: is_told(Level.DEEP, Status.HEALTHY, "and 3 server(s)"), 40.0)
        first.kill()
        await eventually_async(lambda: is_told(Level.DEEP, Status.DEGRADED, f"server {first.plan.name} is not healthy"), 40.0)
        second.kill()
        await eventually_async(lambda: is_told(Level.READINESS, Status.UNHEALTHY, "sees no leader"), 20.0)
        alive = await probe(leader.plan.url)
    assert (alive.status, alive.sentence.endswith("answers, but sees no leader")) == (Status.HEALTHY, True)


async def test_what_the_token_may_not_do_is_our_fault(binary: Path, tmp_path: Path) -> None:
    with loopback_cluster(binary, servers=1, acl=Acl()) as cluster:
        [url] = cluster.urls
        wait_autopilot(cluster.servers[0])
        right = cluster.token_for('operator = "read"\nagent_prefix "" { policy = "read" }\nkey "quorate/check" { policy = "read" }')
        key_only = cluster.token_for('key "quorate/check" { policy = "read" }')
        bare = await probe(url, Level.READINESS, peers=1)
        well, file = await probe(url, Level.DEEP, token=right), tmp_path / "token"
        file.write_text(f"{right}\n", encoding="utf-8")
        by_file = await probe(url, Level.DEEP, token_file=file)
        refused = [await probe(url, Level.DEEP, **given) for given in ({}, {"token": key_only}, {"token": "no-such-token"})]
    assert [result.status for result in (bare, well, by_file)] == [Status.HEALTHY] * 3
    for result in refused:
        assert (result.status, "does not let this token ask" in result.sentence) == (Status.UNKNOWN, True), result


async def test_tls_with_a_certificate_of_ours(binary: Path, tmp_path: Path) -> None:
    ca = trustme.CA()
    [address] = free_loopback_addresses(1)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = ca.issue_cert(address)
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "server.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    ca.issue_cert("quorate@example.test").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    tls = Tls(tmp_path / "ca.pem", tmp_path / "server.pem", tmp_path / "server.key", ask_for_client_cert=True)
    server = ConsulServer(replace(ServerPlan("tls", tmp_path / "consul", binary, address), tls=tls))
    server.start()
    try:
        ConsulCluster([server]).wait_leader()
        url = f"https://{address}:{tls.port}"
        well = await probe(url, Level.READINESS, ca=tmp_path / "ca.pem", cert=tmp_path / "client.pem")
        untrusted = await probe(url, cert=tmp_path / "client.pem")
        without = await probe(url, ca=tmp_path / "ca.pem")
    finally:
        server.kill()
    assert well.status is Status.HEALTHY, well
    assert (untrusted.status, "is not accepted" in untrusted.sentence) == (Status.UNKNOWN, True)
    assert without.status in {Status.UNKNOWN, Status.UNHEALTHY}


async def test_a_frozen_server_is_unhealthy_at_the_deadline(binary: Path) -> None:
    with loopback_cluster(binary, servers=1) as cluster:
        cluster.servers[0].freeze()
        for level in Level:
            result = await probe(cluster.urls[0], level, 0.3)
            assert (result.status, "gave no answer within 0.3 s" in result.sentence) == (Status.UNHEALTHY, True)


@pytest.mark.parametrize("body", [b"not json", b"{}", b"[1]"])
async def test_an_answer_that_makes_no_sense_is_the_targets_fault(body: bytes) -> None:
    async with answering(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body, after_bytes=20) as port:
        result = await probe(f"http://127.0.0.1:{port}")
    assert (result.status, "makes no sense" in result.sentence) == (Status.UNHEALTHY, True)
