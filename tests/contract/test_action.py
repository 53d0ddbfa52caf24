"""What every action keeps, whatever it changes: doing it twice is harmless, dying in it is mended by doing it again, undoing it is safe.

A new action joins by one row in SITUATIONS; one without a row fails.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from actions import postgres
from actions.base import Action, ActionError
from actions.postgres import Copy, Fence, Follow, PostgresAction, Promote, Rewind, Seal, SetSyncNames, Start, Stop, StopReceiving
from tests.guards import GUARD
from tests.servers.postgres import all_bin_dirs
from tests.servers.postgres_member import Crash, Member, crash_at, kill_tree, member, new_server, standby_of

pytestmark = pytest.mark.slow

VERSION = min(all_bin_dirs(), default="")


@dataclass
class World:
    """A writable primary and its streaming standby."""

    primary: Member
    standby: Member


@dataclass(frozen=True)
class Situation:
    """Where an action is wanted: what has to happen first, and the action, made anew each time."""

    make: Callable[[World], Action[object]]
    before: Callable[[World], Awaitable[object]] | None = None
    steps: tuple[str, ...] = ()
    """Those at which an agent may die."""


async def stop_standby(world: World) -> None:
    world.standby.server.stop()


async def let_go(world: World) -> None:
    await world.standby.do(StopReceiving(world.standby.instance, world.standby.session, kill_tree))


async def part_ways(world: World) -> None:
    """The standby was promoted, and both wrote rows since."""
    await let_go(world)
    await world.standby.do(Promote(world.standby.instance, world.standby.session, kill_tree, sync_names=None))
    for each in (world.primary, world.standby):
        each.server.psql("CREATE TABLE own AS SELECT generate_series(1, 500) AS i")
    world.primary.server.kill()


def of(kind: Callable[..., PostgresAction[object]], who: str, *rest: object, **more: object) -> Callable[[World], Action[object]]:
    def make(world: World) -> Action[object]:
        each: Member = getattr(world, who)
        arguments = [value(world) if callable(value) and value is not kill_tree else value for value in rest]
        return kind(each.instance, each.session, *arguments, **more)

    return make


def the(who: str) -> Callable[[World], object]:
    return lambda world: getattr(world, who).upstream


SITUATIONS: Mapping[type[PostgresAction[object]], Situation] = {
    Start: Situation(of(Start, "standby"), stop_standby, ("start",)),
    Stop: Situation(of(Stop, "primary", kill_tree), None, ("stop",)),
    Fence: Situation(of(Fence, "primary", kill_tree, 0.5)),
    Seal: Situation(of(Seal, "primary"), None, ("seal",)),
    StopReceiving: Situation(of(StopReceiving, "standby", kill_tree), None, ("stop_receiving",)),
    Follow: Situation(of(Follow, "standby", the("primary")), let_go, ("follow",)),
    Promote: Situation(
        of(Promote, "standby", kill_tree, sync_names=("x",)), let_go, ("set_sync_names", "place_history", "promote", "seal")
    ),
    SetSyncNames: Situation(of(SetSyncNames, "primary", ("standby",)), None, ("set_sync_names",)),
    Rewind: Situation(of(Rewind, "primary", the("standby"), kill_tree), part_ways, ("recover", "stop", "start", "follow")),
    Copy: Situation(of(Copy, "primary", the("standby"), kill_tree), part_ways, ("stop", "fetch", "swap", "start", "follow")),
}  # type: ignore[dict-item]
DYING = [pytest.param(kind, step, id=f"{kind.__name__}-{step}") for kind, situation in SITUATIONS.items() for step in situation.steps]
KINDS = [pytest.param(kind, id=kind.__name__) for kind in SITUATIONS]


@pytest.fixture
async def world(postgres_bin: object) -> AsyncIterator[World]:
    del postgres_bin
    async with AsyncExitStack() as stack:
        server = stack.enter_context(new_server(VERSION))
        server.start()
        standby = stack.enter_context(standby_of(server, "standby"))
        server.wait_streaming(1)
        first = await stack.enter_async_context(member(server, "primary"))
        yield World(first, await stack.enter_async_context(member(standby, "standby")))


async def prepared(world: World, kind: type[PostgresAction[object]]) -> Situation:
    situation = SITUATIONS[kind]
    if situation.before is not None:
        await situation.before(world)
    return situation


def all_kinds() -> Iterator[type]:
    for _, kind in inspect.getmembers(postgres, inspect.isclass):
        if issubclass(kind, Action) and not inspect.isabstract(kind):
            yield kind


def test_every_action_is_in_this_suite() -> None:
    assert set(all_kinds()) == set(SITUATIONS)
    assert len({kind.name for kind in all_kinds()}) == len(SITUATIONS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
async def test_applied_it_is_done_and_twice_is_harmless(world: World, kind: type[PostgresAction[object]]) -> None:
    situation = await prepared(world, kind)
    await situation.make(world).apply(GUARD)
    await situation.make(world).verify()
    assert await situation.make(world).is_done()
    await situation.make(world).apply(GUARD)
    await situation.make(world).verify()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_not_done_is_not_called_done(world: World, kind: type[PostgresAction[object]]) -> None:
    situation = await prepared(world, kind)
    action = situation.make(world)
    assert not await action.is_done()
    with pytest.raises(ActionError):
        await action.verify()


@pytest.mark.parametrize(("kind", "step"), DYING)
async def test_an_agent_that_dies_after_noting_a_step_is_mended_by_the_next(
    world: World, kind: type[PostgresAction[object]], step: str
) -> None:
    situation = await prepared(world, kind)
    guard, noted = crash_at(step)
    with pytest.raises(Crash):
        await situation.make(world).apply(guard)
    assert noted[-1] == step
    for each in (world.primary, world.standby):
        await each.session.drop()
    await situation.make(world).apply(GUARD)
    await situation.make(world).verify()


@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_is_cancelled_ends_soon_and_is_mended_by_the_next(world: World, kind: type[PostgresAction[object]]) -> None:
    situation = await prepared(world, kind)
    running = asyncio.ensure_future(situation.make(world).apply(GUARD))
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=5)
    assert done
    if not running.cancelled():
        running.result()
    await situation.make(world).apply(GUARD)
    await situation.make(world).verify()


@pytest.mark.parametrize("kind", KINDS)
async def test_undone_it_never_leaves_more_writable_than_before(world: World, kind: type[PostgresAction[object]]) -> None:
    situation = await prepared(world, kind)
    action = situation.make(world)
    await action.apply(GUARD)
    await action.undo()
    if kind is Promote:
        assert world.standby.server.processes() == ()
    elif world.standby.server.pid() is not None and situation.before is not part_ways:
        assert world.standby.server.psql("SELECT pg_is_in_recovery()") == "t"
