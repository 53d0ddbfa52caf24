"""POST /api/v1/peers/{group}/promise: what other agents ask of this one. Every question and every answer is signed (peer_auth).

No token and no loopback opens this door: only the shared key does. It knows no rule; a desk answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from agent.codec import CodecError, dumps, loads
from agent.coordination.failsafe_rules import Answer, Question
from agent.coordination.peer_auth import MAC, MEANT, NONCE, PEER, STAMP, Answered, Asked, Door, Verdict
from agent.coordination.peer_client import STALE


class Desk(Protocol):
    """Answers for one group."""

    async def answer(self, question: Question) -> Answer:
        """Promise, or say why not."""
        ...


class PeerEdge:
    """The handlers for other agents. `door` None: no key is configured, and nobody comes in."""

    def __init__(self, door: Door | None, desks: Mapping[str, Desk]) -> None:
        self._door = door
        self._desks = desks

    async def promise(self, request: web.Request) -> web.Response:
        """A holder asks for a promise."""
        door = self._door
        if door is None:
            raise web.HTTPNotFound(text="this agent has no peer key: it promises nothing")
        asked = await _asked(request)
        verdict, key = door.judge(asked, request.headers.get(MAC, ""))
        if verdict is Verdict.STRANGER:
            raise web.HTTPUnauthorized(text="not signed with a peer key that this agent knows, or meant for another node")
        if verdict is Verdict.STALE:
            return _signed(door, asked, key, STALE, b"{}")
        question = _question(asked, request.match_info["group"])
        desk = None if question is None else self._desks.get(question.group)
        if question is None or desk is None:
            return _signed(door, asked, key, 400 if question is None else 404, b"{}")
        return _signed(door, asked, key, 200, dumps(await desk.answer(question)))


async def _asked(request: web.Request) -> Asked:
    given = request.headers
    return Asked(
        method=request.method,
        path=request.rel_url.raw_path,
        sender=given.get(PEER, ""),
        receiver=given.get(MEANT, ""),
        stamp=given.get(STAMP, ""),
        nonce=given.get(NONCE, ""),
        body=await request.read(),
    )


def _question(asked: Asked, group: str) -> Question | None:
    """The question in the body, if it is one of this group and asked by the holder itself."""
    try:
        question = loads(Question, asked.body)
    except CodecError:
        return None
    return question if (question.group, question.holder) == (group, asked.sender) else None


def _signed(door: Door, asked: Asked, key: bytes, status: int, body: bytes) -> web.Response:
    answered = Answered(status, asked.sender, door.node, door.stamp(), asked.nonce, body)
    return web.Response(status=status, body=body, headers=answered.headers(key), content_type="application/json")
