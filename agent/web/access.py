"""Who may do what over HTTP. Closed unless a rule opens it.

- PROBE (/livez, /readyz, /groups, /metrics): open on the listening address; like READ when `api.private` is set.
- READ: open to this host's own users, by loopback; a token with the role `read` from elsewhere.
- PEER: another agent, by the shared key that it signs with (peers.py); nothing else counts.
- WRITE: a token with the role `operator`, on loopback too. Only without a tokens file: loopback, and the kernel must say that the other end
  belongs to the agent's own user or to root.

Loopback is no proof when somebody else speaks through it: a request that came through a proxy (Forwarded, X-Forwarded-For, Via), or whose
Host is a foreign name (a web page that had its name point at 127.0.0.1), is treated like one from elsewhere. A browser may show its token
as the password of Basic for reads; writes take Bearer only, so that no other site's page can use what the browser remembers.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from aiohttp import web

from agent.web.local_peer import is_loopback, uid_of_peer
from agent.web.tokens import Bearer, Role, Tokens

_PROXIED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


class Need(StrEnum):
    """What a path asks of whoever comes."""

    PROBE = "probe"
    READ = "read"
    WRITE = "write"
    PEER = "peer"
    """Another agent: no token opens it; its own handler wants every question signed."""


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one agent. `tokens`: None when no file is configured. `private`: probes are reads."""

    tokens: Tokens | None = None
    private: bool = False

    async def admit(self, request: web.Request, need: Need) -> str:
        """Who it is, for the record; raises 401 or 403 with a sentence."""
        if need is Need.PROBE and not self.private:
            return "anybody"
        if need is Need.PEER:
            return "a peer"
        bearer = self._bearer(request, need)
        role = Role.OPERATOR if need is Need.WRITE else Role.READ
        if bearer is not None:
            if not bearer.may(role):
                raise web.HTTPForbidden(text=f"the token of {bearer.name} has no role {role.value}")
            return f"token {bearer.name}"
        if need is not Need.WRITE and is_from_this_host(request):
            return "this host"
        if need is Need.WRITE and self.tokens is None:
            return await _admit_owner(request)
        raise _unauthorized(need, role)

    def _bearer(self, request: web.Request, need: Need) -> Bearer | None:
        shown = _token(request, need)
        if shown is None:
            return None
        bearer = None if self.tokens is None else self.tokens.bearer_of(shown)
        if bearer is None:
            raise _unauthorized(need, Role.READ, "this token is not known")
        return bearer


def _unauthorized(need: Need, role: Role, sentence: str = "") -> web.HTTPUnauthorized:
    challenge = "Bearer" if need is Need.WRITE else 'Bearer, Basic realm="quorate: any name, the token as password"'
    return web.HTTPUnauthorized(text=sentence or f"a token with the role {role.value} is needed", headers={"WWW-Authenticate": challenge})


def _token(request: web.Request, need: Need) -> str | None:
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic" and need is not Need.WRITE:
        try:
            return base64.b64decode(rest, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return None


def is_from_this_host(request: web.Request) -> bool:
    """Whether a user of this host asks, and not somebody through a proxy or a page of another site."""
    peer = _end(request, "peername")
    if peer is None or not is_loopback(peer[0]) or any(name in request.headers for name in _PROXIED):
        return False
    return _is_own_name(request.headers.get("Host", "")) and _is_same_origin(request)


def _is_own_name(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same_origin(request: web.Request) -> bool:
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("Host")


async def _admit_owner(request: web.Request) -> str:
    """Without a tokens file: the agent's own user or root, on this host."""
    peer, own = _end(request, "peername"), _end(request, "sockname")
    if peer is None or own is None or not is_from_this_host(request):
        raise web.HTTPForbidden(text="writes from other hosts need a token; configure api.tokens_file")
    uid = await uid_of_peer(peer, own)
    if uid is None:
        raise web.HTTPForbidden(text="it cannot be told which user asks; configure api.tokens_file and show a token")
    if uid not in {0, os.geteuid()}:
        raise web.HTTPForbidden(text=f"user {uid} may not; ask as root or as the agent's user, or configure api.tokens_file")
    return f"uid {uid}"


def _end(request: web.Request, which: str) -> tuple[str, int] | None:
    address = None if request.transport is None else request.transport.get_extra_info(which)
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) and len(address) >= 2 else None
