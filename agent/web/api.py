"""/api/v1 and /metrics: the status document and its parts, history, explanation, events as they happen, and operators' intents."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from agent.decision.view import IntentKind
from agent.reporting.audit import Audit, Event, Listener, TooManyListeners
from agent.reporting.metrics import Metrics
from agent.web.source import StatusSource

WHO = web.RequestKey("who", str)
"""Who asks, as the access rules found."""

ASK_S = 5.0
"""Deadline of a question to the coordinator."""
WRITE_S = 10.0
"""A listener that takes an event for longer than this is gone."""
HEARTBEAT_S = 5.0
"""Between two lines to a listener for whom nothing happens: so a dead one is noticed."""
MAX_WHO = 120
MAX_WHY = 300

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class IntentWish(BaseModel):
    """The body of POST /api/v1/intents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: IntentKind
    group: str = Field(max_length=63)
    node: str | None = Field(default=None, max_length=63)
    who: str = Field(default="", max_length=MAX_WHO)
    """Who the asker says to be; recorded beside what is known of it."""
    why: str = Field(default="", max_length=MAX_WHY)


def answer(value: object, status: int = 200) -> web.Response:
    """A value as JSON."""
    return web.Response(status=status, body=to_json(value, inf_nan_mode="null") + b"\n", content_type="application/json")


class Edge:
    """The handlers, and the streams of events that are open."""

    def __init__(self, source: StatusSource, metrics: Metrics) -> None:
        self._source = source
        self._metrics = metrics
        self._streams: set[asyncio.Task[None]] = set()

    async def metrics(self, request: web.Request) -> web.Response:
        """For Prometheus."""
        body, content_type = self._metrics.exposition(self._source.status(), ",".join(request.headers.getall("Accept", [])))
        return web.Response(body=body, headers={"Content-Type": content_type})

    # -------------------------------------------------------------- reads

    async def status(self, _request: web.Request) -> web.Response:
        return answer(self._source.status())

    async def groups(self, _request: web.Request) -> web.Response:
        return answer(self._source.status().groups)

    async def group(self, request: web.Request) -> web.Response:
        found = self._source.status().group(request.match_info["group"])
        if found is None:
            raise _no_group()
        return answer(found)

    async def checks(self, _request: web.Request) -> web.Response:
        return answer(self._source.status().checks)

    async def explain(self, request: web.Request) -> web.Response:
        found = self._source.explain(self._group(request))
        if found is None:
            raise web.HTTPServiceUnavailable(text="nothing was decided yet")
        return answer(found)

    async def history(self, request: web.Request) -> web.Response:
        async with asyncio.timeout(ASK_S):
            return answer(await self._source.history(self._group(request)))

    async def intent(self, request: web.Request) -> web.Response:
        async with asyncio.timeout(ASK_S):
            found = await self._source.intent(self._group(request), request.match_info["identity"])
        if found is None:
            raise web.HTTPNotFound(text="there is no such intent (any more)")
        return answer(found)

    def _group(self, request: web.Request) -> str:
        name = request.match_info["group"]
        if self._source.status().group(name) is None:
            raise _no_group()
        return name

    # -------------------------------------------------------------- the one write

    async def submit(self, request: web.Request) -> web.Response:
        """Record an operator's intent, with who and why. 202: the group's leader decides about it."""
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="expected the content type application/json")
        wish = _wish(await request.read())
        group = self._source.status().group(wish.group)
        if group is None:
            raise _no_group()
        if wish.node is not None and (wish.kind is not IntentKind.SWITCHOVER or wish.node not in {m.name for m in group.members}):
            raise web.HTTPBadRequest(text=f"node: expected a member of {wish.group}, and only for a switchover")
        known, claimed = request[WHO], _plain(wish.who)
        who = f"{claimed} ({known})" if claimed else known
        async with asyncio.timeout(ASK_S):
            identity = await self._source.submit_intent(wish.kind, wish.group, wish.node, who, _plain(wish.why))
        return answer({"identity": identity, "group": wish.group}, 202)

    # -------------------------------------------------------------- events

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: first what is kept, after Last-Event-ID, then each as it happens."""
        audit = self._source.audit()
        try:
            listener = audit.listen(after=_last_seen(request, audit))
        except TooManyListeners as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None
        with listener:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
            await response.prepare(request)
            stream = asyncio.create_task(_send(response, listener, audit.life), name="events")
            self._streams.add(stream)
            try:
                await asyncio.wait({stream})
            finally:
                self._streams.discard(stream)
                stream.cancel()
            cause = None if stream.cancelled() else stream.exception()
            if isinstance(cause, TimeoutError) and request.transport is not None:
                request.transport.abort()
            elif cause is not None and not isinstance(cause, ConnectionError):
                raise cause
        return response

    async def end_streams(self, _app: web.Application) -> None:
        """The agent stops: so do all streams."""
        for stream in tuple(self._streams):
            stream.cancel()


async def _send(response: web.StreamResponse, listener: Listener, life: str) -> None:
    """Write events until the listener is gone or too slow."""
    lost = 0
    while True:
        event = await listener.next(HEARTBEAT_S)
        async with asyncio.timeout(WRITE_S):
            if listener.lost > lost:
                await response.write(b"event: events.lost\ndata: %s\n\n" % to_json({"lost": listener.lost - lost}))
                lost = listener.lost
            await response.write(b": nothing new\n\n" if event is None else b"".join(_frame(event, life)))


def _frame(event: Event, life: str) -> Iterator[bytes]:
    yield f"id: {life}:{event.number}\nevent: {event.kind.value}\ndata: ".encode()
    yield to_json(event, inf_nan_mode="null")
    yield b"\n\n"


def _last_seen(request: web.Request, audit: Audit) -> int:
    life, _, number = request.headers.get("Last-Event-ID", "").partition(":")
    return int(number) if life == audit.life and number.isascii() and number.isdecimal() and len(number) < 18 else 0


def _wish(body: bytes) -> IntentWish:
    try:
        return IntentWish.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the body"
        raise web.HTTPBadRequest(text=f"{place}: {first['msg']}") from None


def _plain(text: str) -> str:
    """A person's text on one line: it will stand in logs and terminals."""
    return _CONTROL.sub(" ", text).strip()


def _no_group() -> web.HTTPNotFound:
    return web.HTTPNotFound(text="there is no such group")
