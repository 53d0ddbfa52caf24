"""A sync standby whose host dies without a word, on real servers: commits wait sync_timeout and no longer, and everybody is told for whom.

A stopped receiver stands for the dead host: its kernel still takes packets, but nothing comes back, and no connection is reset.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from actions.postgres import Follow
from agent.clock import SystemClock
from agent.decision.durability import with_signs_of_life
from agent.decision.view import Replica, ServiceState, ServiceView
from agent.demo.cluster import ClusterOptions
from agent.execution.postgres_service import PostgresService
from tests.polling import eventually_async
from tests.servers.freezing import freeze
from tests.servers.group import TestGroup, running_group
from tests.servers.postgres import PostgresServer, all_bin_dirs
from tests.servers.postgres_member import Member, member, new_server, standby_of

pytestmark = pytest.mark.timeout(180)

VERSIONS = sorted(all_bin_dirs())
UNTUNED = {"wal_sender_timeout": "60s"}
"""Postgres' own default."""


@dataclass
class Group:
    """A primary and two standbys of it, streaming."""

    a: Member
    b: Member
    c: Member


@asynccontextmanager
async def streaming(version: str, sender_timeout_s: float | None) -> AsyncIterator[Group]:
    async with AsyncExitStack() as stack:
        primary = stack.enter_context(new_server(version, settings=UNTUNED))
        primary.start()
        standbys = [stack.enter_context(standby_of(primary, node, settings=UNTUNED)) for node in ("b", "c")]
        primary.wait_streaming(2)
        primary.psql("CREATE TABLE t (i int)")
        servers = zip((primary, *standbys), ("a", "b", "c"), strict=True)
        a, b, c = [await stack.enter_async_context(member(server, node)) for server, node in servers]
        b = b.with_settings(sender_timeout_s=sender_timeout_s)
        await b.do(Follow(b.instance, b.session, a.upstream))
        try:
            yield Group(a, b, c)
        finally:
            await b.session.drop()


def receiver_of(server: PostgresServer) -> int:
    return int(server.psql("SELECT pid FROM pg_stat_wal_receiver"))


def senders_of(primary: PostgresServer, node: str) -> int:
    return primary.psql("SELECT application_name FROM pg_stat_replication").splitlines().count(node)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_standby_says_itself_how_soon_its_sender_gives_it_up(version: str) -> None:
    async with streaming(version, sender_timeout_s=2.0) as group:
        receiver = receiver_of(group.b.server)
        freeze(receiver)
        try:
            began = time.monotonic()
            await eventually_async(lambda: senders_of(group.a.server, "b") == 0, 20, "the sender of b gives up")
            assert time.monotonic() - began > 0.9
            assert senders_of(group.a.server, "c") == 1
        finally:
            os.kill(receiver, signal.SIGCONT)
        await eventually_async(lambda: senders_of(group.a.server, "b") == 1, 30, "b streams again")


class Eyes:
    """Looks at a primary as its agent does."""

    def __init__(self, primary: Member) -> None:
        self._primary = primary
        self._service = PostgresService(primary.instance, {}, 0.3)
        self._clock = SystemClock()
        self._before = ServiceView(ServiceState.UNKNOWN)

    async def look(self, *, write: bool) -> dict[str, Replica]:
        """A look, perhaps after something was written; standbys by name."""
        if write:
            await asyncio.to_thread(self._primary.server.psql, "INSERT INTO t VALUES (1)")
        seen = await self._service.read(2.0)
        assert seen.state is ServiceState.PRIMARY, seen.sentence
        now = self._clock.now()
        self._before = replace(with_signs_of_life(self._before, seen, now), seen=now)
        return {r.name: r for r in self._before.replicas}

    async def wait_alive(self, *names: str, write: bool) -> None:
        """Look until the last look found a sign of life of each."""

        async def alive() -> bool:
            seen = await self.look(write=write)
            return all(name in seen and seen[name].heard == self._before.seen for name in names)

        await eventually_async(alive, 10, f"{names} answer")

    async def close(self) -> None:
        await self._service.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_silent_standby_is_seen_while_postgres_still_calls_it_streaming(version: str) -> None:
    async with streaming(version, sender_timeout_s=None) as group:
        eyes = Eyes(group.a)
        try:
            for write in (False, False, True, True):
                await eyes.wait_alive("b", "c", write=write)
            receiver = receiver_of(group.b.server)
            freeze(receiver)
            try:
                silent_since = (await eyes.look(write=True))["b"].heard
                for write in (False, True, False, True):
                    await eyes.wait_alive("c", write=write)
                    b = (await eyes.look(write=write))["b"]
                    assert (b.streaming, b.heard) == (True, silent_since)
            finally:
                os.kill(receiver, signal.SIGCONT)
            await eyes.wait_alive("b", "c", write=True)
        finally:
            await eyes.close()


# ------------------------------------------------------------------ a whole group

SYNC_TIMEOUT_S = 3.0
"""The default, which the demo's group has."""
SLACK_S = 1.5


@pytest.fixture
async def group(postgres_bin: Path) -> AsyncIterator[TestGroup]:
    async with running_group(ClusterOptions(bin_dir=postgres_bin)) as started:
        yield started
        assert started.sampler.overlap_s() <= 0, f"two primaries for {started.sampler.overlap_s()} s\n{started.logs()}"


async def test_commits_wait_for_a_dead_standby_as_long_as_sync_timeout_and_say_so(group: TestGroup) -> None:
    primary = group.cluster.servers[group.leader]

    async def sync_set() -> tuple[str, ...]:
        status = await group.status(group.leader)
        return () if status is None else status.sync_set or ()

    [dead] = await eventually_async(sync_set, 20, "a standby is in the sync set")
    receiver = receiver_of(group.cluster.servers[dead])
    freeze(receiver)
    try:
        began = time.monotonic()
        commit = asyncio.create_task(asyncio.to_thread(primary.psql, "CREATE TABLE waited_for ()"))

        async def is_said() -> bool:
            status = await group.status(group.leader)
            return status is not None and status.sync_wait is not None and status.sync_wait.standbys == (dead,)

        await eventually_async(is_said, SYNC_TIMEOUT_S, "the status says for whom commits wait")
        await commit
        waited_s = time.monotonic() - began
        assert SYNC_TIMEOUT_S - SLACK_S < waited_s < SYNC_TIMEOUT_S + SLACK_S, group.logs()
        [other] = (name for name in group.others if name != dead)

        async def other_is_in() -> bool:
            return await sync_set() == (other,)

        await eventually_async(other_is_in, 20, f"{other} is in the set instead")
        assert await group.leads(but=dead) == group.leader
    finally:
        os.kill(receiver, signal.SIGCONT)
    assert await group.whole() == group.leader
