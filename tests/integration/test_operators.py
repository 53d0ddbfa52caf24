"""What an operator asks of a running group, by the real command line: switchover, pause, resume, and the daemons' signals."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.demo.cluster import ClusterOptions
from tests.polling import eventually_async, holds_async
from tests.servers.group import TestGroup, running_group

pytestmark = pytest.mark.timeout(180)

PATIENT = {"ttl": "5s", "renew": "1s", "fence_budget": "500ms"}


@pytest.fixture
async def group(postgres_bin: Path) -> AsyncIterator[TestGroup]:
    async with running_group(ClusterOptions(bin_dir=postgres_bin, lease=PATIENT)) as started:
        yield started
        assert started.sampler.overlap_s() <= 0, f"two primaries for {started.sampler.overlap_s()} s\n{started.logs()}"


async def quorate(group: TestGroup, *words: str) -> tuple[int, str]:
    """One command of a user; its exit code and everything it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", *words, "--config", str(group.cluster.config_file),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(90):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def sync_set(group: TestGroup) -> tuple[str, ...]:
    code, said = await quorate(group, "status", "main", "--output", "json")
    assert code == 0, said
    names = json.loads(said)["sync_set"]
    assert len(names) == 1
    return tuple(names)


async def test_switchover_to_a_named_member_and_back(group: TestGroup) -> None:
    sync = await sync_set(group)
    code, said = await quorate(group, "switchover", "main", "--to", sync[0], "--reason", "a test", "--yes")
    assert code == 0, f"{said}\n{group.logs()}"
    assert await group.whole() == sync[0]
    code, said = await quorate(group, "history", "main", "--output", "json")
    assert code == 0, said
    assert "switchover" in said


async def test_switchover_to_a_member_that_cannot_lead_is_refused(group: TestGroup) -> None:
    sync = await sync_set(group)
    outside = next(name for name in group.others if name not in sync)
    code, said = await quorate(group, "switchover", "main", "--to", outside, "--reason", "a test", "--yes")
    assert code == 1, said
    assert "sync set" in said
    assert await group.whole() == group.leader


async def test_pause_keeps_everything_as_it_is_and_resume_ends_it(group: TestGroup) -> None:
    code, said = await quorate(group, "pause", "main", "--reason", "longer work", "--yes")
    assert code == 0, said
    group.signal_agent(group.leader, signal.SIGSTOP)
    await holds_async(lambda: group.sampler.wrote() == (group.leader,) and group.sampler.members[group.leader].running, 9, "it leads on")
    group.signal_agent(group.leader, signal.SIGCONT)
    code, said = await quorate(group, "resume", "main", "--reason", "done")
    assert code == 0, f"{said}\n{group.logs()}"
    assert await group.whole() == group.leader
    group.cluster.kill_service(group.leader)
    await group.new_leader()
    await group.whole()


async def test_a_leaders_agent_that_is_stopped_says_what_will_happen(group: TestGroup) -> None:
    await group.cluster.supervisor.stop(f"agent {group.leader}", signal.SIGTERM)
    log = (group.cluster.folder / f"{group.leader}.agent.log").read_text()
    assert "its fences fall in" in log.splitlines()[-2], log[-2000:]
    await group.new_leader()
    assert not group.cluster.servers[group.leader].processes(), "the watchdog has fenced it"
    group.cluster.start_agent(group.leader)
    await group.whole()


async def test_a_leaders_agent_that_is_restarted_within_ttl_goes_on(group: TestGroup) -> None:
    await group.cluster.supervisor.stop(f"agent {group.leader}", signal.SIGTERM)
    group.cluster.start_agent(group.leader)
    await holds_async(lambda: group.sampler.wrote() == (group.leader,), 7)
    assert await group.whole() == group.leader
    assert len(group.sampler.members[group.leader].spans) == 1


async def test_reload_takes_a_good_file_and_leaves_all_as_it_is_for_a_bad_one(group: TestGroup) -> None:
    file = group.cluster.config_file
    good = file.read_text()
    file.write_text(good.replace("ttl: 5s", "ttl: 5"))
    group.signal_agent(group.leader, signal.SIGHUP)
    log = group.cluster.folder / f"{group.leader}.agent.log"
    await eventually_async(lambda: "configuration.refused" in log.read_text(), 5)
    file.write_text(good.replace("ttl: 5s", "ttl: 6s"))
    for name in group.cluster.servers:
        group.signal_agent(name, signal.SIGHUP)
    await eventually_async(lambda: "configuration.reloaded" in log.read_text(), 5)

    async def longer() -> bool:
        seen = await group.status(group.leader)
        return seen is not None and (seen.lease_remaining_s or 0) > 5

    await eventually_async(longer, 5, "the longer ttl is in force")
    assert await group.whole() == group.leader
