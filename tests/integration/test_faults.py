"""What goes wrong on one host, on real servers: never two instances that take a write over TCP at once, and it ends by itself, whole."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.demo.cluster import ClusterOptions
from tests.polling import eventually_async, holds_async
from tests.servers.group import TestGroup, running_group

pytestmark = pytest.mark.timeout(180)


PATIENT = {"ttl": "5s", "renew": "1s", "fence_budget": "500ms"}
"""For what must NOT fail over: the machine of a test run is slow now and then, and a restarted agent has to be back within ttl."""


@pytest.fixture
async def patient_group(postgres_bin: Path) -> AsyncIterator[TestGroup]:
    async with running_group(ClusterOptions(bin_dir=postgres_bin, lease=PATIENT)) as started:
        yield started
        assert started.sampler.overlap_s() <= 0, f"two primaries for {started.sampler.overlap_s()} s\n{started.logs()}"


@pytest.fixture
async def group(postgres_bin: Path) -> AsyncIterator[TestGroup]:
    async with running_group(ClusterOptions(bin_dir=postgres_bin)) as started:
        yield started
        assert started.sampler.overlap_s() <= 0, f"two primaries for {started.sampler.overlap_s()} s\n{started.logs()}"


async def test_killed_primary_fails_over_and_comes_back(group: TestGroup) -> None:
    group.cluster.kill_service(group.leader)
    heir = await group.new_leader()
    assert await group.whole() == heir
    assert group.sampler.wrote() == (group.leader, heir)


async def test_killed_agent_is_restarted_and_leads_on(patient_group: TestGroup) -> None:
    patient_group.signal_agent(patient_group.leader, signal.SIGKILL)
    program = patient_group.cluster.supervisor.programs[f"agent {patient_group.leader}"]
    await eventually_async(lambda: program.restarts == 1 and program.pid is not None, 10)
    await holds_async(lambda: patient_group.sampler.wrote() == (patient_group.leader,), 5, "nobody else takes writes")
    assert await patient_group.whole() == patient_group.leader
    assert len(patient_group.sampler.members[patient_group.leader].spans) == 1, "the service was never interrupted"


async def test_killed_watchdog_takes_its_service_down_first(group: TestGroup) -> None:
    group.signal_watchdog(group.leader, signal.SIGKILL)
    heir = await group.new_leader()
    assert await group.whole() == heir


async def test_killed_agent_and_watchdog_of_the_primary(group: TestGroup) -> None:
    group.signal_watchdog(group.leader, signal.SIGKILL)
    group.signal_agent(group.leader, signal.SIGKILL)
    await eventually_async(lambda: not group.sampler.members[group.leader].running, 10, "the primary stops taking writes")
    await group.whole()


async def test_killed_agent_of_a_standby_changes_nothing(patient_group: TestGroup) -> None:
    patient_group.signal_agent(patient_group.others[0], signal.SIGKILL)
    await holds_async(lambda: patient_group.sampler.wrote() == (patient_group.leader,), 4)
    assert await patient_group.whole() == patient_group.leader


async def test_agent_of_the_primary_frozen_for_10_s(group: TestGroup) -> None:
    group.signal_agent(group.leader, signal.SIGSTOP)
    heir = await group.new_leader()
    await holds_async(lambda: group.sampler.overlap_s() <= 0, 10, "one primary at a time")
    group.signal_agent(group.leader, signal.SIGCONT)
    assert await group.whole() == heir


async def test_primary_and_its_agent_killed_together(group: TestGroup) -> None:
    group.signal_agent(group.leader, signal.SIGKILL)
    group.cluster.kill_service(group.leader)
    await group.whole()


async def test_primary_started_by_hand_without_its_agent_takes_no_writes(group: TestGroup) -> None:
    old = group.leader
    await group.cluster.supervisor.stop(f"agent {old}", signal.SIGKILL)
    heir = await group.new_leader()
    await eventually_async(lambda: not group.cluster.servers[old].processes(), 10, "the watchdog has fenced the old primary")
    spans = len(group.sampler.members[old].spans)
    group.cluster.servers[old].start()
    await holds_async(lambda: len(group.sampler.members[old].spans) == spans, 3, "it takes no write")
    assert group.cluster.servers[old].psql("SELECT pg_is_in_recovery()") == "t"
    group.cluster.start_agent(old)
    assert await group.whole() == heir


async def test_promotion_by_hand_is_ended_at_once_and_mended(postgres_bin: Path) -> None:
    """Outside the promise (nobody can keep a superuser from it), so two may write for a moment; the watchdog ends it."""
    async with running_group(ClusterOptions(bin_dir=postgres_bin)) as group:
        victim = group.others[0]
        group.cluster.servers[victim].psql("SELECT pg_promote(false)")
        await eventually_async(lambda: not group.cluster.servers[victim].processes(), 5, "the watchdog has fenced it")
        assert await group.whole() == group.leader
        assert group.sampler.overlap_s() < 1.0
