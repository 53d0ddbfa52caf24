"""The tcp check against real sockets."""

from __future__ import annotations

import pytest

from checks.base import Level, RunLog, Status
from checks.tcp import TcpCheck, TcpFacts, TcpOptions
from tests.servers.misbehaving import blackhole, hung


def check(address: str) -> TcpCheck:
    return TcpCheck(Level.LIVENESS, TcpOptions(address=address))


async def test_a_port_that_takes_connections_is_healthy_even_if_nobody_speaks() -> None:
    async with hung() as port:
        result = await check(f"127.0.0.1:{port}").probe(2.0, RunLog())
    assert (result.status, result.facts) == (Status.HEALTHY, TcpFacts("127.0.0.1"))


async def test_a_name_is_looked_up() -> None:
    async with hung() as port:
        result = await check(f"localhost:{port}").probe(2.0, RunLog())
    assert result.status is Status.HEALTHY


async def test_of_several_addresses_one_that_answers_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_: str) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr("checks.tcp.RESOLVER.resolve", resolve)
    async with hung() as port:
        result = await check(f"db.example.test:{port}").probe(2.0, RunLog())
    assert (result.status, result.facts) == (Status.HEALTHY, TcpFacts("127.0.0.1"))


async def test_an_address_that_hangs_takes_only_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_: str) -> list[str]:
        return ["127.0.0.1", "127.0.0.2"]

    monkeypatch.setattr("checks.tcp.RESOLVER.resolve", resolve)
    with blackhole() as port:
        result = await check(f"db.example.test:{port}").probe(1.0, RunLog())
    assert "refuses connections" in result.sentence  # that is the second address: the first one had half a second
    assert result.latency_s < 1.0
