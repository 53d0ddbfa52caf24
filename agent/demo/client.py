"""Asking the demo's agents over HTTP, as any other client would."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import aiohttp

from agent.errors import QuorateError
from agent.reporting.status import GroupStatus, Role, StatusDocument, StatusUnreadable, from_json

POLL_S = 0.1


class NotReady(QuorateError):
    """The group did not come up in time."""


async def ask_status(address: str) -> StatusDocument | None:
    """One agent's status document; None when it does not answer, or not with one."""
    timeout = aiohttp.ClientTimeout(total=1)
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, StatusUnreadable):
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.get(f"http://{address}/api/v1/status") as response,
        ):
            return from_json(await response.read())
    return None


async def wait_for_group(api: Mapping[str, str], within_s: float) -> str:
    """Wait until somebody leads and all others stream; the leader's name. Raises NotReady."""
    seen = await _poll(api, within_s, _is_whole)
    if seen is None:
        raise NotReady(f"the group was not up within {within_s:.0f} s; above are the last words of its agents")
    return seen


async def wait_until_streaming(api: Mapping[str, str], node: str, within_s: float) -> bool:
    """Wait until `node` streams as a standby of another leader."""

    def streams(group: GroupStatus) -> str | None:
        member = next((m for m in group.members if m.name == node), None)
        good = member is not None and member.role is Role.STANDBY and member.receiving and group.leader not in (None, node)
        return node if good else None

    return await _poll(api, within_s, streams) is not None


async def _poll(api: Mapping[str, str], within_s: float, judge: Callable[[GroupStatus], str | None]) -> str | None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while True:
                for address in api.values():
                    status = await ask_status(address)
                    verdict = judge(status.groups[0]) if status is not None and status.groups else None
                    if verdict is not None:
                        return verdict
                await asyncio.sleep(POLL_S)
    return None


def _is_whole(group: GroupStatus) -> str | None:
    """The leader's name when it takes writes, everybody else streams, and (in `sync`) somebody is in the set."""
    leader = next((m for m in group.members if m.role is Role.LEADER and m.state.value == "primary"), None)
    others = [m for m in group.members if m.role is Role.STANDBY]
    synced = group.durability != "sync" or bool(group.sync_set)
    whole = leader is not None and len(others) == len(group.members) - 1 and all(m.receiving for m in others) and synced
    whole = whole and all(m.healthy for m in group.members)  # an agent that has just woken shows what it saw before it slept
    return leader.name if whole and leader is not None else None
