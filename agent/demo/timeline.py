"""The demo's timeline: events of all agents, as they come, put on one axis whose zero is the moment of the kill.

The agents are on one machine, so their CLOCK_BOOTTIME is one clock: each event carries it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import aiohttp


class Step(StrEnum):
    """The steps of a failover, in the order in which they happen."""

    DETECTED = "detected"
    FENCED = "fenced"
    VACATED = "vacated"
    ELECTED = "elected"
    PROMOTED = "promoted"
    FIRST_WRITE = "first_write"
    REJOINED = "rejoined"


STEP_OF_EVENT = {
    "service.died": Step.DETECTED,
    "service.fenced": Step.FENCED,
    "lease.vacated": Step.VACATED,
    "lease.taken": Step.ELECTED,
    "service.promoted": Step.PROMOTED,
}
"""Which of the agents' events is which step. The client's first write and the return of the old primary are seen by the demo itself."""


@dataclass(frozen=True, slots=True)
class Happened:
    """One event of one agent. `at_s`: CLOCK_BOOTTIME in seconds."""

    step: Step
    node: str
    at_s: float
    sentence: str


@dataclass(slots=True)
class Timeline:
    """All steps seen so far, each once: the first time after the kill."""

    killed_s: float = float("inf")
    steps: dict[Step, Happened] = field(default_factory=dict)
    on_step: Callable[[Happened], None] = lambda _happened: None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, happened: Happened) -> None:
        """Take what happened, the first time after the kill."""
        if happened.at_s < self.killed_s or happened.step in self.steps:
            return
        self.steps[happened.step] = happened
        self.on_step(happened)
        self.changed.set()

    def at_ms(self, step: Step) -> float:
        """Milliseconds from the kill to this step."""
        return (self.steps[step].at_s - self.killed_s) * 1000

    async def wait_for(self, step: Step, within_s: float) -> bool:
        """Whether the step has happened by then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while step not in self.steps:
                    self.changed.clear()
                    await self.changed.wait()
        return step in self.steps


def step_in(node: str, line: bytes) -> Happened | None:
    """The step that a line of the stream tells of; None: another event, or a line that is none (such as `events.lost`)."""
    if not line.startswith(b"data:"):
        return None
    try:
        event = json.loads(line[5:])
        step = STEP_OF_EVENT.get(str(event["kind"]))
        return None if step is None else Happened(step, node, float(event["fields"]["boot_s"]), str(event["sentence"]))
    except (ValueError, KeyError, TypeError):
        return None


async def follow_events(node: str, address: str, timeline: Timeline) -> None:
    """Read one agent's event stream into the timeline, for ever; connect again when it breaks."""
    timeout = aiohttp.ClientTimeout(total=None, connect=1, sock_read=30)
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.get(f"http://{address}/api/v1/events") as response,
            ):
                async for line in response.content:
                    happened = step_in(node, line)
                    if happened is not None:
                        timeline.add(happened)
        await asyncio.sleep(0.1)
