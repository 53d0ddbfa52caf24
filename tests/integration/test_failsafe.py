"""Failsafe end to end on loopback: a holder's whole control loop, voters that are asked over real HTTP, and a coordinator that goes away.

The local coordinator cannot be cut off from one node alone, so the wires to it are; service and watchdog are stand-ins. What real Consul,
real Postgres and partitions make of it, the lab shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from agent.configuration.peer_keys import PeerKeys
from agent.coordination.coordinator import Transaction
from agent.coordination.failsafe import PromiseDesk
from agent.coordination.lease import Terms
from agent.coordination.node_state import SentVote
from agent.coordination.peer_auth import Door
from agent.coordination.peer_client import PeerClient
from agent.decision.situation import Situation
from agent.decision.view import ServiceState
from agent.errors import CoordinationError
from agent.execution.remembered import Remembered
from agent.execution.watchdog_client import Armed
from agent.instant import has_passed, remaining_s
from agent.reporting.metrics import Metrics
from agent.web.access import Access
from agent.web.peers import PeerEdge
from agent.web.server import Serving, make_app, serve
from tests.polling import eventually_async, holds_async
from tests.unit.agent.looped import Looped, looped
from tests.unit.agent.stage import NODE, SPEC, Stage, staged
from tests.unit.agent.web.face import Face

KEYS = PeerKeys((b"k" * 32,))
TTL_S = 2.0
GROUP = replace(SPEC, members={NODE: SPEC.members[NODE]}, witnesses=("edge1", "edge2"), terms=Terms(TTL_S, 0.3), renew_s=0.2, failsafe=True)
"""It forms itself; two promises are needed, and the holder's own is one."""
GONE = CoordinationError("nobody is there")


@dataclass
class Voter:
    """Another agent's HTTP edge with its own memory and disk."""

    stage: Stage
    serving: Serving


@dataclass
class Cluster:
    """The holder's loop and its voters."""

    group: Looped
    voters: dict[str, Voter] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def situation(self) -> Situation:
        return self.group.decided[-1][1].situation

    def left_s(self) -> float:
        """What the watchdog was given, as the holder believes it."""
        deadline = self.group.stage.hands.owned_deadline
        return 0.0 if deadline is None else remaining_s(deadline, self.group.stage.clock.now())

    def cut(self) -> None:
        """No packet between the holder and its coordinator."""
        self.group.stage.wires.away = GONE

    def fences(self) -> int:
        return self.group.stage.service.calls.count("fence")


async def voter(stack: AsyncExitStack, name: str) -> Voter:
    stage = await stack.enter_async_context(staged(GROUP))
    stage.knowledge.node = name
    desk = PromiseDesk(stage.knowledge, stage.hands.remembered, stage.clock)
    app = make_app(Face(), Metrics(), Access(None), PeerEdge(Door(name, KEYS, stage.clock), {GROUP.name: desk}))
    serving = await serve(app, "127.0.0.1", 0)
    stack.push_async_callback(serving.close)
    return Voter(stage, serving)


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    """Not started yet."""
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(looped(GROUP))
        made = Cluster(group)
        for name in GROUP.witnesses:
            made.voters[name] = await voter(stack, name)
            made.addresses[name] = f"127.0.0.1:{made.voters[name].serving.port}"
        peers = PeerClient(NODE, made.addresses, KEYS, group.stage.clock)
        stack.push_async_callback(peers.close)
        group.stage.hands.peers = peers
        yield made


@pytest.fixture
async def leading() -> AsyncIterator[Cluster]:
    """The holder leads and renews by its coordinator."""
    async with cluster() as made:
        await made.group.loop.start()
        await made.group.until("PromoteService")
        await made.group.until("RenewLease")
        await eventually_async(lambda: made.situation is Situation.LEADING, 10, "it leads")
        yield made


async def test_the_lease_lives_by_promises_while_nothing_commits_and_by_the_coordinator_after(leading: Cluster) -> None:
    leading.cut()
    await eventually_async(lambda: leading.situation is Situation.FAILSAFE, TTL_S, "it lives by promises")
    await holds_async(lambda: leading.left_s() > 0 and leading.fences() == 0, 2 * TTL_S, "the lease lives on")
    for other in leading.voters.values():
        assert other.stage.folder.load(GROUP.name).promise is not None, "on the voter's disk"
    leading.group.stage.wires.away = None
    await eventually_async(lambda: leading.situation is Situation.LEADING, 10, "it renews again")
    assert leading.fences() == 0


async def test_one_voter_of_two_is_enough_and_none_is_not(leading: Cluster) -> None:
    await leading.voters["edge1"].serving.close()
    leading.cut()
    await holds_async(lambda: leading.left_s() > 0, 1.5 * TTL_S, "the lease lives on by one")
    await leading.voters["edge2"].serving.close()
    await eventually_async(lambda: leading.fences() == 1, TTL_S + 3, "it is fenced at its deadline")
    assert leading.situation is not Situation.FAILSAFE


async def test_voters_with_a_vote_out_promise_nothing(leading: Cluster) -> None:
    for other in leading.voters.values():
        other.stage.knowledge.own_vote = SentVote(1, down=True, over_index=0, settled=True)
    leading.cut()
    await eventually_async(lambda: leading.fences() == 1, TTL_S + 3, "it is fenced at its deadline")
    failed = [f.sentence for f in leading.group.finished if type(f.command).__name__ == "AskPromises"]
    assert "edge1: a vote of this node's own against this epoch stands or may yet commit" in failed[-1]


async def test_a_coordinator_that_hangs_is_no_outage_either(leading: Cluster) -> None:
    """Connections stand and nothing is answered: each renewal takes its whole deadline, and is asked beside."""

    async def hang(_: Transaction) -> None:
        await asyncio.sleep(2 * GROUP.renew_s)
        raise GONE

    leading.group.stage.wires.before_transact = hang
    await eventually_async(lambda: leading.situation is Situation.FAILSAFE, TTL_S, "it lives by promises")
    await holds_async(lambda: leading.left_s() > 0.2 * TTL_S, 2 * TTL_S, "with time in hand")
    leading.group.stage.wires.before_transact = None
    await eventually_async(lambda: leading.situation is Situation.LEADING, 10, "it renews again")
    assert leading.fences() == 0


@pytest.fixture
async def restarted() -> AsyncIterator[Cluster]:
    """A new life of the holder's agent: its coordinator is away, its service takes writes, its watchdog holds the deadline."""
    async with cluster() as before:
        await before.group.loop.start()
        await before.group.until("PromoteService")
        await before.group.until("RenewLease")
        old = before.group.stage
        async with cluster() as made:
            stage, now = made.group.stage, before.group.stage.clock.now()
            for record in old.hands.remembered.state.kept_records:
                await stage.hands.remembered.note_record(record)
            await stage.hands.remembered.note_seen(1, 9)
            await stage.hands.remembered.loss_is_over()
            stage.hands.remembered = Remembered(stage.folder, GROUP.name)
            stage.knowledge.high.rise(1, 9)
            stage.service.seen = replace(stage.service.seen, state=ServiceState.PRIMARY)
            stage.watchdog.armed = Armed(1, now.after(1.2), "n")
            made.cut()
            yield made


async def test_a_restarted_agent_asks_at_once_without_its_coordinator(restarted: Cluster) -> None:
    await restarted.group.loop.start()
    await eventually_async(lambda: restarted.group.stage.watchdog.handed, 1.2, "the deadline moves before it is over")
    await holds_async(lambda: restarted.left_s() > 0 and restarted.fences() == 0, 1.5 * TTL_S, "the lease lives on")


def refusals(made: Cluster) -> Iterator[str]:
    yield from (f.sentence for f in made.group.finished if not f.ok)


async def test_a_restarted_agent_without_a_live_deadline_asks_nobody(restarted: Cluster) -> None:
    stage = restarted.group.stage
    stage.watchdog.armed = Armed(1, stage.clock.now().after(-0.1), "n")
    await restarted.group.loop.start()
    await eventually_async(lambda: restarted.fences() > 0, 5, "the service is fenced")
    assert stage.watchdog.handed == []
    assert all(other.stage.knowledge.promise is None for other in restarted.voters.values())
    assert has_passed(stage.watchdog.armed.deadline, stage.clock.now())
