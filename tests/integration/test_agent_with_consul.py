"""An agent and a Consul that comes and goes: it starts without Consul, joins when Consul is there, and lives on when it is not."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.demo import client
from tests.lab.servers.consul.consul import Acl, ConsulCluster, ConsulServer, free_loopback_addresses, plans_of
from tests.plugins.left_out import require_part
from tests.polling import eventually_async

ROOT = Path(__file__).parents[2]
POLICY = (ROOT / "config" / "consul" / "policy.hcl").read_text(encoding="utf-8")
FILE = """\
coordination: {{consul: {{url: {url}, token_file: {folder}/token}}}}
state_dir: {folder}/state
nodes:
  pg1: {{api: "127.0.0.1:1"}}
  edge1: {{api: "127.0.0.1:{port}"}}
groups:
  pg-main:
    engine: postgres
    members: {{pg1: {{data_dir: /nowhere/pg1}}}}
    witnesses: [edge1]
    lease: {{ttl: 2s, renew: 400ms, failsafe: false}}
    postgres: {{socket_dir: /nowhere}}
"""


@asynccontextmanager
async def agent(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    log = folder / "agent.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("QUORATE_", "CONSUL_"))}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent", "agent", "--config", str(folder / "quorate.yaml"), "--node", "edge1",
            stdout=output, stderr=output, cwd=ROOT, env=environment,
        )  # fmt: skip
    try:
        yield process, log
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> ConsulCluster:
    """Three servers, none of which runs yet."""
    addresses = free_loopback_addresses(3)
    plans = plans_of(("c1", "c2", "c3"), addresses, tmp_path / "consul", require_part("Consul"), Acl())
    return ConsulCluster([ConsulServer(plan) for plan in plans])


def sessions(cluster: ConsulCluster) -> list[str]:
    """The names of all sessions, as whichever server answers knows them."""
    for server in cluster.servers:
        try:
            return [str(each["Name"]) for each in json.loads(server.ask("/v1/session/list"))]
        except OSError:
            continue
    return []


@pytest.mark.timeout(300)
async def test_an_agent_starts_without_consul_and_outlives_it(cluster: ConsulCluster, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    (tmp_path / "token").write_text("not-yet\n", encoding="utf-8")
    (tmp_path / "quorate.yaml").write_text(FILE.format(url=json.dumps(cluster.urls), folder=tmp_path, port=port), encoding="utf-8")
    api = f"127.0.0.1:{port}"

    async def coordination_is(up: bool) -> bool:
        document = await client.ask_status(api)
        return document is not None and document.coordination.up is up

    try:
        async with agent(tmp_path) as (process, log):
            await eventually_async(lambda: coordination_is(up=False), 60, "it says that its coordinator is away")
            cluster.start()
            await asyncio.to_thread(cluster.wait_leader)
            await eventually_async(lambda: "ACL not found" in log.read_text(), 60, "its token is not known")
            token = await asyncio.to_thread(cluster.token_for, POLICY)
            (tmp_path / "token").write_text(token, encoding="utf-8")
            await eventually_async(lambda: coordination_is(up=True), 60, "it takes the new token and joins")
            assert any("quorate-pg-main-edge1" in name for name in sessions(cluster))
            cluster.kill()
            await eventually_async(lambda: coordination_is(up=False), 60, "it notices that Consul is gone")
            cluster.start()
            await eventually_async(lambda: coordination_is(up=True), 60, "it finds Consul again")
            process.terminate()
            async with asyncio.timeout(20):
                assert await process.wait() == 0
            assert not any("quorate-pg-main-edge1" in name for name in sessions(cluster)), "who does not lead closes its session"
            assert token not in log.read_text()
            assert "Traceback" not in log.read_text()
    finally:
        cluster.kill()
