"""Probes: what systemd, Kubernetes, HAProxy, Traefik and keepalived ask, many times a second. Answered from memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum

from aiohttp import web

from agent.configuration.units import parse_size_bytes
from agent.reporting.serving import ServesAs
from agent.web.api import answer
from agent.web.health import Part, health_of
from agent.web.source import StatusSource
from checks.base import Status

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

LATER = frozenset({"cloudspaces", "storage", "backup"})
"""Parts of /health whose checks this version does not have."""


class Asked(StrEnum):
    """What a load balancer asks a node to be."""

    LEADER = "leader"
    REPLICA = "replica"
    SYNC = "sync"


def livez(_source: StatusSource) -> Answer:
    """The event loop turns: that it answers is the answer."""

    async def handle(_request: web.Request) -> web.Response:
        return answer({"alive": True})

    return handle


def readyz(source: StatusSource) -> Answer:
    """200 while the agent does its work."""

    async def handle(_request: web.Request) -> web.Response:
        ready, sentence = source.readiness()
        return answer({"ready": ready, "sentence": sentence}, 200 if ready else 503)

    return handle


def group_role(source: StatusSource) -> Answer:
    """200 if this node's service is what the path asks, right now; GET explains, HEAD and OPTIONS are a status only."""

    async def handle(request: web.Request) -> web.Response:
        name, asked = request.match_info["group"], _asked(request.match_info["role"])
        serves = source.serves(name)
        if serves is None:
            raise web.HTTPNotFound(text="there is no such group")
        max_lag_bytes = _max_lag_bytes(request)
        yes = _is(serves, asked, max_lag_bytes)
        if request.method != "GET":
            return web.Response(status=200 if yes else 503)
        return answer({"group": name, "asked": asked, "answer": yes, **_facts(serves, yes, max_lag_bytes)}, 200 if yes else 503)

    return handle


def _asked(role: str) -> Asked:
    try:
        return Asked(role)
    except ValueError:
        raise web.HTTPNotFound(text="expected leader, replica or sync") from None


def _max_lag_bytes(request: web.Request) -> int | None:
    written = request.query.get("lag")
    if written is None:
        return None
    try:
        return int(written) if written.isascii() and written.isdecimal() and len(written) < 20 else parse_size_bytes(written)
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"lag: {error}") from None


def _is(serves: ServesAs, asked: Asked, max_lag_bytes: int | None) -> bool:
    if asked is Asked.LEADER:
        return serves.leader
    near = max_lag_bytes is None or (serves.lag_bytes is not None and serves.lag_bytes <= max_lag_bytes)
    return near and (serves.sync if asked is Asked.SYNC else serves.replica)


def _facts(serves: ServesAs, yes: bool, max_lag_bytes: int | None) -> dict[str, object]:
    sentence = serves.sentence
    if not yes and serves.replica and max_lag_bytes is not None:
        behind = "an unknown number of" if serves.lag_bytes is None else str(serves.lag_bytes)
        sentence = f"{sentence}, {behind} bytes behind; at most {max_lag_bytes} are asked for"
    return {"sentence": sentence, "lag_bytes": serves.lag_bytes}


def health(source: StatusSource) -> Answer:
    """Healthy, degraded or unhealthy, with each check; 503 when unhealthy."""

    async def handle(request: web.Request) -> web.Response:
        found = health_of(source.status(), _part(request.match_info.get("part", Part.ALL)))
        if found is None:
            raise web.HTTPNotFound(text="nothing of this part is configured on this node")
        return answer(found, 503 if found.status is Status.UNHEALTHY else 200)

    return handle


def _part(name: str) -> Part:
    if name in LATER:
        raise web.HTTPNotFound(text=f"this version has no checks of {name}")
    try:
        return Part(name)
    except ValueError:
        raise web.HTTPNotFound(text="there is no such part of health") from None
