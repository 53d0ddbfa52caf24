"""A small model check of the core: two or three members in a toy world, with a seed's worth of trouble, and what must hold all the time.

Never two that take writes. In `sync` never an acknowledged write lost. No standby on a foreign history. And when the trouble ends: a
primary, and everybody else follows it. The full simulator is another thing; this one runs in seconds, whenever the core is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.coordination import lease
from agent.coordination.coordinator import Operation, Verb
from agent.coordination.intents import StoredIntent, encode_intent
from agent.coordination.lease import Terms
from agent.decision import candidate
from agent.decision.view import Durability, GroupSpec, IntentKind, OnCrash, ServiceState
from tests.scenarios.building import scene
from tests.scenarios.toy_parts import GROUP, Node
from tests.scenarios.toy_world import Broken, World, leads

TROUBLE_S, CALM_S = 13.0, 12.0
BASE = replace(
    scene().view.group, name="pg-main", terms=Terms(2.0, 0.3), renew_s=0.4, patience_s=3.0, restart_timeout_s=4.0, sync_timeout_s=1.0
)


def group(members: int, durability: Durability, on_crash: OnCrash) -> GroupSpec:
    names = dict(list(BASE.members.items())[:members])
    return replace(BASE, members=names, durability=durability, on_crash=on_crash, max_lag_bytes=10**9)


# ------------------------------------------------------------------ what goes wrong


def crash_service(_: World, node: Node) -> None:
    node.service.kill()


def kill_agent(world: World, node: Node) -> None:
    """Its supervisor starts it again after a while."""
    world.kill_agent(node)
    world.after(world.rng.uniform(0.2, 4.0), lambda: world.start_agent(node) if node.knowledge is None else None)


def freeze_agent(world: World, node: Node) -> None:
    node.frozen_until_s = world.now_s + world.rng.uniform(0.5, 5.0)


def cut_off(world: World, node: Node) -> None:
    node.cut_until_s = world.now_s + world.rng.uniform(0.3, 4.0)


def stall_host(world: World, node: Node) -> None:
    """Nobody sees it any more and its agent does not run, but its service does."""
    node.frozen_until_s = node.cut_until_s = world.now_s + world.rng.uniform(1.0, 6.0)


def lose_host(world: World, node: Node) -> None:
    """Power off, and on again."""
    node.service.kill()
    node.guard = node.guard._replace(deadline=None, latched=False)
    kill_agent(world, node)


def end_session(world: World, node: Node) -> None:
    """The agent opens a new one as soon as it is told."""
    if node.knowledge is not None and node.knowledge.session is not None:
        world.store.end_session(node.knowledge.session)
        node.knowledge.session = f"{node.knowledge.session}+"
        world.store.sessions.add(node.knowledge.session)


def stop_store(world: World, _: Node) -> None:
    world.store.is_up = False
    world.after(world.rng.uniform(0.3, 3.0), lambda: setattr(world.store, "is_up", True))


def switch_over(world: World, node: Node) -> None:
    """An operator asks the coordinator itself."""
    entry = world.store.entries.get(lease.lease_key(GROUP))
    epoch = 0 if entry is None else lease.decode_record(entry.value).epoch
    wish = StoredIntent(IntentKind.SWITCHOVER, world.rng.choice([None, node.name]), epoch, "ada", "maintenance", 0.0)
    world.store.run((Operation(Verb.SET, lease.intent_key(GROUP, f"i{world.count}"), value=encode_intent(wish)),))


TROUBLES: tuple[Callable[[World, Node], None], ...] = (
    *(switch_over, crash_service, kill_agent, freeze_agent, cut_off, stall_host, lose_host, end_session, stop_store),
)


def make_trouble(world: World) -> None:
    """Something goes wrong about every second and a half, more often than not with whoever leads."""
    if world.now_s >= TROUBLE_S:
        return
    leader = leads(world)
    node = leader if leader is not None and world.rng.random() < 0.6 else world.rng.choice(list(world.nodes.values()))
    trouble = world.rng.choice(TROUBLES)
    world.say(node, trouble.__name__)
    trouble(world, node)
    world.after(world.rng.expovariate(1 / 1.5), lambda: make_trouble(world))


def play(seed: int, spec: GroupSpec) -> World:
    world = World(seed, spec)
    world.run(3.0)
    make_trouble(world)
    world.run(TROUBLE_S)
    world.is_lossy = False
    world.run(TROUBLE_S + CALM_S)
    return world


def assert_well(world: World) -> None:
    leader = leads(world)
    assert leader is not None, "no primary in the end"
    for node in world.nodes.values():
        if node is not leader:
            assert (node.service.state, node.service.upstream, node.service.receiving) == (ServiceState.STANDBY, leader.name, True), node
    assert leader.service.log, "nobody ever wrote"


@pytest.mark.parametrize("seed", range(8))
def test_never_two_nothing_lost_and_a_primary_in_the_end(seed: int) -> None:
    durability = Durability.SYNC if seed % 3 else Durability.ASYNC
    spec = group(3 if seed % 4 else 2, durability, OnCrash.RESTART if seed % 5 == 0 else OnCrash.FAILOVER)
    world = play(seed, spec)
    try:
        assert_well(world)
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *world.trace[-60:]])) from error


def test_the_same_seed_is_the_same_world() -> None:
    spec = group(3, Durability.SYNC, OnCrash.FAILOVER)
    assert play(1, spec).trace == play(1, spec).trace


def test_a_world_without_trouble_has_one_leader_from_its_first_second() -> None:
    world = World(0, group(3, Durability.SYNC, OnCrash.FAILOVER))
    world.run(3.0)
    assert leads(world) is not None
    assert world.promotions == 1


def finds(sentence: str) -> bool:
    """Whether one of many worlds breaks in this way."""
    for seed in (4, 9, 15, 20, *range(30)):
        world = World(seed, group(3, Durability.SYNC, OnCrash.FAILOVER))
        try:
            world.run(3.0)
            make_trouble(world)
            world.run(TROUBLE_S)
        except Broken as broken:
            if sentence in str(broken):
                return True
    return False


def test_without_the_watchdog_the_model_finds_two_that_take_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "watch_over", lambda *_: None)
    assert finds("take writes at once")


def test_with_a_candidate_from_outside_the_set_the_model_finds_a_lost_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "_durable_enough", lambda *_: True)
    assert finds("acknowledged")


def test_two_that_take_writes_are_seen() -> None:
    world = World(0, group(2, Durability.SYNC, OnCrash.FAILOVER))
    for node in world.nodes.values():
        node.service.state = ServiceState.PRIMARY
    with pytest.raises(Broken, match="take writes at once"):
        world.check()


def test_a_lost_write_is_seen() -> None:
    world = World(0, group(2, Durability.SYNC, OnCrash.FAILOVER))
    world.nodes["pg1"].service.state = ServiceState.PRIMARY
    world.acknowledged.add(99)
    with pytest.raises(Broken, match="lacks 1 acknowledged"):
        world.check()
