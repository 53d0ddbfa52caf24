"""Another process that uses the same coordinator and says what it did: `python -m tests.contract.client ADDRESS TASK ARGUMENT`."""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import count
from pathlib import Path

import structlog

from agent.clock import SystemClock
from agent.coordination.coordinator import Committed, Coordinator, Operation, Verb
from agent.coordination.lease import CountedVote, LeaseRecord, LeaseState, Terms, decode_record, lease_key, takeover, vote_key
from agent.coordination.local import LocalCoordinator

TIMEOUT_S = 20.0
GROUP = "pg"


async def connect(address: str) -> Coordinator:
    """A client of the coordinator at `address`, as a factory of conftest.py names it."""
    kind, _, where = address.partition(":")
    if kind == "local":
        return await LocalCoordinator.open(Path(where), SystemClock())
    assert kind == "consul", f"no coordinator of kind {kind}"
    from agent.coordination.consul import ConsulCoordinator  # noqa: PLC0415 - half a second that the local one's many processes spare
    from agent.coordination.consul_access import Access, ConsulPlace  # noqa: PLC0415

    place = ConsulPlace(**json.loads(where))
    return ConsulCoordinator(place, Access(place, Path.read_text), SystemClock())


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def record_of(holder: str, epoch: int, sequence: int = 1, state: LeaseState = LeaseState.HELD, nonce: str = "n") -> LeaseRecord:
    """A plain record of the group `pg`."""
    return LeaseRecord(GROUP, holder, "boot-1", epoch, sequence, nonce, Terms(5.0, 0.5), state, ("a", "b", "c"), 2)


async def hold(coordinator: Coordinator, key: str) -> None:
    """Open a session, lock the key, say the session's id, and stay until killed."""
    session = await coordinator.open_session("child")
    assert isinstance(await coordinator.transact((Operation(Verb.LOCK, key, session=session, value=b"child"),), TIMEOUT_S), Committed)
    say(session)
    await asyncio.Event().wait()


async def set_when_told(coordinator: Coordinator, key: str) -> None:
    """Say `ready`, then write the key once for each line of input, saying the index each time."""
    say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        outcome = await coordinator.transact((Operation(Verb.SET, key, value=line.strip().encode()),), TIMEOUT_S)
        assert isinstance(outcome, Committed)
        say(outcome.index)


async def write_for_ever(coordinator: Coordinator, folder: str) -> None:
    """Write two keys with one number in each transaction, for ever, saying each number that was committed."""
    session = await coordinator.open_session("writer")
    for number in count(1):
        value = str(number).encode()
        outcome = await coordinator.transact(
            (
                Operation(Verb.LOCK, f"{folder}one", session=session, value=value),
                Operation(Verb.SET, f"{folder}two", value=value),
                Operation(Verb.UNLOCK, f"{folder}one", session=session),
                Operation(Verb.SET, f"{folder}one", value=value),
            ),
            TIMEOUT_S,
        )
        assert isinstance(outcome, Committed)
        say(number)


async def race(coordinator: Coordinator, rounds: str) -> None:
    """Try to take over each epoch in turn from whoever has it; say which were won, and how many attempts were refused."""
    session = await coordinator.open_session("racer")
    refused, epoch = 0, 1
    say("ready")
    while epoch <= int(rounds):
        snapshot = await coordinator.read(f"{GROUP}/", TIMEOUT_S)
        if lease_key(GROUP) not in snapshot.entries:
            continue  # nobody has fired the gun yet
        entry, vote = snapshot.entries[lease_key(GROUP)], snapshot.entries[vote_key(GROUP, "c")]
        seen = decode_record(entry.value).epoch
        if seen >= epoch:
            epoch = seen + 1
            continue
        attempt = takeover(record_of(session, epoch), session, entry, (CountedVote("c", vote.index),))
        if isinstance(await coordinator.transact(attempt, TIMEOUT_S), Committed):
            say(f"won {epoch}")
        else:
            refused += 1
    say(f"refused {refused}")


TASKS = {"hold": hold, "set": set_when_told, "write": write_for_ever, "race": race}


async def main(address: str, task: str, argument: str) -> None:
    coordinator = await connect(address)
    try:
        await TASKS[task](coordinator, argument)
    finally:
        await coordinator.close()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output says what the task did
    asyncio.run(main(*sys.argv[1:4]))
