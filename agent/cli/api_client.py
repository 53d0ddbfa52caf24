"""Asks the agents' HTTP API: the own node first, then the others, each within its deadline. Plain http.client: `status` must start fast.

Proxies of the environment are not used. A token is shown as Bearer. Nothing is asked twice of one node: a write that got no answer may have
been done, and is not sent to the next node.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from agent.cli.options import NobodyAnswered, Refused, own_node
from agent.configuration.model import ApiTls, Configuration, host_and_port
from agent.configuration.secrets import read_secret
from agent.errors import ConfigurationError, QuorateError

CONNECT_S = 2.0
ANSWER_S = 8.0
MAX_ANSWER_BYTES = 8 << 20
TOKEN_VARIABLE = "QUORATE_TOKEN"  # noqa: S105 - a variable's name

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node said."""

    node: str
    status: int
    body: bytes

    @property
    def sentence(self) -> str:
        """The sentence of an error answer."""
        try:
            said = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return f"HTTP status {self.status}"
        return str(said)


@dataclass(frozen=True, slots=True)
class ApiClient:
    """The agents of one configuration, in the order in which they are asked."""

    addresses: tuple[tuple[str, str, int], ...]
    """Node, host, port."""
    tls: ssl.SSLContext | None
    token: str | None

    def only(self, node: str) -> ApiClient:
        """The same client for this node alone."""
        return replace(self, addresses=tuple(address for address in self.addresses if address[0] == node))

    def get(self, path: str) -> Answer:
        """The first good answer. Raises Refused when an agent said no, NobodyAnswered when none could say."""
        silent: list[str] = []
        said_no: Answer | None = None
        for node, host, port in self.addresses:
            try:
                answer = self._ask(node, host, port, "GET", path, None)
            except (OSError, http.client.HTTPException) as error:
                silent.append(f"{node}: {_why(error)}")
                continue
            if answer.status == http.client.OK:
                return answer
            if answer.status < http.client.INTERNAL_SERVER_ERROR:
                said_no = said_no or answer
            else:
                silent.append(f"{node}: {answer.sentence}")
        if said_no is not None:
            raise Refused(f"{said_no.node} says: {said_no.sentence}")
        raise NobodyAnswered("no agent answers (" + "; ".join(silent) + ")")

    def post(self, path: str, body: object) -> Answer:
        """Send a write to the first node that takes the connection. Raises like `get`; after a lost answer it may have been done."""
        silent: list[str] = []
        for node, host, port in self.addresses:
            try:
                answer = self._ask(node, host, port, "POST", path, json.dumps(body).encode())
            except (ConnectionRefusedError, _NotConnected) as error:
                silent.append(f"{node}: {_why(error)}")
                continue
            except (OSError, http.client.HTTPException) as error:
                raise NobodyAnswered(f"{node} took the request and gave no answer ({_why(error)}): it may have been done") from None
            if answer.status < http.client.MULTIPLE_CHOICES:
                return answer
            if answer.status < http.client.INTERNAL_SERVER_ERROR:
                raise Refused(f"{node} says: {answer.sentence}")
            raise NobodyAnswered(f"{node} says: {answer.sentence}")
        raise NobodyAnswered("no agent answers (" + "; ".join(silent) + ")")

    def _ask(self, node: str, host: str, port: int, method: str, path: str, body: bytes | None) -> Answer:
        def ask() -> Answer:
            connection = self._connection(host, port)
            try:
                _connect(connection)
                connection.request(method, path, body, self._headers(body))
                response = connection.getresponse()
                content = response.read(MAX_ANSWER_BYTES + 1)
                if len(content) > MAX_ANSWER_BYTES:
                    raise http.client.HTTPException("its answer is too long")
                return Answer(node, response.status, content)
            finally:
                connection.close()

        return _within(ANSWER_S, ask)

    def _connection(self, host: str, port: int) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection(host, port, timeout=CONNECT_S)
        return http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=self.tls)

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = {} if body is None else {"Content-Type": "application/json"}
        return headers if self.token is None else headers | {"Authorization": f"Bearer {self.token}"}


class _NotConnected(OSError):
    """The connection was not made: nothing was sent."""


def _connect(connection: http.client.HTTPConnection) -> None:
    try:
        connection.connect()
    except OSError as error:
        raise _NotConnected(_why(error)) from None
    if connection.sock is not None:
        connection.sock.settimeout(ANSWER_S)


def _within(seconds: float, work: Callable[[], T]) -> T:
    """Do it in a thread and wait so long at most: a server that drips one byte a second must not hold anybody."""
    done: queue.Queue[tuple[T | None, Exception | None]] = queue.Queue(1)

    def run() -> None:
        try:
            done.put((work(), None))
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    assert result is not None
    return result


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'failed').replace('_', ' ').lower()}"
    if isinstance(error, TimeoutError):
        return str(error) if error.args and "within" in str(error) else "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error) or type(error).__name__


# ------------------------------------------------------------------ making one


def client_of(configuration: Configuration, first: str | None, token_file: Path | None) -> ApiClient:
    """The client of this configuration; `first`: the node that is asked first. Raises ConfigurationError for unusable files."""
    names = sorted(configuration.nodes, key=lambda name: (name != first, name))
    addresses = tuple((name, *host_and_port(configuration.nodes[name].api)) for name in names)
    tls = configuration.api.tls
    return ApiClient(addresses, None if tls is None else _trust(tls), _token(token_file))


def client_here(configuration: Configuration, node: str | None, token_file: Path | None) -> ApiClient:
    """The same; where nobody can tell which node this is, no node comes first: a desk is no node."""
    if node is not None:
        return client_of(configuration, own_node(configuration, node), token_file)
    try:
        return client_of(configuration, own_node(configuration, None), token_file)
    except ConfigurationError:
        return client_of(configuration, None, token_file)


def _token(token_file: Path | None) -> str | None:
    if token_file is not None:
        return read_secret(token_file)
    return os.environ.get(TOKEN_VARIABLE) or None


def _trust(tls: ApiTls) -> ssl.SSLContext:
    """Trust what the system trusts, the configured authority, and the agents' own certificate (it may be self-signed)."""
    context = ssl.create_default_context()
    for file in (tls.client_ca, tls.cert):
        if file is not None:
            try:
                context.load_verify_locations(file)
            except (OSError, ssl.SSLError) as error:
                raise ConfigurationError((f"api.tls: cannot read {file}: {error.strerror or 'it is no PEM file'}",)) from None
    if tls.client_ca is not None:
        try:
            context.load_cert_chain(tls.cert, tls.key)
        except (OSError, ssl.SSLError) as error:
            raise QuorateError(f"the agents want a certificate and {tls.key} cannot be used: {error.strerror or error}") from None
    return context
