"""An agent stays light beside the database that it guards: its memory, and how often it wakes up, on real servers with Consul.

What it costs in processor time is noise on a machine that runs tests; what it does each renew period is not.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import cast

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agent.demo import client
from agent.demo.cluster import GROUP, MEMBERS, Cluster, ClusterOptions
from tests.lab.servers.consul.consul import loopback_cluster
from tests.plugins.left_out import require_part
from tests.polling import eventually_async
from tests.servers.group import READY_S

AGENT_MB = 80
WATCHDOG_MB = 15
RENEW_S = 0.4
PERIODS = 20
CHECKS = 10
"""Of Postgres, on each node, beside the group."""

Tree = dict[str, object]


@pytest.fixture
async def cluster(postgres_bin: Path) -> AsyncIterator[Cluster]:
    """Three agents with a group on Consul and Postgres checks, whole."""
    with loopback_cluster(require_part("Consul"), servers=1) as consul:
        cluster = Cluster(ClusterOptions(bin_dir=postgres_bin), lambda _: None)
        try:
            await cluster.prepare()
            _change(cluster, consul.urls)
            cluster.start()
            await client.wait_for_group(cluster.api, READY_S)
            yield cluster
        finally:
            await cluster.take_down()


def _change(cluster: Cluster, urls: tuple[str, ...]) -> None:
    """Consul, more checks, the line between the agents; the packet filter of this machine is none of a test's business."""
    tree = cast("Tree", yaml.safe_load(cluster.config_file.read_text(encoding="utf-8")))
    key = cluster.folder / "secrets" / "peer"
    key.write_text("00112233445566778899aabbccddeeff", encoding="ascii")
    key.chmod(0o600)
    tree |= {"coordination": {"consul": {"url": list(urls)}}, "api": {"peer_key_file": str(key)}}
    checks = cast("dict[str, Tree]", tree["checks"])
    some = list(checks.values())
    for number in range(CHECKS):
        for check in some:
            checks[f"{cast('list[str]', check['on'])[0]}-{number}"] = {**check, "every": "5s"}
    cast("dict[str, Tree]", tree["groups"])[GROUP]["fence"] = ["seal", "watchdog"]
    cluster.config_file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def status_of(pid: int) -> Mapping[str, int]:
    """The numbers of /proc/PID/status; memory in kB."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


async def asked(address: str) -> dict[str, float]:
    """How often an agent has asked Consul, by what it asked."""
    async with aiohttp.ClientSession(trust_env=False) as session, session.get(f"http://{address}/metrics") as response:
        text = await response.text()
    name = "quorate_coordination_request_duration_seconds"
    families = {family.name: family for family in text_string_to_metric_families(text)}
    counts: dict[str, float] = {}
    for sample in families[name].samples:
        if sample.name == f"{name}_count":
            counts[sample.labels["request"]] = counts.get(sample.labels["request"], 0) + sample.value
    return counts


@pytest.mark.timeout(180)
async def test_an_agent_is_light(cluster: Cluster) -> None:
    pids = {name: program.pid for name, program in cluster.supervisor.programs.items()}

    async def every_check_ran() -> bool:
        seen = [await client.ask_status(address) for address in cluster.api.values()]
        return all(one is not None and len(one.checks) > CHECKS and all(c.status == "healthy" for c in one.checks) for one in seen)

    await eventually_async(every_check_ran, 30, "every check has found its server well")
    before = {name: await asked(address) for name, address in cluster.api.items()}
    woken = {name: status_of(cast("int", pids[f"agent {name}"]))["voluntary_ctxt_switches"] for name in MEMBERS}
    began_s = time.monotonic()

    async def all_wrote() -> bool:
        return all([(await asked(address))["transact"] >= before[name]["transact"] + PERIODS for name, address in cluster.api.items()])

    await eventually_async(all_wrote, 60, "every agent has written its heartbeats")
    for name, address in cluster.api.items():
        periods = (time.monotonic() - began_s) / RENEW_S
        after, agent = await asked(address), status_of(cast("int", pids[f"agent {name}"]))
        often = {kind: round((count - before[name].get(kind, 0)) / periods, 2) for kind, count in after.items()}
        assert often["session"] <= 1.2, f"{name} asks about its session more than once a renew period: {often}"
        assert often["transact"] <= 2.6, f"{name} writes more than its heartbeat and its renewal: {often}"
        assert often["read"] <= 1.2, f"{name} reads beside what it waits for: {often}"
        wakings = (agent["voluntary_ctxt_switches"] - woken[name]) / (periods * RENEW_S)
        assert wakings < 150, f"the main thread of {name} wakes up {wakings:.0f} times a second"
        assert agent["VmRSS"] < AGENT_MB * 1024, f"the agent of {name} takes {agent['VmRSS'] / 1024:.1f} MB"
        watchdog = status_of(cast("int", pids[f"watchdog {name}"]))
        assert watchdog["VmRSS"] < WATCHDOG_MB * 1024, f"the watchdog of {name} takes {watchdog['VmRSS'] / 1024:.1f} MB"
