"""The coordinators that the contract suite runs on. Another one joins by one more name in FACTORIES and one more kind in client.py."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.coordination.coordinator import Coordinator
from tests.contract.client import connect
from tests.lab.servers.consul.consul import Acl, ConsulCluster, loopback_cluster
from tests.plugins.left_out import require_part

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class CoordinatorFactory:
    """One empty store. `kill_session`: the session of a killed process ends within a second; else only with its own time to live.

    `rounds`: how often the long tests do the same: what is tried against three real servers costs more than against a file.
    """

    address: str
    kill_session: bool
    rounds: int


Connect = Callable[[], Awaitable[Coordinator]]
StartClient = Callable[[str, str], Awaitable[asyncio.subprocess.Process]]
FACTORIES = ("local", "consul", "consul-with-acl")
CALM = 3
"""As raft_multiplier: nothing here is about elections, and none should come because other tests keep the machine busy."""
POLICY = ROOT / "config" / "consul" / "policy.hcl"


@pytest.fixture(params=[pytest.param(name, marks=() if name == "local" else pytest.mark.slow) for name in FACTORIES])
def coordinator_factory(request: pytest.FixtureRequest, tmp_path: Path) -> CoordinatorFactory:
    if request.param == "local":
        return CoordinatorFactory(f"local:{tmp_path / 'store.db'}", kill_session=True, rounds=20)
    make: Callable[[], CoordinatorFactory] = request.getfixturevalue(request.param.replace("-", "_"))
    return make()


def _on(cluster: ConsulCluster, prefix: str, token: str | None) -> CoordinatorFactory:
    place = {"urls": cluster.urls, "prefix": prefix, "token": token}
    return CoordinatorFactory(f"consul:{json.dumps(place)}", kill_session=False, rounds=5)


@pytest.fixture(scope="session")
def consul() -> Iterator[Callable[[], CoordinatorFactory]]:
    """Three servers for all tests of this worker; each test has a folder of its own."""
    with loopback_cluster(require_part("Consul"), raft_multiplier=CALM) as cluster:
        yield lambda: _on(cluster, f"test-{secrets.token_hex(6)}", None)


@pytest.fixture(scope="session")
def consul_with_acl() -> Iterator[Callable[[], CoordinatorFactory]]:
    """The same with access control: each test has a token with exactly the rights that config/consul gives to quorate."""
    with loopback_cluster(require_part("Consul"), acl=Acl(), raft_multiplier=CALM) as cluster:

        def make() -> CoordinatorFactory:
            prefix = f"test-{secrets.token_hex(6)}"
            return _on(cluster, prefix, cluster.token_for(POLICY.read_text(encoding="utf-8").replace("quorate/", f"{prefix}/")))

        yield make


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
