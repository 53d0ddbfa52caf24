"""An agent killed in the middle of each step of a promotion: never two primaries, and it ends whole, without a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.demo.cluster import MEMBERS, ClusterOptions
from agent.execution.crash_points import VARIABLE
from tests.servers.group import running_group

pytestmark = pytest.mark.timeout(180)

STEPS = ("set_sync_names", "place_history", "promote", "seal")


@pytest.mark.parametrize("step", STEPS)
async def test_agent_dies_at_each_step_of_a_promotion(postgres_bin: Path, step: str) -> None:
    """The first leader dies there when the group is formed, the heir when it takes over; each finishes or undoes what it began."""
    options = ClusterOptions(bin_dir=postgres_bin, environment={VARIABLE: f"PromoteService/{step}"})
    async with running_group(options) as group:
        assert (group.state_dir(group.leader) / "crashed").exists(), "the first leader died at this step"
        group.cluster.kill_service(group.leader)
        await group.new_leader(30)
        await group.whole()
        died = [name for name in MEMBERS if (group.state_dir(name) / "crashed").exists()]
        assert len(died) >= 2, f"the heir died at this step, too: {died}"
        assert group.sampler.overlap_s() <= 0, group.logs()
