"""Pairs that show that the safety tests can fail: the same schedule once with the rule and once without it.

In both, the primary's host is cut off from the observers (a wire that this test holds), so that a quorum calls the service down while a
client that stands beside it still reaches it. Then only the lease and its fences keep two primaries apart.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from agent.demo.cluster import ClusterOptions
from tests.polling import holds_async
from tests.servers.group import TestGroup, running_group

pytestmark = pytest.mark.timeout(180)

TTL_S = 2.0
LONG_TTL_S = 4.0


async def _frozen_agent(group: TestGroup) -> None:
    """The primary's agent is frozen for 10 s and its service is cut off from the other members."""
    group.relays[group.leader].cut()
    group.signal_agent(group.leader, signal.SIGSTOP)
    await group.new_leader()
    await holds_async(lambda: True, 10 - 2 * TTL_S, "the rest of the 10 s")
    group.signal_agent(group.leader, signal.SIGCONT)
    group.relays[group.leader].mend()
    await group.whole()


async def test_frozen_agent_with_fences_no_overlap(postgres_bin: Path) -> None:
    async with running_group(ClusterOptions(bin_dir=postgres_bin), cuttable=True) as group:
        await _frozen_agent(group)
        assert group.sampler.overlap_s() <= 0, group.logs()


async def test_frozen_agent_without_fences_overlaps(postgres_bin: Path) -> None:
    async with running_group(ClusterOptions(bin_dir=postgres_bin, group={"fence": []}), cuttable=True) as group:
        await _frozen_agent(group)
        assert group.sampler.overlap_s() > 1.0, "without a fence two take writes"


async def _late_answer(postgres_bin: Path, environment: dict[str, str]) -> float:
    """A renewal's answer is held up until shortly before the deadline of the one before; then the coordinator is gone. The overlap seen."""
    lease = {"ttl": f"{LONG_TTL_S:.0f}s", "renew": "400ms", "fence_budget": "300ms"}
    options = ClusterOptions(bin_dir=postgres_bin, lease=lease, agent_module="tests.integration.agents.late_answers")
    trigger = Path(f"/tmp/quorate-late-{id(options)}")
    options.environment = {"LATE_ANSWERS_FILE": "", "LATE_ANSWERS_S": str(LONG_TTL_S - 0.8), **environment}
    options.environment["LATE_ANSWERS_FILE"] = str(trigger)
    try:
        async with running_group(options, cuttable=True) as group:
            group.relays[group.leader].cut()
            trigger.write_text(group.leader)
            await group.new_leader()
            await holds_async(lambda: True, LONG_TTL_S, "the wrongly dated lease runs out, too")
            return group.sampler.overlap_s()
    finally:
        trigger.unlink(missing_ok=True)


async def test_late_answer_dated_by_sent_no_overlap(postgres_bin: Path) -> None:
    assert await _late_answer(postgres_bin, {}) <= 0


async def test_late_answer_dated_by_reply_overlaps(postgres_bin: Path) -> None:
    assert await _late_answer(postgres_bin, {"DATE_AFTER_REPLY": "1"}) > 0.3, "dated by the reply, two take writes"
