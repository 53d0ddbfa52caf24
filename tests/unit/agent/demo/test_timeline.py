from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from agent.demo.timeline import STEP_OF_EVENT, Happened, Step, Timeline, follow_events, step_in
from agent.reporting.audit import EventKind
from tests.polling import eventually_async


def happened(step: Step, at_s: float, node: str = "pg1") -> Happened:
    return Happened(step, node, at_s, "words")


def line(kind: str, at_s: float = 101.5) -> bytes:
    return b"data: " + json.dumps({"kind": kind, "sentence": "words", "fields": {"boot_s": at_s}}).encode() + b"\n"


def test_each_step_counts_once_from_the_kill_on() -> None:
    told: list[Happened] = []
    timeline = Timeline(on_step=told.append)
    timeline.add(happened(Step.FENCED, 5))
    assert timeline.steps == {}, "before the kill nothing counts"
    timeline.killed_s = 100
    timeline.add(happened(Step.FENCED, 99.9))
    timeline.add(happened(Step.FENCED, 100.25))
    timeline.add(happened(Step.FENCED, 100.5, "pg2"))
    timeline.add(happened(Step.DETECTED, 100))
    assert [(each.step, each.at_s) for each in told] == [(Step.FENCED, 100.25), (Step.DETECTED, 100)]
    assert (timeline.at_ms(Step.FENCED), timeline.at_ms(Step.DETECTED)) == (250, 0)


async def test_a_step_is_waited_for() -> None:
    timeline = Timeline(killed_s=100)
    assert not await timeline.wait_for(Step.PROMOTED, 0.01)
    waiting = asyncio.create_task(timeline.wait_for(Step.PROMOTED, 5))
    for step in (Step.FENCED, Step.PROMOTED):
        await asyncio.sleep(0)
        timeline.add(happened(step, 101))
    assert await waiting
    assert await timeline.wait_for(Step.PROMOTED, 0)


@pytest.mark.parametrize(("kind", "step"), [(kind, STEP_OF_EVENT.get(kind)) for kind in EventKind])
def test_the_agents_events_become_steps(kind: EventKind, step: Step | None) -> None:
    assert step_in("pg2", line(kind)) == (None if step is None else Happened(step, "pg2", 101.5, "words"))


def test_every_step_of_an_agent_is_an_event_that_there_is() -> None:
    assert set(STEP_OF_EVENT) <= {kind.value for kind in EventKind}
    assert set(Step) - set(STEP_OF_EVENT.values()) == {Step.FIRST_WRITE, Step.REJOINED}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b": a comment\n",
        b"event: lease.taken\n",
        b"data: \n",
        b"data: {\n",
        b"data: []\n",
        b'data: {"lost": 3}\n',
        b'data: {"kind": "lease.taken"}\n',
        b'data: {"kind": "lease.taken", "sentence": "x", "fields": {"boot_s": "soon"}}\n',
    ],
)
def test_a_line_that_is_no_event_ends_nothing(text: bytes) -> None:
    assert step_in("pg1", text) is None


async def test_a_stream_that_breaks_is_followed_again() -> None:
    streams = 0

    async def events(request: web.Request) -> web.StreamResponse:
        nonlocal streams
        streams += 1
        response = web.StreamResponse()
        await response.prepare(request)
        if streams == 1:
            await response.write(b'data: {"lost": 3}\n' + line("service.died", 100.5))
        else:
            await response.write(line("lease.taken", 101))
        return response

    app = web.Application()
    app.router.add_get("/api/v1/events", events)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    timeline = Timeline(killed_s=100)
    following = asyncio.create_task(follow_events("pg3", f"127.0.0.1:{port}", timeline))
    try:
        await eventually_async(lambda: len(timeline.steps) == 2, 5)
        assert {step: each.node for step, each in timeline.steps.items()} == {Step.DETECTED: "pg3", Step.ELECTED: "pg3"}
        assert not following.done()
    finally:
        following.cancel()
        await runner.cleanup()
