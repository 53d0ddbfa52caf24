"""Short ways to call a coordinator in tests, each with its own deadline and its own verdict."""

from __future__ import annotations

import asyncio

from agent.coordination.coordinator import Committed, Coordinator, Entry, Operation, Refused, Snapshot, Verb

TIMEOUT_S = 10.0
KEY = "pg/key"


async def commit(coordinator: Coordinator, *operations: Operation) -> int:
    outcome = await coordinator.transact(operations, TIMEOUT_S)
    assert isinstance(outcome, Committed), outcome
    return outcome.index


async def refuse(coordinator: Coordinator, *operations: Operation) -> Refused:
    """The transaction is refused and changes nothing."""
    before = await coordinator.read("", TIMEOUT_S)
    outcome = await coordinator.transact(operations, TIMEOUT_S)
    assert isinstance(outcome, Refused), outcome
    assert outcome.reason
    assert await coordinator.read("", TIMEOUT_S) == before
    return outcome


async def put(coordinator: Coordinator, key: str, value: bytes = b"v") -> int:
    return await commit(coordinator, Operation(Verb.SET, key, value=value))


async def entry_of(coordinator: Coordinator, key: str) -> Entry:
    return (await coordinator.read(key, TIMEOUT_S)).entries[key]


async def begin_wait(coordinator: Coordinator, folder: str, index: int, timeout_s: float = 60) -> asyncio.Task[Snapshot]:
    """A wait that is under way: its first look at the store is over when those readings are."""
    task = asyncio.create_task(coordinator.wait(folder, index, timeout_s))
    for _ in range(3):
        await coordinator.read(folder, TIMEOUT_S)
    assert not task.done()
    return task


async def line_from(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()
