"""The HTTP edge: turns requests into questions to a StatusSource and its answers into JSON. It decides nothing.

Errors are JSON `{"error": sentence}`. Everything is bounded: connections, headers, bodies, the time of a request from its first byte to its
last (slow clients are cut off), listeners to events. Who may ask for what is in access.py.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic_core import to_json

from agent.configuration.model import ApiTls
from agent.errors import ConfigurationError, CoordinationError, CoordinationRefused, QuorateError
from agent.reporting.metrics import Metrics
from agent.web import api, page, probes
from agent.web.access import Access, Need
from agent.web.peers import PeerEdge
from agent.web.source import StatusSource

log = structlog.get_logger()

MAX_BODY_BYTES = 64 << 10
MAX_CONNECTIONS = 256
IDLE_S = 30.0
"""A connection that sends no whole request for so long is closed."""
REQUEST_S = 10.0
"""From a request's headers to the last byte of its answer; streams of events are the exception."""
HANDSHAKE_S = 5.0
SHUTDOWN_S = 1.0

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(source: StatusSource, metrics: Metrics, access: Access, peers: PeerEdge | None = None) -> web.Application:
    """The application with all its paths. `tests` and the agent start it with `serve`."""
    app = web.Application(middlewares=[_finish, _say_errors], client_max_size=MAX_BODY_BYTES)
    edge = api.Edge(source, metrics)
    peers = PeerEdge(None, {}) if peers is None else peers
    routes: tuple[tuple[str, str, Need, Answer], ...] = (
        ("GET", "/livez", Need.PROBE, probes.livez(source)),
        ("GET", "/readyz", Need.PROBE, probes.readyz(source)),
        ("GET", "/groups/{group}/{role}", Need.PROBE, probes.group_role(source)),
        ("OPTIONS", "/groups/{group}/{role}", Need.PROBE, probes.group_role(source)),
        ("GET", "/metrics", Need.PROBE, edge.metrics),
        ("GET", "/health", Need.READ, probes.health(source)),
        ("GET", "/health/{part}", Need.READ, probes.health(source)),
        ("GET", "/api/v1/status", Need.READ, edge.status),
        ("GET", "/api/v1/groups", Need.READ, edge.groups),
        ("GET", "/api/v1/groups/{group}", Need.READ, edge.group),
        ("GET", "/api/v1/checks", Need.READ, edge.checks),
        ("GET", "/api/v1/history/{group}", Need.READ, edge.history),
        ("GET", "/api/v1/explain/{group}", Need.READ, edge.explain),
        ("GET", "/api/v1/events", Need.READ, edge.events),
        ("GET", "/api/v1/intents/{group}/{identity}", Need.READ, edge.intent),
        ("POST", "/api/v1/intents", Need.WRITE, edge.submit),
        ("POST", "/api/v1/peers/{group}/promise", Need.PEER, peers.promise),
        ("GET", "/", Need.READ, page.asset("status.html")),
        ("GET", "/static/{name}", Need.READ, page.asset(None)),
    )
    for method, path, need, answer in routes:
        app.router.add_route(method, path, _guarded(access, need, answer))
        if method == "GET" and path != "/api/v1/events":
            app.router.add_route("HEAD", path, _guarded(access, need, answer))
    app.on_shutdown.append(edge.end_streams)
    return app


def _guarded(access: Access, need: Need, answer: Answer) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        request[api.WHO] = await access.admit(request, need)
        return await answer(request)

    return handle


@web.middleware
async def _say_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal and every mistake becomes a status and one sentence; a mistake of ours is logged with its traceback."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status in {401, 403} and request.method == "POST":
            log.warning("write.refused", path=request.path, peer=request.remote, sentence=error.text)
        headers = {name: value for name, value in error.headers.items() if name in {"WWW-Authenticate", "Allow"}}
        return _error(error.status, _sentence(error), headers)
    except CoordinationRefused as error:
        return _error(409, str(error))
    except (CoordinationError, TimeoutError) as error:
        return _error(503, str(error) or "the coordinator did not answer in time")
    except QuorateError as error:
        return _error(503, str(error))
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        log.exception("request.failed", path=request.path)
        return _error(500, "the agent made a mistake; its log says which")


def _sentence(error: web.HTTPException) -> str:
    known = {404: "there is nothing at this path", 405: "this method is not for this path", 413: f"more than {MAX_BODY_BYTES} bytes"}
    is_own_word = error.text is not None and not error.text.startswith(f"{error.status}:") and error.status not in {405, 413}
    return (error.text or "") if is_own_word else known.get(error.status, error.reason)


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=to_json({"error": sentence}), content_type="application/json", headers=headers)


@web.middleware
async def _finish(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Bound the whole request, its body and the reading of its answer included; add the headers that all answers have."""
    if request.path != "/api/v1/events":
        _limit(request)
    response = await handler(request)
    if not response.prepared:
        response.headers.update(_HEADERS)
    return response


def _limit(request: web.Request) -> None:
    transport, task = request.transport, asyncio.current_task()
    if transport is None or task is None:
        return
    timer = asyncio.get_running_loop().call_later(REQUEST_S, transport.abort)
    task.add_done_callback(lambda _: timer.cancel())  # the task ends when the answer is written


# ------------------------------------------------------------------ listening


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that listens. `port`: the real one, also when 0 was asked for."""

    port: int
    runner: web.AppRunner
    server: asyncio.Server

    async def close(self) -> None:
        """Take no more connections, let running requests end for a moment, close the rest."""
        self.server.close()
        await self.runner.cleanup()


async def serve(app: web.Application, host: str, port: int, tls: ApiTls | None = None) -> Serving:
    """Listen on the address. Raises QuorateError with one line when that is not possible, ConfigurationError for bad TLS files."""
    context = None if tls is None else tls_context(tls)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=IDLE_S, shutdown_timeout=SHUTDOWN_S, lingering_time=1.0)
    await runner.setup()
    handlers = runner.server
    assert handlers is not None

    def accept() -> asyncio.BaseProtocol:
        return handlers() if len(handlers.connections) < MAX_CONNECTIONS else _Refusing()

    try:
        server = await asyncio.get_running_loop().create_server(
            accept, host, port, ssl=context, ssl_handshake_timeout=HANDSHAKE_S if context else None
        )
    except OSError as error:
        await runner.cleanup()
        raise QuorateError(_cannot_listen(host, port, error)) from None
    bound: int = server.sockets[0].getsockname()[1]
    return Serving(bound, runner, server)


class _Refusing(asyncio.Protocol):
    """One connection too many: closed before a byte is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: "another program (another agent?) has this port",
        errno.EADDRNOTAVAIL: "this host has no such address",
        errno.EACCES: "ports below 1024 need a privilege",
    }
    return f"cannot listen on {host} port {port}: {reasons.get(error.errno or 0) or error.strerror or error}"


def tls_context(tls: ApiTls) -> ssl.SSLContext:
    """The server's side of TLS. Raises ConfigurationError with one line that names the file."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError((f"api.tls: cannot use {tls.cert} with {tls.key}: {_short(error)}",)) from None
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError((f"api.tls.client_ca: cannot use {tls.client_ca}: {_short(error)}",)) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _short(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else "it is no PEM file"
    return error.strerror or "the system refused"
