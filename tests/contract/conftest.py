"""The coordinators that the contract suite runs on. Another one joins by one more factory in FACTORIES and one more kind in client.py."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.coordination.coordinator import Coordinator
from tests.contract.client import connect

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class CoordinatorFactory:
    """One empty store. `kill_session`: the session of a killed process ends within a second; else only with its own time to live."""

    address: str
    kill_session: bool


def local(folder: Path) -> CoordinatorFactory:
    return CoordinatorFactory(f"local:{folder / 'store.db'}", kill_session=True)


FACTORIES = {"local": local}

Connect = Callable[[], Awaitable[Coordinator]]
StartClient = Callable[[str, str], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture(params=sorted(FACTORIES))
def coordinator_factory(request: pytest.FixtureRequest, tmp_path: Path) -> CoordinatorFactory:
    return FACTORIES[request.param](tmp_path)


@pytest.fixture
async def connect_client(coordinator_factory: CoordinatorFactory) -> AsyncIterator[Connect]:
    """Makes clients of the store in this process; they are closed after the test."""
    async with AsyncExitStack() as stack:

        async def make() -> Coordinator:
            coordinator = await connect(coordinator_factory.address)
            stack.push_async_callback(coordinator.close)
            return coordinator

        yield make


@pytest.fixture
async def coordinator(connect_client: Connect) -> Coordinator:
    return await connect_client()


@pytest.fixture
async def start_client(coordinator_factory: CoordinatorFactory) -> AsyncIterator[StartClient]:
    """Starts processes that use the same store (client.py); what still runs after the test is killed."""
    started: list[asyncio.subprocess.Process] = []

    async def start(task: str, argument: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "tests.contract.client", coordinator_factory.address, task, argument)
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()
