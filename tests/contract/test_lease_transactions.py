"""The transactions of lease.py on every coordinator: each success, and each schedule that must make it fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from agent.coordination.coordinator import Coordinator, Entry, Operation, Transaction, Verb
from agent.coordination.lease import (
    CountedVote,
    LeaseState,
    decode_record,
    encode_record,
    formation,
    formation_key,
    lease_key,
    relock,
    renewal,
    takeover,
    vacating,
    vote_key,
)
from tests.contract.calls import commit, entry_of, line_from, put, refuse
from tests.contract.client import GROUP, record_of
from tests.contract.conftest import CoordinatorFactory, StartClient

LEASE = lease_key(GROUP)


async def votes_of(coordinator: Coordinator, *voters: str) -> tuple[CountedVote, ...]:
    return tuple([CountedVote(voter, await put(coordinator, vote_key(GROUP, voter), b"down")) for voter in voters])


async def form(coordinator: Coordinator, session: str) -> Entry:
    """Node a holds epoch 1."""
    await commit(coordinator, *formation(record_of("a", 1), session, ()))
    return await entry_of(coordinator, LEASE)


async def run(coordinator: Coordinator, transaction: Transaction) -> None:
    await commit(coordinator, *transaction)


async def test_formation_on_the_words_of_all(coordinator: Coordinator) -> None:
    session = await coordinator.open_session("a")
    words = tuple([CountedVote(n, await put(coordinator, formation_key(GROUP, n), b"word")) for n in ("a", "b")])
    await put(coordinator, formation_key(GROUP, "b"), b"taken back")
    refused = await refuse(coordinator, *formation(record_of("a", 1), session, words))
    assert refused.operation == 2
    again = CountedVote("b", (await entry_of(coordinator, formation_key(GROUP, "b"))).index)
    await run(coordinator, formation(record_of("a", 1), session, (words[0], again)))
    entry = await entry_of(coordinator, LEASE)
    assert (decode_record(entry.value).holder, entry.session) == ("a", session)


async def test_formation_is_refused_where_a_lease_is(coordinator: Coordinator) -> None:
    session, other = await coordinator.open_session("a"), await coordinator.open_session("b")
    await form(coordinator, session)
    await refuse(coordinator, *formation(record_of("b", 1), other, ()))
    await refuse(coordinator, *formation(record_of("a", 1), session, ()))


async def test_formation_with_a_dead_session_is_refused(coordinator: Coordinator) -> None:
    session = await coordinator.open_session("a")
    await coordinator.close_session(session)
    await refuse(coordinator, *formation(record_of("a", 1), session, ()))


async def test_renewal(coordinator: Coordinator) -> None:
    session = await coordinator.open_session("a")
    entry = await form(coordinator, session)
    await run(coordinator, renewal(record_of("a", 1, 2), session, entry.index))
    renewed = await entry_of(coordinator, LEASE)
    assert (decode_record(renewed.value).sequence, renewed.session) == (2, session)
    await refuse(coordinator, *renewal(record_of("a", 1, 3), session, entry.index))


async def test_renewal_by_another_session_or_a_dead_one_is_refused(coordinator: Coordinator) -> None:
    session, other = await coordinator.open_session("a"), await coordinator.open_session("b")
    entry = await form(coordinator, session)
    await refuse(coordinator, *renewal(record_of("b", 1, 2), other, entry.index))
    await coordinator.close_session(session)
    released = await entry_of(coordinator, LEASE)
    await refuse(coordinator, *renewal(record_of("a", 1, 2), session, released.index))


async def test_relock_under_a_new_session(coordinator: Coordinator) -> None:
    old, new = await coordinator.open_session("a"), await coordinator.open_session("a")
    before = await form(coordinator, old)
    await coordinator.close_session(old)
    await refuse(coordinator, *relock(record_of("a", 1, 2), new, before))
    released = await entry_of(coordinator, LEASE)
    await run(coordinator, relock(record_of("a", 1, 2), new, released))
    entry = await entry_of(coordinator, LEASE)
    assert (decode_record(entry.value).sequence, entry.session) == (2, new)
    await refuse(coordinator, *relock(record_of("a", 1, 3), new, released))


async def test_relock_while_the_old_session_still_stands(coordinator: Coordinator) -> None:
    old, new = await coordinator.open_session("a"), await coordinator.open_session("a")
    before = await form(coordinator, old)
    await run(coordinator, relock(record_of("a", 1, 2), new, before))
    assert (await entry_of(coordinator, LEASE)).session == new


async def test_vacating_leaves_a_record_without_a_lock(coordinator: Coordinator) -> None:
    session, other = await coordinator.open_session("a"), await coordinator.open_session("b")
    entry = await form(coordinator, session)
    vacated = record_of("a", 1, 2, LeaseState.VACATED)
    await refuse(coordinator, *vacating(vacated, session, entry.index - 1))
    await refuse(coordinator, *vacating(vacated, other, entry.index))
    await run(coordinator, vacating(vacated, session, entry.index))
    left = await entry_of(coordinator, LEASE)
    assert left.session is None
    assert decode_record(left.value).is_vacant
    await refuse(coordinator, *vacating(vacated, session, left.index))
    await refuse(coordinator, *renewal(record_of("a", 1, 3), session, left.index))


async def test_vacating_after_a_renewal_from_the_same_index_is_refused(coordinator: Coordinator) -> None:
    session = await coordinator.open_session("a")
    entry = await form(coordinator, session)
    await run(coordinator, renewal(record_of("a", 1, 2), session, entry.index))
    await refuse(coordinator, *vacating(record_of("a", 1, 3, LeaseState.VACATED), session, entry.index))


async def test_takeover_of_a_vacated_lease_needs_no_votes(coordinator: Coordinator) -> None:
    session, other = await coordinator.open_session("a"), await coordinator.open_session("b")
    entry = await form(coordinator, session)
    await run(coordinator, vacating(record_of("a", 1, 2, LeaseState.VACATED), session, entry.index))
    await run(coordinator, takeover(record_of("b", 2), other, await entry_of(coordinator, LEASE), ()))
    assert (await entry_of(coordinator, LEASE)).session == other


async def test_takeover_with_votes_from_a_session_that_still_lives(coordinator: Coordinator) -> None:
    session, other = await coordinator.open_session("a"), await coordinator.open_session("b")
    entry = await form(coordinator, session)
    await run(coordinator, takeover(record_of("b", 2), other, entry, await votes_of(coordinator, "b", "c")))
    taken = await entry_of(coordinator, LEASE)
    assert (decode_record(taken.value).epoch, taken.session) == (2, other)
    await refuse(coordinator, *renewal(record_of("a", 1, 2), session, entry.index))


async def test_takeover_fails_after_a_late_renewal(coordinator: Coordinator) -> None:
    session, other = await coordinator.open_session("a"), await coordinator.open_session("b")
    entry = await form(coordinator, session)
    votes = await votes_of(coordinator, "b", "c")
    await run(coordinator, renewal(record_of("a", 1, 2), session, entry.index))
    refused = await refuse(coordinator, *takeover(record_of("b", 2), other, entry, votes))
    assert refused.operation == len(votes)


async def test_takeover_fails_after_a_vote_was_withdrawn(coordinator: Coordinator) -> None:
    session, other = await coordinator.open_session("a"), await coordinator.open_session("b")
    entry = await form(coordinator, session)
    votes = await votes_of(coordinator, "b", "c")
    await commit(coordinator, Operation(Verb.CAS, vote_key(GROUP, "c"), index=votes[1].index, value=b"up"))
    assert (await refuse(coordinator, *takeover(record_of("b", 2), other, entry, votes))).operation == 1


async def test_takeover_fails_for_a_vote_that_was_never_cast(coordinator: Coordinator) -> None:
    session, other = await coordinator.open_session("a"), await coordinator.open_session("b")
    entry = await form(coordinator, session)
    await refuse(coordinator, *takeover(record_of("b", 2), other, entry, (CountedVote("c", 7),)))


async def test_the_second_challenger_fails(coordinator: Coordinator) -> None:
    session, second, third = [await coordinator.open_session(name) for name in "abc"]
    entry = await form(coordinator, session)
    votes = await votes_of(coordinator, "b", "c")
    await run(coordinator, takeover(record_of("b", 2), second, entry, votes))
    await refuse(coordinator, *takeover(record_of("c", 2), third, entry, votes))


async def test_takeover_of_a_key_whose_session_ended(coordinator: Coordinator) -> None:
    session, other = await coordinator.open_session("a"), await coordinator.open_session("b")
    before = await form(coordinator, session)
    votes = await votes_of(coordinator, "b", "c")
    await coordinator.close_session(session)
    await refuse(coordinator, *takeover(record_of("b", 2), other, before, votes))
    await run(coordinator, takeover(record_of("b", 2), other, await entry_of(coordinator, LEASE), votes))
    assert (await entry_of(coordinator, LEASE)).session == other


async def test_takeover_by_a_dead_session_fails(coordinator: Coordinator) -> None:
    session, other = await coordinator.open_session("a"), await coordinator.open_session("b")
    entry = await form(coordinator, session)
    await coordinator.close_session(other)
    await refuse(coordinator, *takeover(record_of("b", 2), other, entry, ()))


async def test_a_holder_takes_the_next_epoch_of_its_own(coordinator: Coordinator) -> None:
    session = await coordinator.open_session("a")
    entry = await form(coordinator, session)
    await run(coordinator, takeover(record_of("a", 2), session, entry, ()))
    taken = await entry_of(coordinator, LEASE)
    assert (decode_record(taken.value).epoch, taken.session) == (2, session)


async def test_of_two_processes_that_race_for_epochs_one_wins_each(
    coordinator: Coordinator, coordinator_factory: CoordinatorFactory, start_client: StartClient
) -> None:
    epochs = 10 * coordinator_factory.rounds
    session = await coordinator.open_session("a")
    await put(coordinator, vote_key(GROUP, "c"), b"down")
    racers = [await start_client("race", str(epochs)) for _ in range(2)]
    assert [await line_from(racer) for racer in racers] == ["ready", "ready"]
    start = replace(record_of("a", 0), nonce="start")
    await commit(coordinator, Operation(Verb.LOCK, LEASE, session=session, value=encode_record(start)))
    async with asyncio.timeout(90):
        said = [(await racer.communicate())[0].decode().split("\n") for racer in racers]
    won = [[int(line.split()[1]) for line in lines if line.startswith("won")] for lines in said]
    assert sorted(won[0] + won[1]) == list(range(1, epochs + 1))
    assert sum(int(line.split()[1]) for lines in said for line in lines if line.startswith("refused")) > 0, "they never met"
    assert decode_record((await entry_of(coordinator, LEASE)).value).epoch == epochs
