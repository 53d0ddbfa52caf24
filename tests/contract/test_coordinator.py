"""What every coordinator promises. Nothing here depends on which one runs. The lease's own transactions: test_lease_transactions.py."""

from __future__ import annotations

import asyncio

import pytest

from agent.coordination.coordinator import Coordinator, Entry, Operation, Verb
from agent.errors import CoordinationRefused
from tests.contract.calls import KEY, TIMEOUT_S, begin_wait, commit, entry_of, line_from, put, refuse
from tests.contract.conftest import Connect, CoordinatorFactory, StartClient
from tests.plugins.left_out import does_not_apply
from tests.polling import eventually_async

# ---------------------------------------------------------------------------------------------------- the store itself


async def test_all_clients_name_the_same_store(connect_client: Connect) -> None:
    one, two = await connect_client(), await connect_client()
    assert await one.identity() == await two.identity() != ""
    place = one.description.split(";")[0]  # what one of them has learnt about the servers beyond that, the other may not know yet
    assert place == two.description.split(";")[0] != ""


async def test_an_empty_folder_has_no_entries(coordinator: Coordinator) -> None:
    assert (await coordinator.read("pg/", TIMEOUT_S)).entries == {}


async def test_read_gives_the_keys_below_a_folder_and_no_others(coordinator: Coordinator) -> None:
    for key in ("pg/a", "pg/b/c", "pg", "pga", "pf/z", "ph/a"):
        await put(coordinator, key, key.encode())
    snapshot = await coordinator.read("pg/", TIMEOUT_S)
    assert {key: entry.value for key, entry in snapshot.entries.items()} == {"pg/a": b"pg/a", "pg/b/c": b"pg/b/c"}


async def test_values_are_bytes_of_any_kind(coordinator: Coordinator) -> None:
    value = bytes(range(256))
    await put(coordinator, KEY, value)
    assert (await entry_of(coordinator, KEY)).value == value
    await put(coordinator, KEY, b"")
    assert (await entry_of(coordinator, KEY)).value == b""


async def test_read_is_never_stale(connect_client: Connect) -> None:
    writer, reader = await connect_client(), await connect_client()
    for number in range(50):
        index = await put(writer, KEY, str(number).encode())
        assert await entry_of(reader, KEY) == Entry(str(number).encode(), index)


# ---------------------------------------------------------------------------------------------------- transactions


async def test_every_key_of_a_transaction_has_its_index_and_indexes_grow(coordinator: Coordinator) -> None:
    first = await commit(coordinator, Operation(Verb.SET, "pg/a", value=b"1"), Operation(Verb.SET, "pg/b", value=b"1"))
    assert {(await entry_of(coordinator, key)).index for key in ("pg/a", "pg/b")} == {first}
    assert await put(coordinator, "other/c") > first


@pytest.mark.parametrize("verb", [Verb.SET, Verb.CAS, Verb.LOCK])
async def test_a_write_of_what_is_there_already_has_a_new_index(coordinator: Coordinator, verb: Verb) -> None:
    """Else a write that was decided upon the old index could still come: a vote after its withdrawal."""
    session = await coordinator.open_session("one") if verb is Verb.LOCK else None
    index = await commit(coordinator, Operation(Verb.CAS, KEY, index=0, value=b"same"))
    if verb is Verb.LOCK:
        index = await commit(coordinator, Operation(verb, KEY, session=session, value=b"same"))
    again = await commit(coordinator, Operation(verb, KEY, index=index, session=session, value=b"same"))
    assert again > index
    assert (await entry_of(coordinator, KEY)).index == again
    await refuse(coordinator, Operation(Verb.CAS, KEY, index=index, value=b"late"))


async def test_a_transaction_happens_whole_or_not_at_all(coordinator: Coordinator) -> None:
    refused = await refuse(
        coordinator,
        Operation(Verb.SET, "pg/a", value=b"1"),
        Operation(Verb.SET, "pg/b", value=b"1"),
        Operation(Verb.CHECK_INDEX, "pg/absent", index=1),
        Operation(Verb.SET, "pg/c", value=b"1"),
    )
    assert refused.operation == 2


async def test_an_operation_sees_what_those_before_it_did(coordinator: Coordinator) -> None:
    session = await coordinator.open_session("one")
    await commit(
        coordinator,
        Operation(Verb.CHECK_NOT_EXISTS, KEY),
        Operation(Verb.LOCK, KEY, session=session, value=b"1"),
        Operation(Verb.CHECK_SESSION, KEY, session=session),
        Operation(Verb.UNLOCK, KEY, session=session, value=b"2"),
    )
    entry = await entry_of(coordinator, KEY)
    assert (entry.value, entry.session) == (b"2", None)


async def test_64_operations_are_taken_and_no_more(coordinator: Coordinator) -> None:
    writes = tuple(Operation(Verb.SET, f"pg/{n}", value=b"v") for n in range(65))
    await commit(coordinator, *writes[:64])
    with pytest.raises(CoordinationRefused):
        await coordinator.transact(writes, TIMEOUT_S)
    with pytest.raises(CoordinationRefused):
        await coordinator.transact((), TIMEOUT_S)
    assert len((await coordinator.read("pg/", TIMEOUT_S)).entries) == 64


async def test_256_kib_are_taken_in_one_transaction_and_no_more(coordinator: Coordinator) -> None:
    half = b"x" * (128 * 1024)
    await commit(coordinator, Operation(Verb.SET, KEY, value=half), *(Operation(Verb.SET, f"pg/{n}", value=half[:2080]) for n in range(63)))
    with pytest.raises(CoordinationRefused):
        await coordinator.transact((Operation(Verb.SET, KEY, value=half), Operation(Verb.SET, "pg/b", value=half + b"x")), TIMEOUT_S)
    assert len((await entry_of(coordinator, KEY)).value) == len(half)


async def test_256_kib_are_taken_in_one_value(coordinator: Coordinator) -> None:
    await put(coordinator, KEY, bytes(256 * 1024))
    assert len((await entry_of(coordinator, KEY)).value) == 256 * 1024


# ---------------------------------------------------------------------------------------------------- the verbs


async def test_check_index(coordinator: Coordinator) -> None:
    index = await put(coordinator, KEY)
    await commit(coordinator, Operation(Verb.CHECK_INDEX, KEY, index=index), Operation(Verb.SET, "pg/else", value=b"1"))
    await refuse(coordinator, Operation(Verb.CHECK_INDEX, KEY, index=index - 1))
    await refuse(coordinator, Operation(Verb.CHECK_INDEX, "pg/absent", index=index))


async def test_check_not_exists(coordinator: Coordinator) -> None:
    await commit(coordinator, Operation(Verb.CHECK_NOT_EXISTS, KEY), Operation(Verb.SET, KEY, value=b"1"))
    await refuse(coordinator, Operation(Verb.CHECK_NOT_EXISTS, KEY))


async def test_check_session(coordinator: Coordinator) -> None:
    mine, other = await coordinator.open_session("mine"), await coordinator.open_session("other")
    await refuse(coordinator, Operation(Verb.CHECK_SESSION, KEY, session=mine))
    await put(coordinator, KEY)
    await refuse(coordinator, Operation(Verb.CHECK_SESSION, KEY, session=mine))
    await commit(coordinator, Operation(Verb.LOCK, KEY, session=mine, value=b"1"))
    await commit(coordinator, Operation(Verb.CHECK_SESSION, KEY, session=mine), Operation(Verb.SET, "pg/else", value=b"1"))
    await refuse(coordinator, Operation(Verb.CHECK_SESSION, KEY, session=other))


async def test_cas_writes_over_the_index_it_names_only(coordinator: Coordinator) -> None:
    first = await put(coordinator, KEY, b"1")
    second = await commit(coordinator, Operation(Verb.CAS, KEY, index=first, value=b"2"))
    assert await entry_of(coordinator, KEY) == Entry(b"2", second)
    await refuse(coordinator, Operation(Verb.CAS, KEY, index=first, value=b"3"))
    await refuse(coordinator, Operation(Verb.CAS, "pg/absent", index=first, value=b"3"))


async def test_cas_on_index_0_writes_only_what_does_not_exist(coordinator: Coordinator) -> None:
    await commit(coordinator, Operation(Verb.CAS, KEY, index=0, value=b"1"))
    await refuse(coordinator, Operation(Verb.CAS, KEY, index=0, value=b"2"))


async def test_cas_and_set_by_anybody_keep_the_lock(coordinator: Coordinator, connect_client: Connect) -> None:
    other = await connect_client()
    session = await coordinator.open_session("one")
    index = await commit(coordinator, Operation(Verb.LOCK, KEY, session=session, value=b"1"))
    await commit(other, Operation(Verb.CAS, KEY, index=index, value=b"2"))
    assert (await entry_of(coordinator, KEY)).session == session
    await put(other, KEY, b"3")
    assert (await entry_of(coordinator, KEY)).session == session


async def test_lock(coordinator: Coordinator) -> None:
    mine, other = await coordinator.open_session("mine"), await coordinator.open_session("other")
    await commit(coordinator, Operation(Verb.LOCK, KEY, session=mine, value=b"1"))
    index = await commit(coordinator, Operation(Verb.LOCK, KEY, session=mine, value=b"2"))
    assert await entry_of(coordinator, KEY) == Entry(b"2", index, mine)
    await refuse(coordinator, Operation(Verb.LOCK, KEY, session=other, value=b"3"))


async def test_lock_takes_an_existing_unlocked_key(coordinator: Coordinator) -> None:
    session = await coordinator.open_session("one")
    await put(coordinator, KEY)
    index = await commit(coordinator, Operation(Verb.LOCK, KEY, session=session, value=b"mine"))
    assert await entry_of(coordinator, KEY) == Entry(b"mine", index, session)


async def test_lock_by_a_session_that_ended_or_never_was_is_refused(coordinator: Coordinator) -> None:
    session = await coordinator.open_session("one")
    await coordinator.close_session(session)
    await refuse(coordinator, Operation(Verb.LOCK, KEY, session=session, value=b"1"))
    unknown = "00000000-0000-0000-0000-000000000000"
    await refuse(coordinator, Operation(Verb.LOCK, KEY, session=unknown, value=b"1"))


async def test_unlock(coordinator: Coordinator) -> None:
    mine, other = await coordinator.open_session("mine"), await coordinator.open_session("other")
    await refuse(coordinator, Operation(Verb.UNLOCK, KEY, session=mine, value=b"0"))
    await commit(coordinator, Operation(Verb.LOCK, KEY, session=mine, value=b"1"))
    await refuse(coordinator, Operation(Verb.UNLOCK, KEY, session=other, value=b"2"))
    index = await commit(coordinator, Operation(Verb.UNLOCK, KEY, session=mine, value=b"3"))
    assert await entry_of(coordinator, KEY) == Entry(b"3", index)
    await refuse(coordinator, Operation(Verb.UNLOCK, KEY, session=mine, value=b"4"))


async def test_unlock_without_a_value_needs_a_later_operation_that_writes_the_key(coordinator: Coordinator) -> None:
    mine = await coordinator.open_session("mine")
    await commit(coordinator, Operation(Verb.LOCK, KEY, session=mine, value=b"1"))
    let_go = Operation(Verb.UNLOCK, KEY, session=mine)
    for after in ((), (Operation(Verb.SET, "pg/else", value=b"2"),), (Operation(Verb.DELETE_CAS, KEY, index=1),)):
        with pytest.raises(CoordinationRefused):
            await coordinator.transact((let_go, *after), TIMEOUT_S)
    await commit(coordinator, let_go, Operation(Verb.SET, KEY, value=b"2"))
    entry = await entry_of(coordinator, KEY)
    assert (entry.value, entry.session) == (b"2", None)


async def test_unlock_without_a_value_lets_the_key_go_for_another(coordinator: Coordinator) -> None:
    mine, other = await coordinator.open_session("mine"), await coordinator.open_session("other")
    await commit(coordinator, Operation(Verb.LOCK, KEY, session=mine, value=b"1"))
    await commit(coordinator, Operation(Verb.UNLOCK, KEY, session=mine), Operation(Verb.LOCK, KEY, session=other, value=b"2"))
    assert (await entry_of(coordinator, KEY)).session == other


async def test_delete_cas(coordinator: Coordinator) -> None:
    index = await put(coordinator, KEY)
    await refuse(coordinator, Operation(Verb.DELETE_CAS, KEY, index=index - 1))
    await commit(coordinator, Operation(Verb.DELETE_CAS, KEY, index=index))
    assert (await coordinator.read(KEY, TIMEOUT_S)).entries == {}


async def test_a_key_made_anew_has_a_higher_index(coordinator: Coordinator) -> None:
    index = await put(coordinator, KEY)
    await commit(coordinator, Operation(Verb.DELETE_CAS, KEY, index=index))
    assert await put(coordinator, KEY) > index


@pytest.mark.parametrize(
    "operation",
    [
        Operation(Verb.CHECK_INDEX, KEY),
        Operation(Verb.CHECK_SESSION, KEY),
        Operation(Verb.CAS, KEY, index=0),
        Operation(Verb.CAS, KEY, value=b"1"),
        Operation(Verb.LOCK, KEY, value=b"1"),
        Operation(Verb.UNLOCK, KEY),
        Operation(Verb.SET, KEY),
        Operation(Verb.DELETE_CAS, KEY),
        Operation(Verb.SET, "", value=b"1"),
    ],
    ids=str,
)
async def test_an_operation_that_lacks_a_part_is_refused(coordinator: Coordinator, operation: Operation) -> None:
    with pytest.raises(CoordinationRefused):
        await coordinator.transact((operation,), TIMEOUT_S)


# ---------------------------------------------------------------------------------------------------- sessions


async def test_a_session_lives_until_it_is_closed(coordinator: Coordinator, connect_client: Connect) -> None:
    other = await connect_client()
    session = await coordinator.open_session("one")
    assert await other.session_is_alive(session)
    await coordinator.close_session(session)
    assert not await other.session_is_alive(session)
    await coordinator.close_session(session)


async def test_closing_a_session_releases_its_keys_and_keeps_their_values(coordinator: Coordinator) -> None:
    mine, other = await coordinator.open_session("mine"), await coordinator.open_session("other")
    index = await commit(coordinator, Operation(Verb.LOCK, KEY, session=mine, value=b"1"))
    foreign = await commit(coordinator, Operation(Verb.LOCK, "pg/other", session=other, value=b"1"))
    await coordinator.close_session(mine)
    entry = await entry_of(coordinator, KEY)
    assert (entry.value, entry.session) == (b"1", None)
    assert entry.index > index
    assert await entry_of(coordinator, "pg/other") == Entry(b"1", foreign, other)


async def test_a_session_outlives_the_client_that_opened_it(coordinator: Coordinator, connect_client: Connect) -> None:
    opener = await connect_client()
    session = await opener.open_session("one")
    await opener.close()
    assert await coordinator.session_is_alive(session)


async def test_a_killed_process_loses_its_session_and_its_locks(
    coordinator: Coordinator, coordinator_factory: CoordinatorFactory, start_client: StartClient
) -> None:
    if not coordinator_factory.kill_session:
        does_not_apply("here a session outlives its process until its time to live is over")
    child = await start_client("hold", KEY)
    session = await line_from(child)
    held = await entry_of(coordinator, KEY)
    assert held.session == session
    assert await coordinator.session_is_alive(session)
    mine = await coordinator.open_session("mine")
    await refuse(coordinator, Operation(Verb.LOCK, KEY, session=mine, value=b"mine"))
    child.kill()  # and nobody waits for it yet: a zombie holds nothing

    async def has_ended() -> bool:
        return not await coordinator.session_is_alive(session)

    await eventually_async(has_ended, 5)
    released = await coordinator.wait(KEY, held.index, TIMEOUT_S)
    assert released.entries[KEY].session is None
    assert released.entries[KEY].index > held.index
    assert released.entries[KEY].value == b"child"
    await refuse(coordinator, Operation(Verb.LOCK, KEY, session=session, value=b"ghost"))
    await commit(coordinator, Operation(Verb.LOCK, KEY, session=mine, value=b"mine"))


async def test_a_lock_finds_a_dead_holder_by_itself(
    coordinator: Coordinator, coordinator_factory: CoordinatorFactory, start_client: StartClient
) -> None:
    if not coordinator_factory.kill_session:
        does_not_apply("here a session outlives its process until its time to live is over")
    child = await start_client("hold", KEY)
    await line_from(child)
    mine = await coordinator.open_session("mine")
    child.kill()
    await child.wait()
    await commit(coordinator, Operation(Verb.LOCK, KEY, session=mine, value=b"mine"))


# ---------------------------------------------------------------------------------------------------- wait


async def test_wait_answers_at_once_when_the_index_differs(coordinator: Coordinator) -> None:
    await put(coordinator, KEY)
    async with asyncio.timeout(5):
        snapshot = await coordinator.wait("pg/", 0, 60)
    assert KEY in snapshot.entries


async def test_wait_answers_after_its_time_with_what_there_is(coordinator: Coordinator) -> None:
    await put(coordinator, KEY, b"1")
    before = await coordinator.read("pg/", TIMEOUT_S)
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await coordinator.wait("pg/", before.index, 0.3) == before
    assert 0.25 <= loop.time() - started < 3


@pytest.mark.parametrize("deletes", [False, True])
async def test_wait_wakes_for_a_change_of_another_client(connect_client: Connect, deletes: bool) -> None:
    waiter, writer = await connect_client(), await connect_client()
    index = await put(writer, KEY, b"1")
    await put(writer, "pg/stays", b"1")
    before = await waiter.read("pg/", TIMEOUT_S)
    waiting = await begin_wait(waiter, "pg/", before.index)
    change = Operation(Verb.DELETE_CAS, KEY, index=index) if deletes else Operation(Verb.SET, KEY, value=b"2")
    await commit(writer, change)
    async with asyncio.timeout(5):
        after = await waiting
    assert after.index != before.index
    assert (KEY in after.entries) is not deletes


async def test_wait_wakes_for_a_change_of_its_own_client(coordinator: Coordinator) -> None:
    before = await coordinator.read("pg/", TIMEOUT_S)
    waiting = await begin_wait(coordinator, "pg/", before.index)
    await put(coordinator, KEY)
    async with asyncio.timeout(5):
        assert KEY in (await waiting).entries


async def test_wait_sleeps_through_changes_of_other_folders(connect_client: Connect) -> None:
    waiter, writer = await connect_client(), await connect_client()
    await put(writer, KEY)
    before = await waiter.read("pg/", TIMEOUT_S)
    waiting = await begin_wait(waiter, "pg/", before.index, 0.5)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await put(writer, "redis/key")
    assert await waiting == before
    assert loop.time() - started > 0.2, "it woke for a change of another folder"


async def test_wait_sees_a_change_that_was_made_between_reading_and_waiting(connect_client: Connect) -> None:
    waiter, writer = await connect_client(), await connect_client()
    before = await waiter.read("pg/", TIMEOUT_S)
    await put(writer, KEY)
    async with asyncio.timeout(5):
        assert KEY in (await waiter.wait("pg/", before.index, 60)).entries


async def test_several_waits_wake_together(connect_client: Connect) -> None:
    waiter, writer = await connect_client(), await connect_client()
    index = await put(writer, KEY)
    waits = [await begin_wait(waiter, "pg/", index) for _ in range(3)]
    await put(writer, KEY, b"2")
    async with asyncio.timeout(5):
        assert {(await wait).entries[KEY].value for wait in waits} == {b"2"}


async def test_wait_wakes_for_another_process(coordinator: Coordinator, start_client: StartClient) -> None:
    child = await start_client("set", KEY)
    assert await line_from(child) == "ready"
    before = await coordinator.read("pg/", TIMEOUT_S)
    waiting = await begin_wait(coordinator, "pg/", before.index)
    assert child.stdin is not None
    child.stdin.write(b"hello\n")
    async with asyncio.timeout(10):
        assert (await waiting).entries[KEY].value == b"hello"


# ---------------------------------------------------------------------------------------------------- kill -9


@pytest.mark.slow
async def test_a_writer_that_is_killed_again_and_again_leaves_a_store_that_is_whole_and_live(
    coordinator: Coordinator, coordinator_factory: CoordinatorFactory, start_client: StartClient
) -> None:
    for kill in range(coordinator_factory.rounds):
        committed = 0
        child = await start_client("write", f"pg/{kill}/")
        for _ in range(1 + kill % 5):
            committed = int(await line_from(child))
        child.kill()
        assert child.stdout is not None
        said = (await child.stdout.read()).decode().split()
        await child.wait()
        committed = max([committed, *(int(number) for number in said)])
        entries = (await coordinator.read(f"pg/{kill}/", TIMEOUT_S)).entries
        values = {int(entry.value) for entry in entries.values()}
        assert len(values) == 1, "half a transaction was seen"
        assert values.pop() in {committed, committed + 1}
        await put(coordinator, f"pg/{kill}/two", b"live")
