"""The status page: three fixed files beside this one, without a build step and without the internet. Data comes in by /api/v1/status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files

from aiohttp import web

ASSETS = {"status.html": "text/html", "status.js": "text/javascript", "status.css": "text/css"}
"""The files that may be asked for, and nothing else: no path of a request ever reaches the disk."""


@cache
def _content(name: str) -> bytes:
    return files("agent.web").joinpath("static", name).read_bytes()


def asset(fixed: str | None) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """One file of the page; None: the one that the path names."""

    async def handle(request: web.Request) -> web.Response:
        name = fixed or request.match_info["name"]
        if name not in ASSETS:
            raise web.HTTPNotFound(text="there is nothing at this path")
        return web.Response(body=_content(name), content_type=ASSETS[name], charset="utf-8")

    return handle
