"""On the real door, in a network of the test's own."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest

from actions.base import ActionError
from actions.port import Door, DoorState, Port
from actions.port_netfilter import Netfilter, delete_table
from agent.clock import SystemClock
from agent.configuration.group_spec import group_spec_of
from agent.configuration.loader import parse
from agent.configuration.model import Configuration, Consul, Coordination
from agent.coordination.lease import LeaseState, Tenure
from agent.decision.view import FenceLayer
from agent.execution import kernel_lease, lease_writer
from agent.execution.kernel_lease import KernelLease, kernel_lease_of, port_of, take_away
from agent.execution.lease_writer import hand_over
from agent.instant import Instant
from tests.polling import eventually_async
from tests.servers.own_network import own_network, ruleset
from tests.unit.agent.stage import SPEC, ShiftedClock, Stage, first_record, staged

PORT = 5432


@dataclass
class Stand:
    """A lease on a door, with a clock that a test may set on."""

    clock: ShiftedClock
    port: Port
    lease: KernelLease
    cuts: list[int] = field(default_factory=list)

    @property
    def door(self) -> Door:
        return self.port.read()

    def in_s(self, seconds: float) -> Instant:
        return self.clock.now().after(seconds)

    @property
    def told(self) -> tuple[bool, int | None, str]:
        return self.lease.stands, self.lease.epoch, self.lease.problem


async def standing(*, required: bool) -> AsyncIterator[Stand]:
    with own_network():
        clock, port, cuts = ShiftedClock(), Port("main", "h1", PORT, (ip_address("192.0.2.2"),)), list[int]()
        lease = KernelLease("main", port, clock, required=required, on_cut=lambda: cuts.append(1))
        yield Stand(clock, Port("main", "h1", PORT, (ip_address("192.0.2.2"),)), lease, cuts)
        await lease.hang_up()


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async for one in standing(required=False):
        yield one
        one.port.hang_up()


@pytest.fixture
async def strict() -> AsyncIterator[Stand]:
    """The layer must stand."""
    async for one in standing(required=True):
        yield one
        one.port.hang_up()


async def test_it_begins_closed_and_adopts_what_an_earlier_life_left(stand: Stand) -> None:
    assert stand.told == (False, None, "")
    await stand.lease.begin()
    assert (stand.door, stand.told) == (Door(DoorState.CLOSED), (True, None, ""))
    stand.port.open_standing()
    await stand.lease.begin()
    assert stand.door == Door(DoorState.STANDING)


async def test_it_is_leased_for_an_epoch_never_longer_than_the_deadline(stand: Stand) -> None:
    await stand.lease.arm(7, stand.in_s(30.0))
    assert stand.told == (True, 7, "")
    left_ms = stand.door.left_ms
    assert left_ms is not None
    assert 25_000 < left_ms <= 30_000
    await stand.lease.arm(7, stand.in_s(60.0))
    assert (stand.door.left_ms or 0) > 50_000
    await stand.lease.arm(7, stand.in_s(10.0))
    assert (stand.door.left_ms or 0) <= 10_000


async def test_the_nearer_clock_counts(stand: Stand) -> None:
    deadline = stand.in_s(30.0)
    await stand.lease.arm(7, Instant(deadline.boot_ns, stand.in_s(5.0).raw_ns))
    assert (stand.door.left_ms or 0) <= 5_000


async def test_a_standing_door_becomes_a_leased_one_and_back(stand: Stand) -> None:
    await stand.lease.stand()
    assert (stand.door, stand.told) == (Door(DoorState.STANDING), (True, None, ""))
    await stand.lease.arm(7, stand.in_s(30.0))
    assert (stand.door.state, stand.lease.epoch) == (DoorState.LEASED, 7)
    await stand.lease.stand()
    assert (stand.door, stand.lease.epoch) == (Door(DoorState.STANDING), None)
    await stand.lease.close()
    assert (stand.door, stand.told) == (Door(DoorState.CLOSED), (True, None, ""))
    assert stand.cuts == []


async def test_a_wish_that_is_over_when_its_turn_comes_is_dropped(stand: Stand) -> None:
    await stand.lease.arm(7, stand.in_s(30.0))
    await stand.lease.stand(lambda: False)
    await stand.lease.close(lambda: False)
    assert (stand.door.state, stand.lease.epoch) == (DoorState.LEASED, 7)


@pytest.mark.parametrize("left_s", [-1.0, 0.0, 0.01])
async def test_a_deadline_that_is_over_closes(stand: Stand, left_s: float) -> None:
    await stand.lease.stand()
    await stand.lease.arm(7, stand.in_s(left_s))
    assert (stand.door, stand.told) == (Door(DoorState.CLOSED), (True, None, ""))


async def test_what_the_kernel_cut_is_counted_and_opened_anew_only_under_a_live_deadline(stand: Stand) -> None:
    await stand.lease.arm(7, stand.in_s(0.05))
    await eventually_async(lambda: stand.door.state is DoorState.CLOSED, 5, "it expires by itself")
    assert stand.cuts == []
    await stand.lease.arm(7, stand.in_s(-0.1))
    assert (stand.door, stand.lease.epoch) == (Door(DoorState.CLOSED), None)
    await stand.lease.arm(7, stand.in_s(0.05))
    await eventually_async(lambda: stand.door.state is DoorState.CLOSED, 5, "it expires by itself")
    await stand.lease.arm(7, stand.in_s(30.0))
    assert (stand.door.state, stand.lease.epoch, stand.cuts) == (DoorState.LEASED, 7, [1])
    await stand.lease.arm(8, stand.in_s(0.05))
    await eventually_async(lambda: stand.door.state is DoorState.CLOSED, 5, "it expires by itself")
    await stand.lease.close()
    assert stand.cuts == [1, 1]
    await stand.lease.close()
    assert stand.cuts == [1, 1]


async def test_a_flushed_filter_comes_back_with_the_next_renewal_and_was_no_cut(stand: Stand) -> None:
    await stand.lease.arm(7, stand.in_s(30.0))
    line = Netfilter()
    line.change((delete_table("quorate_main"),))
    line.close()
    await stand.lease.arm(7, stand.in_s(30.0))
    assert (stand.door.state, stand.told, stand.cuts) == (DoorState.LEASED, (True, 7, ""), [])


async def test_a_flushed_filter_under_a_deadline_that_is_over_comes_back_closed(stand: Stand) -> None:
    await stand.lease.arm(7, stand.in_s(-0.1))
    assert (stand.door, stand.told) == (Door(DoorState.CLOSED), (True, None, ""))


async def test_while_it_is_renewed_the_lease_of_before_counts(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    await stand.lease.arm(7, stand.in_s(30.0))
    seen: list[int | None] = []
    real = Port.renew

    def looked(port: Port, left_ms: int) -> None:
        seen.append(stand.lease.epoch)
        real(port, left_ms)

    monkeypatch.setattr(Port, "renew", looked)
    await stand.lease.arm(7, stand.in_s(30.0))
    await stand.lease.arm(8, stand.in_s(30.0))
    assert (seen, stand.lease.epoch) == ([7, None], 8)


async def test_a_freeze_between_clock_and_door_leaves_nothing_open(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process stood still for a minute after it had read the clock, each time."""
    real = Port.open_for

    def frozen(port: Port, left_ms: int) -> None:
        stand.clock.shift_s += 29.0
        real(port, left_ms)

    monkeypatch.setattr(Port, "open_for", frozen)
    await stand.lease.arm(7, stand.in_s(30.0))
    assert (stand.door, stand.told) == (Door(DoorState.CLOSED), (True, None, ""))


async def test_a_short_stall_is_armed_again(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    real, stalls = Port.renew, [2.0]

    def stalled(port: Port, left_ms: int) -> None:
        stand.clock.shift_s += stalls.pop()
        real(port, left_ms)

    await stand.lease.stand()
    monkeypatch.setattr(Port, "renew", stalled)
    deadline = stand.in_s(30.0)
    await stand.lease.arm(7, deadline)
    assert (stand.door.state, stand.lease.epoch) == (DoorState.LEASED, 7)
    assert (stand.door.left_ms or 0) <= 28_000


def breaks(*_: object) -> None:
    raise ActionError("the packet filter refused: no memory")


async def test_a_door_that_does_not_obey_is_taken_away(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    await stand.lease.arm(7, stand.in_s(30.0))
    with monkeypatch.context() as patch:
        patch.setattr(Port, "renew", breaks)
        await stand.lease.arm(7, stand.in_s(30.0))
    assert (stand.door, stand.told) == (Door(DoorState.MISSING), (False, None, "the packet filter refused: no memory"))
    await stand.lease.arm(7, stand.in_s(30.0))
    assert (stand.door.state, stand.told) == (DoorState.LEASED, (True, 7, ""))


async def test_a_door_that_must_stand_stays_where_it_is(strict: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    await strict.lease.arm(7, strict.in_s(30.0))
    monkeypatch.setattr(Port, "renew", breaks)
    await strict.lease.arm(7, strict.in_s(30.0))
    assert (strict.door.state, strict.told) == (DoorState.LEASED, (False, None, "the packet filter refused: no memory"))


async def test_a_door_that_cannot_even_be_taken_away_is_told(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("renew", "undo"):
        monkeypatch.setattr(Port, name, breaks)
    await stand.lease.arm(7, stand.in_s(30.0))
    assert stand.told == (False, None, "the packet filter refused: no memory")


async def test_one_late_answer_is_no_broken_fence_two_are(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    await stand.lease.arm(7, stand.in_s(30.0))
    held = threading.Event()
    monkeypatch.setattr(kernel_lease, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(Port, "renew", lambda *_: held.wait(10))
    sentence = "the packet filter did not answer within 0.05 s"
    try:
        await stand.lease.arm(7, stand.in_s(30.0))
        assert stand.told == (True, None, sentence)
        await stand.lease.arm(7, stand.in_s(30.0))
        assert stand.told == (False, None, sentence)
    finally:
        held.set()


# ---------------------------------------------------------------------------------------------------- from the file

FILE = """
coordination: {{local: {{path: /var/lib/quorate/c.sqlite}}}}
nodes: {{pg1: {{api: 192.0.2.1:8480, address: 192.0.2.1}}, pg2: {{api: 192.0.2.2:8480, address: {peer}}}}}
groups:
  main:
    engine: postgres
    fence: {fence}
    members: {{pg1: {{}}, pg2: {{port: 5433, data_dir: /srv/pg2}}}}
    postgres: {{data_dir: /srv/pg, socket_dir: /run/postgresql}}
    follows_leader: [{{vip: {{address: 192.0.2.100/24}}}}]
"""


def written(fence: str, *, local: bool = True, peer: str = "192.0.2.2") -> Configuration:
    """`local`: all on one host; else on several."""
    configuration = parse(FILE.format(fence=fence, peer=peer), "f", {})
    return configuration if local else configuration.model_copy(update={"coordination": Coordination(consul=Consul())})


def wired(configuration: Configuration) -> tuple[KernelLease | None, str]:
    return kernel_lease_of(configuration, group_spec_of(configuration, "main"), "pg1", SystemClock())


def test_a_list_is_exactly_what_it_says() -> None:
    assert wired(written("[seal, watchdog]")) == (None, "")
    assert wired(written("[]", local=False)) == (None, "")
    lease, absence = wired(written("[seal, kernel, watchdog]"))
    assert lease is not None
    assert (lease._required, absence) == (True, "")


def test_auto_wants_it_on_several_hosts() -> None:
    assert wired(written("auto")) == (None, "")
    lease, absence = wired(written("auto", local=False))
    assert lease is not None
    assert (lease._required, absence) == (False, "")


def test_auto_goes_without_it_where_a_node_has_no_number() -> None:
    sentence = "the packet filter takes numbers, no names: 'db2.example' does not appear to be an IPv4 or IPv6 address"
    assert wired(written("auto", local=False, peer="db2.example")) == (None, sentence)


def test_a_door_that_nobody_wants_any_more_is_taken_away() -> None:
    configuration = written("auto")
    spec = group_spec_of(configuration, "main")
    with own_network():
        door = port_of(configuration, spec, "pg2")
        assert (door.table, door.port) == ("quorate_main", 5433)
        door.close()
        assert ruleset().count("ip saddr 192.0.2.1 ip daddr != 192.0.2.100 accept") == 1
        door.close()
        take_away(configuration, spec, "pg1")
        assert door.read() == Door(DoorState.CLOSED)
        take_away(configuration, spec, "pg2")
        assert door.read() == Door(DoorState.MISSING)
        door.hang_up()


# ---------------------------------------------------------------------------------------------------- who arms it: lease_writer.hand_over


def hold(stage: Stage, **changes: object) -> Tenure:
    """This node holds epoch 1, dated now."""
    tenure = Tenure(first_record(**changes), 3, "s1", dated=stage.clock.now())
    stage.knowledge.tenure = tenure
    return tenure


async def test_the_kernel_gets_what_the_watchdog_acknowledged(stage: Stage) -> None:
    kernel, stage.watchdog.shorter_s = stage.with_kernel(), 0.5
    tenure = hold(stage)
    assert tenure.deadline is not None
    await hand_over(stage.hands)
    assert kernel.armed == [(1, tenure.deadline.after(-0.5))]
    assert kernel.after == ["hand_over pg-main"]
    hold(stage)
    await hand_over(stage.hands)
    assert kernel.armed[1:] == [(1, stage.hands.owned_deadline)]


async def test_the_kernel_gets_nothing_that_the_watchdog_refused(stage: Stage) -> None:
    kernel, stage.watchdog.error = stage.with_kernel(), "its deadline passed"
    hold(stage)
    await hand_over(stage.hands)
    assert kernel.calls == []


async def test_the_kernel_alone_gets_the_own_deadline() -> None:
    async with staged(replace(SPEC, required_fences=frozenset({FenceLayer.KERNEL}))) as stage:
        kernel, tenure = stage.with_kernel(), hold(stage)
        await hand_over(stage.hands)
        assert kernel.armed == [(1, tenure.deadline)]
        assert stage.watchdog.calls == []


async def test_in_a_pause_the_port_stands_open_and_is_leased_again_with_its_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = stage.with_kernel()
    hold(stage, paused=True)
    monkeypatch.setattr(lease_writer, "may_disarm", lambda _: True)
    await hand_over(stage.hands)
    assert (kernel.calls[-1], kernel.after[-1]) == ("stand", "suspend pg-main 1")
    monkeypatch.undo()
    await hand_over(stage.hands)
    assert (kernel.calls[-1], kernel.after[-1]) == ("arm", "hand_over pg-main")


async def test_a_lease_that_was_given_up_arms_nothing(stage: Stage) -> None:
    kernel = stage.with_kernel()
    await hand_over(stage.hands)
    hold(stage, state=LeaseState.VACATED)
    await hand_over(stage.hands)
    assert (kernel.calls, stage.watchdog.calls) == ([], [])
