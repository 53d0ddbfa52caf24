"""py-consul as what it is good at: it knows Consul's paths, parameters and answers. It sends nothing here.

Each function returns a `Request`, a plain value that `consul_client.py` sends, with its own deadline, address, token and TLS. So none of
py-consul's traps is left: no missing deadline, no token left out of a transaction, no CONSUL_HTTP_TOKEN over the configured one.
Must never hold a token: the sender adds it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote, urlencode

import consul.base  # type: ignore[import-untyped]  # py-consul has no types; what leaves this module has
from consul import ConsulException

from agent.coordination.coordinator import Committed, Entry, Operation, Refused, Snapshot, Transaction
from agent.coordination.shape import WRITE_VALUES, writes
from agent.errors import CoordinationRefused

SESSION_TTL_S = 10
"""The shortest that Consul takes; it ends a session between one and two of these after its last renewal."""
_CONFLICT = 409
_NOT_FOUND = 404

NO_ANSWER_OF_CONSUL = (ValueError, KeyError, TypeError, IndexError, AttributeError)
"""What `Request.read` raises for an answer that is none of Consul's."""

T = TypeVar("T")
U = TypeVar("U")


class Repeat(Enum):
    """Whether a question whose outcome is unknown may be asked again, at another address."""

    SAFE = auto()
    """It changes nothing, or twice is the same as once."""
    NEVER = auto()
    """Asked twice it might be done twice, or be refused because it was done."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, headers, body."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One question. `read` turns the answer into a value; it raises NO_ANSWER_OF_CONSUL for anything else."""

    method: str
    path: str
    """With its parameters."""
    body: bytes
    repeat: Repeat
    read: Callable[[Answer], T]

    def then(self, change: Callable[[T], U], repeat: Repeat | None = None) -> Request[U]:
        """The same question with another reading of its answer."""
        before = self.read
        return Request(self.method, self.path, self.body, repeat or self.repeat, lambda answer: change(before(answer)))


class _Builder(consul.base.HTTPClient):  # type: ignore[misc]  # the seam that py-consul has for other ways of sending
    """Makes a `Request` of each call that py-consul would send."""

    def get(self, callback: Any, path: str, params: Any = None, **_: Any) -> Request[Any]:
        return _request("GET", callback, path, params)

    def put(self, callback: Any, path: str, params: Any = None, data: str | bytes | None = "", **_: Any) -> Request[Any]:
        return _request("PUT", callback, path, params, data or "")

    def post(self, callback: Any, path: str, params: Any = None, data: str | bytes = "", **_: Any) -> Request[Any]:
        return _request("POST", callback, path, params, data)

    def delete(self, callback: Any, path: str, params: Any = None, data: str | bytes = "", **_: Any) -> Request[Any]:
        return _request("DELETE", callback, path, params, data)

    def close(self) -> None:
        """Nothing is open."""


class _Consul(consul.base.Consul):  # type: ignore[misc]
    def http_connect(self, *where: Any) -> _Builder:
        return _Builder(*where)


_CONSUL = _Consul(host="127.0.0.1", port=8500, scheme="http", verify=True)
"""Its address is never used."""


def _request(method: str, callback: Any, path: str, params: Any, data: str | bytes = "") -> Request[Any]:
    def read(answer: Answer) -> Any:
        try:
            return callback(consul.base.Response(answer.status, answer.headers, answer.body))
        except ConsulException as error:
            raise ValueError(str(error)) from error

    whole = quote(path, safe="/:") + (f"?{urlencode(params)}" if params else "")
    body = data if isinstance(data, bytes) else data.encode()
    return Request(method, whole, body, Repeat.SAFE if method == "GET" else Repeat.NEVER, read)


# ------------------------------------------------------------------ keys


def list_folder(prefix: str, folder: str, index: int | None = None, wait_s: float = 0.0) -> Request[Snapshot]:
    """All entries below a folder. With `index`: answered when the folder's index is higher, or after about `wait_s`."""
    start = f"{prefix}/"
    wait = f"{max(1, round(wait_s * 1000))}ms"

    def snapshot(raw: tuple[str, list[dict[str, Any]] | None]) -> Snapshot:
        entries = {str(item["Key"]).removeprefix(start): _entry(item) for item in raw[1] or ()}
        return Snapshot(int(raw[0]), entries)

    request = _CONSUL.kv.get(start + folder, index=index, wait=wait, recurse=True, consistency="consistent")
    return cast("Request[tuple[str, list[dict[str, Any]] | None]]", request).then(snapshot)


def get_key(prefix: str, key: str) -> Request[bytes | None]:
    """One key's value; None: there is none. Unlike a folder's reading it is refused to whom may not read it."""
    request = cast("Request[tuple[str, dict[str, Any] | None]]", _CONSUL.kv.get(f"{prefix}/{key}", consistency="consistent"))
    return request.then(lambda raw: None if raw[1] is None else _entry(raw[1]).value)


def _entry(item: dict[str, Any]) -> Entry:
    session = item.get("Session")
    return Entry(item["Value"] or b"", int(item["ModifyIndex"]), None if not session else str(session))


def transaction(prefix: str, operations: Transaction, stamp: int) -> Request[Committed | Refused]:
    """All operations or none. One of checks alone is a question, and asked with the same care as a reading.

    `stamp`: a number that no other transaction has, kept in each written key's flags. Without it Consul skips a write that changes nothing,
    the key's index stays, and a late write over that index would still succeed: a vote would come back after it was withdrawn.
    """
    put = cast("Request[object]", _CONSUL.txn.put([{"KV": _operation(prefix, each, stamp)} for each in operations]))
    if not writes(operations):
        return Request(put.method, f"{put.path}?consistent=1", put.body, Repeat.SAFE, _outcome)
    return Request(put.method, put.path, put.body, Repeat.NEVER, _outcome)


def _operation(prefix: str, operation: Operation, stamp: int) -> dict[str, Any]:
    raw: dict[str, Any] = {"Verb": operation.verb.value, "Key": f"{prefix}/{operation.key}"}
    if operation.verb in WRITE_VALUES:
        raw["Flags"] = stamp
    if operation.index is not None:
        raw["Index"] = operation.index
    if operation.session is not None:
        raw["Session"] = operation.session
    if operation.value is not None:
        raw["Value"] = base64.b64encode(operation.value).decode("ascii")
    return raw


def _outcome(answer: Answer) -> Committed | Refused:
    raw = json.loads(answer.body)
    if answer.status == _CONFLICT:
        first = raw["Errors"][0]
        reason = str(first["What"])
        if reason.startswith("Permission denied"):
            raise CoordinationRefused(f"Consul denies this: {reason}")
        return Refused(int(first["OpIndex"]), reason)
    return Committed(max((int(each["KV"]["ModifyIndex"]) for each in raw["Results"] or ()), default=0))


# ------------------------------------------------------------------ sessions


@dataclass(frozen=True, slots=True)
class KnownSession:
    """One living session: its id and its name."""

    identity: str
    name: str


def create_session(name: str) -> Request[str]:
    """A session without node checks and without lock delay, which ends SESSION_TTL_S to twice that after its last renewal."""
    return cast("Request[str]", _CONSUL.session.create(name, checks=[], lock_delay=0, behavior="release", ttl=SESSION_TTL_S))


def destroy_session(session: str) -> Request[bool]:
    """End it; one that has ended is no error."""
    return cast("Request[bool]", _CONSUL.session.destroy(session)).then(bool, Repeat.SAFE)


def renew_session(session: str) -> Request[bool]:
    """Move its end; False: it has ended."""
    request = cast("Request[object]", _CONSUL.session.renew(session))
    return Request(request.method, request.path, request.body, Repeat.SAFE, lambda answer: answer.status != _NOT_FOUND)


def session_exists(session: str) -> Request[bool]:
    """Whether it lives."""
    request = cast("Request[tuple[str, object]]", _CONSUL.session.info(session, consistency="consistent"))
    return request.then(lambda raw: raw[1] is not None)


def list_sessions() -> Request[tuple[KnownSession, ...]]:
    """All living sessions of the datacentre that the token may see."""
    request = cast("Request[tuple[str, list[dict[str, Any]] | None]]", _CONSUL.session.list(consistency="consistent"))
    return request.then(lambda raw: tuple(KnownSession(str(each["ID"]), str(each.get("Name", ""))) for each in raw[1] or ()))


# ------------------------------------------------------------------ the servers themselves


def raft_multiplier() -> Request[int | None]:
    """How slow the answering server's elections are, as a multiple of the fastest; None: it is no server, or does not say."""
    request = cast("Request[dict[str, Any]]", _CONSUL.agent.self())

    def multiplier(raw: dict[str, Any]) -> int | None:
        said = str(raw.get("DebugConfig", {}).get("ConsulRaftElectionTimeout", ""))
        if not raw.get("Config", {}).get("Server") or not said.endswith("s") or not said[:-1].isdecimal():
            return None
        return int(said[:-1])

    return request.then(multiplier)
