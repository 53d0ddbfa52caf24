from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from agent.errors import CoordinationError, CoordinationRefused
from agent.reporting.audit import MAX_LISTENERS, EventKind
from agent.reporting.status import from_json
from agent.web import api
from tests.polling import eventually_async
from tests.unit.agent.reporting.samples import document
from tests.unit.agent.web.face import Face, Said, ask, serving


async def test_reads() -> None:
    async with serving(Face()) as port:
        assert from_json((await ask(port, "/api/v1/status")).body) == document()
        assert [g["name"] for g in json.loads((await ask(port, "/api/v1/groups")).body)] == ["pg-main"]
        assert json.loads((await ask(port, "/api/v1/groups/pg-main")).body)["leader"] == "pg1"
        assert [c["name"] for c in json.loads((await ask(port, "/api/v1/checks")).body)] == ["pg-alive", "gateway"]
        assert [e["epoch"] for e in json.loads((await ask(port, "/api/v1/history/pg-main")).body)] == [1, 2]
        assert json.loads((await ask(port, "/api/v1/explain/pg-main")).body)["group"] == "pg-main"


@pytest.mark.parametrize("path", ["groups/nope", "history/nope", "explain/nope", "intents/nope/i1"])
async def test_no_such_group(path: str) -> None:
    async with serving(Face()) as port:
        said = await ask(port, f"/api/v1/{path}")
    assert (said.status, json.loads(said.body)) == (404, {"error": "there is no such group"})


async def test_nothing_decided_yet() -> None:
    async with serving(Face(explanation=None)) as port:
        said = await ask(port, "/api/v1/explain/pg-main")
    assert (said.status, json.loads(said.body)["error"]) == (503, "nothing was decided yet")


async def test_metrics_are_for_prometheus() -> None:
    async with serving(Face()) as port:
        said = await ask(port, "/metrics")
        other = await ask(port, "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert said.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b'quorate_group_epoch{group="pg-main"} 3.0' in said.body
    assert other.body.endswith(b"# EOF\n")


# ------------------------------------------------------------------ intents


async def post(face: Face, body: object, content_type: str = "application/json") -> Said:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with serving(face) as port:
        return await ask(port, "/api/v1/intents", "POST", data=data, headers={"Content-Type": content_type})


async def test_an_intent_is_recorded_with_who_and_why() -> None:
    face = Face()
    wish = {"kind": "switchover", "group": "pg-main", "node": "pg2", "who": "anna@desk\n\x1b[31m", "why": "kernel\nupdate"}
    said = await post(face, wish)
    assert (said.status, json.loads(said.body)) == (202, {"identity": "i1", "group": "pg-main"})
    intent = face.intents["pg-main/i1"]
    assert (intent.kind, intent.node, intent.why) == ("switchover", "pg2", "kernel update")
    assert intent.who.startswith("anna@desk [31m (uid ")


async def test_an_intent_can_be_followed() -> None:
    face = Face()
    async with serving(face) as port:
        await ask(port, "/api/v1/intents", "POST", json={"kind": "pause", "group": "pg-main"})
        said = await ask(port, "/api/v1/intents/pg-main/i1")
        gone = await ask(port, "/api/v1/intents/pg-main/i9")
    assert (json.loads(said.body)["outcome"], json.loads(said.body)["sentence"]) == ("done", "pg2 leads")
    assert gone.status == 404


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"kind": "reboot", "group": "pg-main"}, 400, "kind: "),
        ({"kind": "pause"}, 400, "group: Field required"),
        ({"kind": "pause", "group": "pg-main", "force": True}, 400, "force: "),
        ({"kind": "pause", "group": "nope"}, 404, "no such group"),
        ({"kind": "pause", "group": "pg-main", "node": "pg2"}, 400, "only for a switchover"),
        ({"kind": "switchover", "group": "pg-main", "node": "pg9"}, 400, "expected a member"),
        ({"kind": "pause", "group": "pg-main", "why": "x" * 301}, 400, "why: "),
        (b"{", 400, "the body: "),
        (b"\xff\xfe", 400, "the body: "),
        (b"x" * (65 << 10), 413, "more than 65536 bytes"),
    ],
)
async def test_wrong_intents(body: object, status: int, sentence: str) -> None:
    face = Face()
    said = await post(face, body)
    assert said.status == status
    assert sentence in json.loads(said.body)["error"]
    assert not face.intents


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_form_of_another_sites_page_is_no_write(content_type: str) -> None:
    face = Face()
    assert (await post(face, {"kind": "pause", "group": "pg-main"}, content_type)).status == 415
    assert not face.intents


@pytest.mark.parametrize(
    ("error", "status"), [(CoordinationRefused("50 open intents already"), 409), (CoordinationError("the answer was lost"), 503)]
)
async def test_what_the_coordinator_says_is_passed_on(error: CoordinationError, status: int) -> None:
    said = await post(Face(error=error), {"kind": "pause", "group": "pg-main"})
    assert (said.status, json.loads(said.body)) == (status, {"error": str(error)})


async def test_a_coordinator_that_hangs_is_waited_for_so_long_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "ASK_S", 0.05)
    said = await post(Face(hangs=True), {"kind": "pause", "group": "pg-main"})
    assert (said.status, json.loads(said.body)) == (503, {"error": "the coordinator did not answer in time"})


# ------------------------------------------------------------------ events


async def read_events(answer: aiohttp.ClientResponse, count: int) -> list[dict[str, str]]:
    """The next events of a stream, each as its fields."""
    events: list[dict[str, str]] = []
    async with asyncio.timeout(10):
        while len(events) < count:
            block = (await answer.content.readuntil(b"\n\n")).decode().strip()
            if not block.startswith(":"):
                events.append(dict(line.split(": ", 1) for line in block.splitlines()))  # type: ignore[misc]
    return events


async def test_events_as_they_happen_and_again_after_a_break() -> None:
    face = Face()
    for sentence in ("one", "two"):
        face.events.note(EventKind.LEASE_TAKEN, "pg-main", 3, sentence)
    async with serving(face) as port, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/api/v1/events") as stream:
            assert stream.content_type == "text/event-stream"
            before = await read_events(stream, 2)
            face.events.note(EventKind.SERVICE_FENCED, "pg-main", 3, "three\nlines")
            (now,) = await read_events(stream, 1)
        assert [json.loads(e["data"])["sentence"] for e in before] == ["one", "two"]
        assert (now["event"], json.loads(now["data"])["sentence"]) == ("service.fenced", "three\nlines")
        headers = {"Last-Event-ID": before[1]["id"]}
        async with session.get(f"http://127.0.0.1:{port}/api/v1/events", headers=headers) as stream:
            assert (await read_events(stream, 1))[0]["id"] == now["id"]
        async with session.get(f"http://127.0.0.1:{port}/api/v1/events", headers={"Last-Event-ID": "another-life:2"}) as stream:
            assert len(await read_events(stream, 3)) == 3, "numbers of another life mean nothing: all that is kept"


async def test_a_listener_that_goes_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "HEARTBEAT_S", 0.05)
    face = Face()
    async with serving(face) as port, aiohttp.ClientSession() as session:
        streams = [await session.get(f"http://127.0.0.1:{port}/api/v1/events") for _ in range(MAX_LISTENERS)]
        refused = await ask(port, "/api/v1/events")
        assert (refused.status, json.loads(refused.body)["error"]) == (503, "16 listeners are there already")
        for stream in streams:
            stream.close()
        await eventually_async(lambda: not face.events.listeners, 10, "the listeners are still there")


async def test_a_slow_listener_is_told_what_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.reporting.audit.MAX_WAITING", 3)
    face = Face()
    async with serving(face) as port, aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/api/v1/events") as stream:
        await eventually_async(lambda: bool(face.events.listeners), 5, "nobody listens")
        (listener,) = face.events.listeners
        for number in range(10):
            face.events.note(EventKind.LEASE_TAKEN, "pg-main", 3, str(number))
        assert listener.lost
        first, second = await read_events(stream, 2)
    assert (first["event"], json.loads(first["data"])["lost"]) == ("events.lost", listener.lost)
    assert second["event"] == "lease.taken"


async def test_streams_end_when_the_agent_stops() -> None:
    async with aiohttp.ClientSession() as session:
        async with serving(Face()) as port:
            stream = await session.get(f"http://127.0.0.1:{port}/api/v1/events")
        async with asyncio.timeout(5):
            await stream.content.read()
