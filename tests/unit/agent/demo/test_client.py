from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from agent.decision.view import ServiceState
from agent.demo import client
from agent.demo.client import NotReady, ask_status, wait_for_group, wait_until_streaming
from agent.demo.throwaway_postgres import free_port
from agent.reporting.status import GroupStatus, MemberStatus, Role, StatusDocument
from tests.unit.agent.reporting.samples import document
from tests.unit.agent.web.face import Face, serving


def group(*, leads: str = "pg1", **changes: object) -> GroupStatus:
    """Two members, all well; the sample's witness does not run in the demo."""
    plain = document().groups[0]
    members = tuple(
        replace(
            m,
            role=Role.LEADER if m.name == leads else Role.STANDBY,
            state=ServiceState.PRIMARY if m.name == leads else ServiceState.STANDBY,
            receiving=m.name != leads,
        )
        for m in plain.members
        if m.role is not Role.WITNESS
    )
    return replace(plain, leader=leads, members=members, **changes)  # type: ignore[arg-type]


def but(seen: GroupStatus, name: str, **changes: object) -> GroupStatus:
    def changed(member: MemberStatus) -> MemberStatus:
        return replace(member, **changes) if member.name == name else member  # type: ignore[arg-type]

    return replace(seen, members=tuple(changed(member) for member in seen.members))


@asynccontextmanager
async def agents(*groups: GroupStatus | None) -> AsyncIterator[dict[str, str]]:
    """One agent for each view of the group; None: one that does not answer."""
    api: dict[str, str] = {}
    async with asyncio.TaskGroup() as running:
        ended = asyncio.Event()

        async def serve(name: str, shown: StatusDocument, started: asyncio.Event) -> None:
            async with serving(Face(document=shown)) as port:
                api[name] = f"127.0.0.1:{port}"
                started.set()
                await ended.wait()

        for number, seen in enumerate(groups):
            if seen is None:
                api[f"n{number}"] = f"127.0.0.1:{free_port()}"
                continue
            started = asyncio.Event()
            running.create_task(serve(f"n{number}", replace(document(), groups=(seen,)), started))
            await started.wait()
        try:
            yield dict(sorted(api.items()))
        finally:
            ended.set()


@pytest.fixture(autouse=True)
def _swift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "POLL_S", 0.01)


async def test_a_status_is_what_the_agent_says() -> None:
    async with agents(group()) as api:
        assert await ask_status(api["n0"]) == replace(document(), groups=(group(),))


async def test_who_does_not_answer_says_nothing() -> None:
    assert await ask_status(f"127.0.0.1:{free_port()}") is None


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"error": "a token is needed"}', b"\xff"])
async def test_another_answer_is_none(body: bytes) -> None:
    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        answered.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        assert await ask_status(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") is None
        await asyncio.wait_for(answered.wait(), 5)


async def test_the_group_is_up_when_one_leads_and_all_others_stream() -> None:
    async with agents(None, group(leads="pg2")) as api:
        assert await wait_for_group(api, 5) == "pg2"


@pytest.mark.parametrize(
    "seen",
    [
        but(group(), "pg2", receiving=False),
        but(group(), "pg2", role=Role.WITNESS),
        but(group(), "pg1", state=ServiceState.STARTING),
        but(group(), "pg1", role=Role.STANDBY),
        group(durability="sync", sync_set=()),
        group(durability="sync", sync_set=None),
    ],
)
async def test_anything_less_is_not_up(seen: GroupStatus) -> None:
    async with agents(seen) as api:
        with pytest.raises(NotReady, match=r"^the group was not up within 0 s; "):
            await wait_for_group(api, 0.1)


async def test_without_synchronous_standbys_nobody_has_to_be_in_the_set() -> None:
    async with agents(group(durability="async", sync_set=None)) as api:
        assert await wait_for_group(api, 5) == "pg1"


@pytest.mark.parametrize(
    ("seen", "streams"),
    [
        (group(leads="pg2"), True),
        (group(leads="pg1"), False),
        (but(group(leads="pg2"), "pg1", receiving=False), False),
        (replace(group(leads="pg2"), leader=None), False),
    ],
)
async def test_the_old_primary_is_back_when_it_streams_from_another(seen: GroupStatus, streams: bool) -> None:
    async with agents(seen) as api:
        assert await wait_until_streaming(api, "pg1", 5 if streams else 0.1) is streams
