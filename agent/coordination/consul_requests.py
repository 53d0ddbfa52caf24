"""The questions that quorate asks Consul, as values: path, parameters, body, and how the answer is read. It sends nothing here.

Each function returns a `Request` that `consul_client.py` sends, with its own deadline, address, token and TLS. Nine questions of Consul's
HTTP API are all that is needed: a client library (py-consul) would cost every agent 6 MB, and the traps of its sending with it.
Must never hold a token: the sender adds it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

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


def _get(path: str, read: Callable[[Answer], T], **parameters: str | int) -> Request[T]:
    return Request("GET", _path(path, parameters), b"", Repeat.SAFE, read)


def _put(path: str, body: object, repeat: Repeat, read: Callable[[Answer], T], **parameters: str | int) -> Request[T]:
    return Request("PUT", _path(path, parameters), b"" if body is None else json.dumps(body).encode(), repeat, read)


def _path(path: str, parameters: Mapping[str, str | int]) -> str:
    return f"/v1/{quote(path, safe='/:')}" + (f"?{urlencode(parameters)}" if parameters else "")


def _json(answer: Answer) -> Any:
    """What was answered; None where there is nothing. What is read of it raises NO_ANSWER_OF_CONSUL when it is of another shape."""
    if answer.status == _NOT_FOUND:
        return None
    if not _is_done(answer):
        raise ValueError(f"status {answer.status}")
    return json.loads(answer.body)


def _list(answer: Answer) -> list[dict[str, Any]]:
    """Consul says null, or 404, for a list without anything."""
    found = _json(answer)
    if not isinstance(found, list | None):
        raise TypeError("no list")
    return found or []


def _is_done(answer: Answer) -> bool:
    return 200 <= answer.status < 300


# ------------------------------------------------------------------ keys


def list_folder(prefix: str, folder: str, index: int | None = None, wait_s: float = 0.0) -> Request[Snapshot]:
    """All entries below a folder. With `index`: answered when the folder's index is higher, or after about `wait_s`."""
    start = f"{prefix}/"
    wait: dict[str, str | int] = {} if index is None else {"index": index, "wait": f"{max(1, round(wait_s * 1000))}ms"}

    def snapshot(answer: Answer) -> Snapshot:
        entries = {str(item["Key"]).removeprefix(start): _entry(item) for item in _list(answer)}
        return Snapshot(int(answer.headers["X-Consul-Index"]), entries)

    return _get(f"kv/{start}{folder}", snapshot, **wait, recurse=1, consistent=1)


def get_key(prefix: str, key: str) -> Request[bytes | None]:
    """One key's value; None: there is none. Unlike a folder's reading it is refused to whom may not read it."""

    def value(answer: Answer) -> bytes | None:
        found = _list(answer)
        return _entry(found[0]).value if found else None

    return _get(f"kv/{prefix}/{key}", value, consistent=1)


def _entry(item: dict[str, Any]) -> Entry:
    session, value = item.get("Session"), item["Value"]
    return Entry(base64.b64decode(value) if value else b"", int(item["ModifyIndex"]), str(session) if session else None)


def transaction(prefix: str, operations: Transaction, stamp: int) -> Request[Committed | Refused]:
    """All operations or none. One of checks alone is a question, and asked with the same care as a reading.

    `stamp`: a number that no other transaction has, kept in each written key's flags. Without it Consul skips a write that changes nothing,
    the key's index stays, and a late write over that index would still succeed: a vote would come back after it was withdrawn.
    """
    body = [{"KV": _operation(prefix, each, stamp)} for each in operations]
    if not writes(operations):
        return _put("txn", body, Repeat.SAFE, _outcome, consistent=1)
    return _put("txn", body, Repeat.NEVER, _outcome)


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
    """A session without node checks and without lock delay, which ends SESSION_TTL_S to twice that after its last renewal.

    Its locks are released when it ends: that is Consul's default.
    """
    body = {"name": name, "checks": [], "lockdelay": "0s", "ttl": f"{SESSION_TTL_S}s"}
    return _put("session/create", body, Repeat.NEVER, lambda answer: str(_json(answer)["ID"]))


def destroy_session(session: str) -> Request[bool]:
    """End it; one that has ended is no error."""
    return _put(f"session/destroy/{session}", None, Repeat.SAFE, _is_done)


def renew_session(session: str) -> Request[bool]:
    """Move its end; False: it has ended."""
    return _put(f"session/renew/{session}", None, Repeat.SAFE, lambda answer: answer.status != _NOT_FOUND)


def session_exists(session: str) -> Request[bool]:
    """Whether it lives."""
    return _get(f"session/info/{session}", lambda answer: bool(_list(answer)), consistent=1)


def list_sessions() -> Request[tuple[KnownSession, ...]]:
    """All living sessions of the datacentre that the token may see."""

    def sessions(answer: Answer) -> tuple[KnownSession, ...]:
        return tuple(KnownSession(str(each["ID"]), str(each.get("Name", ""))) for each in _list(answer))

    return _get("session/list", sessions, consistent=1)


# ------------------------------------------------------------------ the servers themselves


def raft_multiplier() -> Request[int | None]:
    """How slow the answering server's elections are, as a multiple of the fastest; None: it is no server, or does not say."""

    def multiplier(answer: Answer) -> int | None:
        raw = _json(answer)
        said = str(raw.get("DebugConfig", {}).get("ConsulRaftElectionTimeout", ""))
        if not raw.get("Config", {}).get("Server") or not said.endswith("s") or not said[:-1].isdecimal():
            return None
        return int(said[:-1])

    return _get("agent/self", multiplier)
