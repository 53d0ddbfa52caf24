from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agent.coordination.coordinator import Operation, Snapshot, Verb
from agent.coordination.lease import LeaseRecord, LeaseState, Position, Tenure, decode_record, group_folder
from agent.coordination.node_state import Mark
from agent.decision.command import FenceService, RenewLease
from agent.decision.view import FenceLayer, InFlight, ServiceState
from agent.errors import CoordinationError
from agent.execution.watchdog_client import Armed
from agent.instant import Instant
from tests.polling import eventually_async, holds_async
from tests.unit.agent.looped import KEY, Looped, looped
from tests.unit.agent.stage import NODE, SPEC, TIMEOUT_S, first_record


@pytest.fixture
async def group() -> AsyncIterator[Looped]:
    async with looped() as one:
        yield one


ALONE = replace(SPEC, members={NODE: SPEC.members[NODE]}, witnesses=())
"""A group of one: it forms itself."""


# ---------------------------------------------------------------------------------------------------- living


async def test_a_group_of_one_forms_leads_and_renews() -> None:
    async with looped(ALONE) as one:
        await one.loop.start()
        await one.until("PromoteService")
        await one.until("RenewLease")
        record = decode_record((await one.stage.stored(KEY)) or b"")
        assert (record.holder, record.epoch) == (NODE, 1)
        assert one.stage.watchdog.handed[-1][0] == 1
        assert one.stage.hands.owned_deadline is not None
        assert one.loop.failed is None
        beat = await eventually_async(one.heartbeat, 5)
        assert beat is not None
        await eventually_async(lambda: one.stage.knowledge.beat > beat.beat, 5, "the heart beats")


async def test_before_anything_is_decided_it_has_looked_at_everything(group: Looped) -> None:
    group.stage.watchdog.armed = Armed(4, Instant(5, 5), "n")
    await group.loop.start()
    await eventually_async(lambda: group.decided, 5)
    view, _ = group.decided[0]
    assert view.service.state is ServiceState.STANDBY
    assert view.coordination.answered is not None
    assert view.fences.armed_epoch == 4
    assert group.stage.watchdog.calls[:2] == ["register pg-main data 0 0.3", "adopt pg-main"]


async def test_a_coordinator_that_is_away_holds_nothing_up_and_is_found_again(group: Looped) -> None:
    group.stage.wires.away = CoordinationError("nobody is there")
    await group.loop.start()
    await eventually_async(lambda: len(group.decided) > 2, 5, "it decides all the same")
    assert (group.stage.knowledge.session, group.stage.knowledge.reading) == (None, None)
    group.stage.wires.away = None
    await eventually_async(lambda: group.stage.knowledge.session and group.stage.knowledge.reading, 5, "it reads again")
    assert group.loop.failed is None


@pytest.mark.parametrize("broken", ["away", "session_error"])
async def test_no_fault_of_the_outside_ends_a_loop(group: Looped, broken: str) -> None:
    """A coordinator that fails, or that does not answer in time: the loop goes on."""
    await group.loop.start()
    await eventually_async(lambda: group.stage.knowledge.session, 5)
    setattr(group.stage.wires, broken, CoordinationError("no") if broken == "away" else TimeoutError())
    await group.stage.wires.real.transact((Operation(Verb.SET, f"{SPEC.name}/x", value=b""),), TIMEOUT_S)
    await holds_async(lambda: group.loop.failed is None, 0.25, "no loop ends")
    setattr(group.stage.wires, broken, None)
    await group.write(first_record(holder="pg2"))
    await eventually_async(lambda: group.decided[-1][0].lease.record, 5, "it reads again")
    beat = group.stage.knowledge.beat
    await eventually_async(lambda: group.stage.knowledge.beat > beat + 1, 5, "it publishes again")


async def test_a_full_disk_does_not_end_it(group: Looped) -> None:
    await group.loop.start()
    await eventually_async(lambda: group.stage.knowledge.session, 5)
    group.stage.folder.close()  # nothing can be saved any more
    await group.write(first_record(holder="pg2"))
    await eventually_async(lambda: group.decided[-1][0].lease.record, 5, "what was read is decided upon")
    assert group.loop.failed is None
    assert group.stage.hands.remembered.state.highest == Mark()


async def test_a_mistake_of_ours_is_told(group: Looped) -> None:
    await group.loop.start()
    assert group.loop.failed is None

    async def broken(timeout_s: float) -> object:  # noqa: ARG001  # as the real one
        raise KeyError("a bug")

    group.stage.service.read = broken  # type: ignore[method-assign,assignment]
    assert isinstance(await eventually_async(lambda: group.loop.failed, 5), KeyError)


async def test_a_session_that_ended_is_opened_anew(group: Looped) -> None:
    await group.loop.start()
    first = await eventually_async(lambda: group.stage.knowledge.session, 5)
    assert first is not None
    await group.stage.wires.close_session(first)
    await eventually_async(lambda: group.stage.knowledge.session != first, 5)


async def test_stopping_ends_everything_and_leaves_the_service_as_it_is(group: Looped) -> None:
    await group.loop.start()
    await eventually_async(lambda: group.decided, 5)
    await group.loop.stop(0.5)
    turns, beats = len(group.decided), group.stage.knowledge.beat
    group.loop.wake()
    await holds_async(lambda: (len(group.decided), group.stage.knowledge.beat) == (turns, beats), 0.3)
    assert group.stage.service.closed
    assert "fence" not in group.stage.service.calls
    assert group.loop.failed is None


async def test_a_stopping_agent_begins_nothing_more() -> None:
    async with looped(ALONE) as one:
        await one.loop.start()
        await one.until("PromoteService")
        held = one.stage.service.wait["fence"] = asyncio.Event()
        one.loop.executor.start(FenceService(1, "it runs"))
        await eventually_async(lambda: "fence" in one.stage.service.calls, 5)
        stopping = asyncio.create_task(one.loop.stop(5))
        await eventually_async(lambda: len(one.loop.commands_in_flight()) == 1, 5, "no renewal is under way any more")
        renewals = sum(type(f.command) is RenewLease for f in one.finished)
        await holds_async(lambda: sum(type(f.command) is RenewLease for f in one.finished) == renewals, 5 * ALONE.renew_s)
        held.set()
        await stopping


async def test_a_changed_specification_is_taken_in_the_next_turn(group: Looped) -> None:
    await group.loop.start()
    await eventually_async(lambda: group.decided, 5)
    group.loop.reconfigure(replace(SPEC, patience_s=77))
    await eventually_async(lambda: group.decided[-1][0].group.patience_s == 77, 5)
    assert group.loop.fresh_view().group.patience_s == 77


# ---------------------------------------------------------------------------------------------------- readings


async def test_what_was_seen_is_on_the_disk(group: Looped) -> None:
    await group.loop.start()
    await group.write(first_record(holder="pg2", epoch=4, sequence=7))
    await eventually_async(lambda: group.stage.folder.load(SPEC.name).highest == Mark(4, 7), 5)


async def test_a_reading_that_was_overtaken_is_no_past_restored(group: Looped) -> None:
    """An older answer that arrives after a newer one shows a record below the highest seen."""
    await group.write(first_record(holder="pg2", sequence=1))
    gate, held = asyncio.Event(), asyncio.Event()

    async def hold_first(_: Snapshot) -> None:
        group.stage.wires.after_read = None
        held.set()
        await gate.wait()

    group.stage.wires.after_read = hold_first
    late = asyncio.create_task(group.loop.refresh_reading())
    await held.wait()
    await group.write(first_record(holder="pg2", sequence=2))
    await group.loop.refresh_reading()
    gate.set()
    await late
    knowledge = group.stage.knowledge
    assert not knowledge.went_back
    assert knowledge.reading is not None
    assert knowledge.reading.lease.record is not None
    assert knowledge.reading.lease.record.sequence == 2


async def test_an_older_answer_that_nothing_overtook_is_the_past_restored(group: Looped) -> None:
    await group.write(first_record(holder="pg2", sequence=2))
    await group.loop.refresh_reading()
    await group.write(first_record(holder="pg2", sequence=1))
    await group.loop.refresh_reading()
    assert group.stage.knowledge.went_back


async def test_another_store_than_the_one_known_is_the_past_restored(group: Looped) -> None:
    await group.stage.hands.remembered.note_store("the one before")
    await group.write(first_record(holder="pg2", epoch=9))
    await group.loop._ensure_session()
    await group.loop.refresh_reading()
    assert group.stage.knowledge.went_back
    assert group.stage.folder.load(SPEC.name).coordinator == "the one before", "a person decides"


async def test_the_store_is_remembered_when_it_is_met_first(group: Looped) -> None:
    await group.loop._ensure_session()
    await group.loop.refresh_reading()
    assert not group.stage.knowledge.went_back
    assert group.stage.folder.load(SPEC.name).coordinator == await group.stage.wires.identity()


async def test_a_lease_that_a_reading_confirms_is_handed_over() -> None:
    async with looped(ALONE) as one:
        stage = one.stage
        await one.loop.start()
        await one.until("PromoteService")
        handed = len(stage.watchdog.handed)
        stage.wires.lose = CoordinationError("the answer was lost")
        await eventually_async(lambda: len(stage.watchdog.handed) > handed, 5, "a renewal without an answer is handed over")
        assert not any(f.ok for f in one.finished[-1:] if type(f.command).__name__ == "RenewLease")


# ---------------------------------------------------------------------------------------------------- a restarted agent


async def restarted(group: Looped, record: LeaseRecord, armed: Armed | None) -> Tenure | None:
    group.stage.watchdog.armed = armed
    await group.write(record)
    await group.loop._adopt_fences()
    await group.loop.refresh_reading()
    return group.stage.knowledge.tenure


async def test_it_adopts_the_lease_of_its_life_before_with_the_watchdogs_deadline(group: Looped) -> None:
    deadline = group.stage.clock.now().after(30)
    record = first_record(incarnation="life-0", epoch=3)
    tenure = await restarted(group, record, Armed(3, deadline, "n"))
    assert tenure is not None
    assert (tenure.record, tenure.dated, tenure.deadline) == (record, None, deadline)


@pytest.mark.parametrize(
    ("changes", "armed_epoch", "armed_s"),
    [
        ({"holder": "pg2"}, 3, 30),
        ({"state": LeaseState.VACATED}, 3, 30),
        ({"incarnation": "life-1"}, 3, 30),
        ({}, 2, 30),
        ({}, 3, -1),
        ({}, None, 30),
    ],
)
async def test_nothing_else_is_adopted(group: Looped, changes: dict[str, object], armed_epoch: int | None, armed_s: float) -> None:
    deadline = group.stage.clock.now().after(armed_s)
    armed = None if armed_epoch is None else Armed(armed_epoch, deadline, "n")
    record = first_record(**{"incarnation": "life-0", "epoch": 3, **changes})
    assert await restarted(group, record, armed) is None


async def test_a_paused_lease_is_adopted_however_long_the_agent_was_away(group: Looped) -> None:
    """A pause is for longer work: nobody's time runs, and only a tenure can end it."""
    past = group.stage.clock.now().after(-600)
    tenure = await restarted(group, first_record(incarnation="life-0", epoch=3, paused=True), Armed(3, past, "n", paused=True))
    assert tenure is not None
    assert tenure.record.paused


async def test_what_went_back_is_not_adopted(group: Looped) -> None:
    group.stage.knowledge.high.rise(9, 1)
    armed = Armed(3, group.stage.clock.now().after(30), "n")
    assert await restarted(group, first_record(incarnation="life-0", epoch=3), armed) is None


# ---------------------------------------------------------------------------------------------------- the service


async def test_its_death_is_noticed_at_once(group: Looped) -> None:
    process = await asyncio.create_subprocess_exec("/bin/sleep", "60")
    group.stage.service.pid = process.pid
    slow = replace(SPEC, renew_s=50.0)
    group.loop.reconfigure(slow)
    await group.loop.start()
    reads = group.stage.service.reads
    group.stage.service.pid = None
    group.stage.service.seen = replace(group.stage.service.seen, state=ServiceState.CRASHED)
    process.kill()
    await process.wait()
    await eventually_async(lambda: group.stage.service.reads > reads, 2, "it is read after its death")
    await eventually_async(lambda: group.stage.knowledge.service.state is ServiceState.CRASHED, 2)
    assert group.loop.failed is None


async def test_a_proven_standby_without_the_lease_needs_no_deadline(group: Looped) -> None:
    knowledge = group.stage.knowledge
    armed = replace(knowledge.fences, armed_epoch=1, armed_deadline=Instant(5, 5), suspended=True)
    knowledge.fences = armed
    await group.loop.refresh_service()
    assert knowledge.fences == armed, "before the first reading nobody knows whose lease it is"
    await group.loop.refresh_reading()
    await group.loop.refresh_service()
    assert group.stage.watchdog.calls == ["release pg-main"]
    assert (knowledge.fences.armed_epoch, knowledge.fences.armed_deadline, knowledge.fences.suspended) == (None, None, False)


@pytest.mark.parametrize("why", ["it leads", "it takes writes", "a command runs", "nothing is armed"])
async def test_a_deadline_that_may_be_needed_stays(group: Looped, why: str) -> None:
    knowledge, now = group.stage.knowledge, group.stage.clock.now()
    await group.loop.refresh_reading()
    armed = None if why == "nothing is armed" else 1
    knowledge.fences = replace(knowledge.fences, armed_epoch=armed, armed_deadline=now.after(9))
    if why == "it leads":
        knowledge.tenure = Tenure(first_record(), 1, "s", dated=now)
    if why == "it takes writes":
        group.stage.service.seen = replace(group.stage.service.seen, state=ServiceState.PRIMARY)
    if why == "a command runs":
        knowledge.in_flight[1] = InFlight(FenceService(1, "x"), now)
    await group.loop.refresh_service()
    knowledge.in_flight.clear()
    assert group.stage.watchdog.calls == []
    assert knowledge.fences.armed_epoch == armed


@pytest.mark.parametrize(
    ("state", "call"),
    [(ServiceState.STANDBY, ["stand"]), (ServiceState.DOWN, ["close"]), (ServiceState.PRIMARY, []), (ServiceState.HUNG, [])],
)
async def test_the_port_of_a_node_without_the_lease(group: Looped, state: ServiceState, call: list[str]) -> None:
    """Readers may reach a proven standby; who starts a service that is down gets no clients with it."""
    kernel = group.stage.with_kernel()
    group.stage.service.seen = replace(group.stage.service.seen, state=state)
    await group.loop.refresh_service()
    assert kernel.calls == call


@pytest.mark.parametrize("why", ["it leads", "a command runs"])
async def test_a_port_that_may_be_leased_is_left_alone(group: Looped, why: str) -> None:
    kernel, knowledge, now = group.stage.with_kernel(), group.stage.knowledge, group.stage.clock.now()
    if why == "it leads":
        knowledge.tenure = Tenure(first_record(), 1, "s", dated=now)
    else:
        knowledge.in_flight[1] = InFlight(FenceService(1, "x"), now)
    for state in (ServiceState.STANDBY, ServiceState.DOWN):
        group.stage.service.seen = replace(group.stage.service.seen, state=state)
        await group.loop.refresh_service()
    knowledge.in_flight.clear()
    assert kernel.calls == []


@pytest.mark.parametrize(
    ("armed", "calls"),
    [(None, ["begin"]), (Armed(3, Instant(9, 9), "n", paused=False), ["arm"]), (Armed(3, Instant(9, 9), "n", paused=True), ["stand"])],
)
async def test_a_new_life_leases_the_port_for_what_the_watchdog_holds(group: Looped, armed: Armed | None, calls: list[str]) -> None:
    kernel = group.stage.with_kernel()
    group.stage.watchdog.armed = armed
    group.stage.service.seen = replace(group.stage.service.seen, state=ServiceState.PRIMARY)
    await group.loop.start()
    assert kernel.calls == calls
    assert kernel.armed == [(3, Instant(9, 9))] * calls.count("arm")


async def test_a_witness_has_no_service_to_look_at() -> None:
    async with looped(replace(SPEC, members={"pg2": SPEC.members["pg2"]}, witnesses=(NODE,)), member=False) as one:
        await one.loop.start()
        await one.write(first_record(holder="pg2"))
        await eventually_async(lambda: one.probe.asked, 5)
        view = one.decided[-1][0]
        assert (view.service.state, one.stage.service.reads) == (ServiceState.UNKNOWN, 0)
        assert FenceLayer.WATCHDOG in view.fences.standing
        assert one.loop.failed is None


# ---------------------------------------------------------------------------------------------------- the look at the leader


async def test_the_holders_service_is_looked_at_from_here(group: Looped) -> None:
    await group.loop.start()
    await group.write(first_record(holder="pg2"))
    await eventually_async(lambda: group.stage.knowledge.observation, 5)
    first = group.stage.knowledge.observation
    assert first is not None
    assert (first.node, first.writable, first.sentence) == ("pg2", True, "it takes writes")
    await eventually_async(lambda: group.stage.knowledge.observation != first, 5, "it is asked again")
    again = group.stage.knowledge.observation
    assert again is not None
    assert again.since == first.since
    group.probe.answer = (False, "it refuses")
    await eventually_async(lambda: group.stage.knowledge.observation and group.stage.knowledge.observation.writable is False, 5)
    refused = group.stage.knowledge.observation
    assert refused is not None
    assert refused.since.boot_ns > first.since.boot_ns


async def test_nobody_looks_at_the_own_lease_or_at_a_vacancy(group: Looped) -> None:
    await group.loop.start()
    await group.write(first_record(holder="pg2"))
    await eventually_async(lambda: group.stage.knowledge.observation, 5)
    await group.write(first_record(holder=NODE, epoch=2, incarnation="life-1"))
    await eventually_async(lambda: group.stage.knowledge.observation is None, 5)


# ---------------------------------------------------------------------------------------------------- fences


@pytest.mark.parametrize(
    ("alive", "state", "sealed", "standing"),
    [
        (True, ServiceState.STANDBY, False, {FenceLayer.WATCHDOG, FenceLayer.SEAL}),
        (True, ServiceState.PRIMARY, False, {FenceLayer.WATCHDOG}),
        (True, ServiceState.PRIMARY, True, {FenceLayer.WATCHDOG, FenceLayer.SEAL}),
        (False, ServiceState.DOWN, False, {FenceLayer.SEAL}),
    ],
)
async def test_which_fences_stand(group: Looped, alive: bool, state: ServiceState, sealed: bool, standing: set[FenceLayer]) -> None:
    group.stage.watchdog.alive = alive
    group.stage.service.seen = replace(group.stage.service.seen, state=state, sealed=sealed, position=Position(1, 1))
    await group.loop.refresh_service()
    group.loop._refresh_fences()
    fences = group.stage.knowledge.fences
    assert fences.standing == standing
    assert fences.watchdog_alive is alive


async def test_how_the_kernel_layer_stands_is_shown(group: Looped) -> None:
    knowledge = group.stage.knowledge
    group.stage.hands.kernel_absence = "no numbers"
    group.loop._refresh_fences()
    assert (knowledge.fences.kernel_epoch, knowledge.fences.kernel_problem) == (None, "no numbers")
    kernel = group.stage.with_kernel()
    kernel.epoch = 4
    group.loop._refresh_fences()
    assert FenceLayer.KERNEL in knowledge.fences.standing
    assert (knowledge.fences.kernel_epoch, knowledge.fences.kernel_problem) == (4, "")
    kernel.stands, kernel.epoch, kernel.problem = False, None, "no right"
    group.loop._refresh_fences()
    assert FenceLayer.KERNEL not in knowledge.fences.standing
    assert (knowledge.fences.kernel_epoch, knowledge.fences.kernel_problem) == (None, "no right")


async def test_a_watchdog_that_refuses_is_shown(group: Looped) -> None:
    group.stage.watchdog.error = "it guards another folder"
    await group.loop._adopt_fences()
    assert group.stage.knowledge.fences.refused == "it guards another folder"


async def test_what_an_earlier_watchdog_held_is_void(group: Looped) -> None:
    knowledge = group.stage.knowledge
    knowledge.fences = replace(knowledge.fences, armed_epoch=3, armed_deadline=Instant(9, 9), refused="x", suspended=True)
    await group.loop.watchdog_came_back()
    assert (knowledge.fences.armed_epoch, knowledge.fences.refused, knowledge.fences.suspended) == (None, "", False)
    assert group.stage.watchdog.calls == ["register pg-main data 0 0.3", "adopt pg-main"]


async def test_a_reading_is_of_the_whole_folder(group: Looped) -> None:
    await group.write(first_record(holder="pg2"))
    snapshot = await group.stage.wires.read(group_folder(SPEC.name), TIMEOUT_S)
    await group.loop.refresh_reading()
    assert group.stage.knowledge.reading is not None
    assert group.stage.knowledge.reading.index == snapshot.index
