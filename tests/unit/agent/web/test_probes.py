from __future__ import annotations

import json
from dataclasses import replace

import pytest

from agent.reporting.serving import ServesAs
from agent.web.health import KINDS
from tests.unit.agent.reporting.samples import check_status, document
from tests.unit.agent.web.face import FOLLOWS, LEADS, Face, ask, serving


async def test_the_agent_itself() -> None:
    async with serving(Face()) as port:
        assert (await ask(port, "/livez")).status == 200
        ready = await ask(port, "/readyz")
        assert (ready.status, json.loads(ready.body)["ready"]) == (200, True)
    async with serving(Face(ready=(False, "it never heard the coordinator"))) as port:
        assert (await ask(port, "/livez")).status == 200
        ready = await ask(port, "/readyz")
        assert (ready.status, json.loads(ready.body)["sentence"]) == (503, "it never heard the coordinator")


@pytest.mark.parametrize(
    ("serves", "path", "status"),
    [
        (LEADS, "leader", 200),
        (LEADS, "replica", 503),
        (LEADS, "sync", 503),
        (FOLLOWS, "leader", 503),
        (FOLLOWS, "replica", 200),
        (FOLLOWS, "sync", 200),
        (replace(FOLLOWS, sync=False), "sync", 503),
        (FOLLOWS, "replica?lag=100B", 200),
        (FOLLOWS, "replica?lag=99B", 503),
        (FOLLOWS, "replica?lag=99", 503),
        (FOLLOWS, "sync?lag=1MiB", 200),
        (replace(FOLLOWS, lag_bytes=None), "replica", 200),
        (replace(FOLLOWS, lag_bytes=None), "replica?lag=1MiB", 503),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_what_a_load_balancer_asks(serves: ServesAs, path: str, status: int, method: str) -> None:
    async with serving(Face(as_what=serves)) as port:
        said = await ask(port, f"/groups/pg-main/{path}", method)
    assert said.status == status
    if method == "GET":
        assert json.loads(said.body)["answer"] is (status == 200)
    else:
        assert said.body == b""


async def test_a_replica_that_is_too_far_behind_says_so() -> None:
    async with serving(Face(as_what=FOLLOWS)) as port:
        said = await ask(port, "/groups/pg-main/replica?lag=99B")
    assert "100 bytes behind; at most 99" in json.loads(said.body)["sentence"]


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/groups/nope/leader", 404, "no such group"),
        ("/groups/pg-main/boss", 404, "leader, replica or sync"),
        ("/groups/pg-main/replica?lag=much", 400, "lag: expected a size"),
        ("/groups/pg-main/replica?lag=%F0%9F%92%A5", 400, "lag: expected a size"),
    ],
)
async def test_wrong_questions(path: str, status: int, sentence: str) -> None:
    async with serving(Face(as_what=FOLLOWS)) as port:
        said = await ask(port, path)
        assert (await ask(port, path, "HEAD")).status == status
    assert said.status == status
    assert sentence in json.loads(said.body)["error"]


@pytest.mark.parametrize(("worst", "status"), [("healthy", 200), ("degraded", 200), ("unknown", 200), ("unhealthy", 503)])
async def test_health(worst: str, status: int) -> None:
    face = Face(document=replace(document(), checks=(check_status(), check_status("b", status=worst))))
    async with serving(face) as port:
        whole, database = await ask(port, "/health"), await ask(port, "/health/database")
        leadership = await ask(port, "/health/leadership")
    assert (whole.status, database.status, leadership.status) == (status, status, 200)
    told = json.loads(whole.body)
    assert (told["version"], told["timestamp"], [c["name"] for c in told["checks"]]) == (
        "0.1.0",
        document().wall_s,
        ["pg-alive", "b", "pg-main"],
    )


@pytest.mark.parametrize("kind", sorted(kind for kinds in KINDS.values() for kind in kinds))
async def test_each_part_that_has_checks_is_answered(kind: str) -> None:
    part = next(part for part, kinds in KINDS.items() if kind in kinds)
    worst = replace(check_status("theirs", status="unhealthy"), kind=kind)
    async with serving(Face(document=replace(document(), checks=(worst,)))) as port:
        said = await ask(port, f"/health/{part.value}")
    assert said.status == 503
    assert "theirs" in [check["name"] for check in json.loads(said.body)["checks"]]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/health/storage", "this version has no checks of storage"),
        ("/health/weather", "no such part"),
        ("/health/database", "configured"),
        ("/health/redis", "configured"),
    ],
)
async def test_parts_of_health_that_are_not_there(path: str, sentence: str) -> None:
    async with serving(Face(document=replace(document(), checks=()))) as port:
        said = await ask(port, path)
    assert said.status == 404
    assert sentence in json.loads(said.body)["error"]
