"""A whole group on loopback for tests: the demo's cluster, with wires that can be cut and a sampler that sees two primaries."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.demo import client
from agent.demo.cluster import MEMBERS, Cluster, ClusterOptions
from agent.reporting.status import GroupStatus, Role
from tests.polling import eventually_async
from tests.servers.postgres import PASSWORDS
from tests.servers.relay import Relay
from tests.servers.sampler import Sampler

READY_S = 45.0
WHOLE_S = 45.0


@dataclass(slots=True)
class TestGroup:
    """A running group. `leader` is who led when it was whole first."""

    __test__ = False

    cluster: Cluster
    leader: str
    sampler: Sampler
    relays: Mapping[str, Relay] = field(default_factory=dict)

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(name for name in MEMBERS if name != self.leader)

    def state_dir(self, name: str) -> Path:
        return self.cluster.folder / "state" / name

    def signal_agent(self, name: str, number: signal.Signals) -> None:
        assert self.cluster.supervisor.send_signal(f"agent {name}", number), f"the agent of {name} does not run"

    def signal_watchdog(self, name: str, number: signal.Signals) -> None:
        """To whichever watchdog holds the lock: the supervisor's, or one that an agent started."""
        os.kill(int((self.state_dir(name) / "watchdog.lock").read_text().split()[0]), number)

    async def status(self, name: str) -> GroupStatus | None:
        document = await client.ask_status(self.cluster.api[name])
        return document.groups[0] if document is not None and document.groups else None

    async def leads(self, *, but: str) -> str | None:
        """Who leads and takes writes, if it is somebody else."""
        for name in MEMBERS:
            seen = None if name == but else await self.status(name)
            if seen is None or seen.leader in (None, but):
                continue
            leader = next((m for m in seen.members if m.name == seen.leader), None)
            if leader is not None and leader.role is Role.LEADER and leader.state.value == "primary":
                return seen.leader
        return None

    async def new_leader(self, within_s: float = 20.0) -> str:
        """Wait until somebody else than the first leader leads."""

        async def somebody() -> str | None:
            return await self.leads(but=self.leader)

        try:
            return str(await eventually_async(somebody, within_s, f"somebody else than {self.leader} leads"))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    async def whole(self, within_s: float = WHOLE_S) -> str:
        """Wait until there is one primary with two streaming standbys; its name."""
        try:
            return await client.wait_for_group(self.cluster.api, within_s)
        except client.NotReady:
            raise AssertionError(f"the group is not whole within {within_s} s\n{self.logs()}") from None

    def logs(self) -> str:
        """The end of every log, for whoever reads a failure."""
        folder = self.cluster.folder
        files = [file for name in MEMBERS for file in (folder / f"{name}.agent.log", folder / name / "data.quorate.log") if file.exists()]
        return "\n".join(f"---- {f.parent.name}/{f.name}\n" + "\n".join(f.read_text(errors="replace").splitlines()[-40:]) for f in files)


@asynccontextmanager
async def running_group(options: ClusterOptions, *, cuttable: bool = False) -> AsyncIterator[TestGroup]:
    """A whole group, sampled from the beginning. `cuttable`: other members reach a member's Postgres through a relay only."""
    if cuttable:
        options.addresses = {name: f"127.0.{number}.1" for number, name in enumerate(MEMBERS, start=77)}
    cluster = Cluster(options, lambda _: None)
    relays: dict[str, Relay] = {}
    sampler: Sampler | None = None
    try:
        await cluster.prepare()
        if cuttable:
            for name in MEMBERS:
                relays[name] = Relay(options.addresses[name], cluster.servers[name].port)
                await relays[name].start()
        cluster.start()
        group = TestGroup(cluster, "", Sampler(_conninfos(cluster)), relays)
        group.leader = await group.whole(READY_S)
        await asyncio.to_thread(_make_sampler_table, cluster, group.leader)
        await group.whole(READY_S)
        sampler = group.sampler
        sampler.start()
        await eventually_async(lambda: sampler is not None and sampler.wrote() == (group.leader,), 10, "the sampler sees the leader")
        yield group
    finally:
        if sampler is not None:
            await sampler.stop()
        await cluster.take_down()
        for relay in relays.values():
            await relay.close()


def _conninfos(cluster: Cluster) -> dict[str, str]:
    return {
        name: f"host=127.0.0.1 port={server.port} user=plain password={PASSWORDS['plain']} dbname=postgres connect_timeout=2"
        for name, server in cluster.servers.items()
    }


def _make_sampler_table(cluster: Cluster, leader: str) -> None:
    cluster.servers[leader].psql("CREATE TABLE quorate_sampler (n bigint)")
    cluster.servers[leader].psql("INSERT INTO quorate_sampler VALUES (0)")
    cluster.servers[leader].psql("GRANT SELECT, UPDATE ON quorate_sampler TO plain")
