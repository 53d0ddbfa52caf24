"""What agent and watchdog say to each other: one small JSON object a message, over a SOCK_SEQPACKET socket in the node's state folder.

Each request has one answer. An answer that does not come means UNKNOWN: the request may have been taken. Whatever arrives is checked field
by field before it is believed; what is wrong is answered with a sentence, and never ends the watchdog. Times are absolute, in nanoseconds
of the two clocks of deadline.py, so a message that was held up can do no harm.
"""

# No `from __future__ import annotations` here: the annotations of the messages are what their fields are checked against.

import json
import math
import os
from collections.abc import Mapping
from typing import NamedTuple, TypeVar, cast

from agent.watchdog.address import parse_address

VERSION = 1
"""The same number as agent.PROTOCOL_VERSION (a test says so); both sides refuse another one."""
SOCKET = "watchdog.sock"
LOCK = "watchdog.lock"
GROUPS = "watchdog.groups.json"
LOG = "watchdog.log"
LARGEST_REQUEST = 8192
LARGEST_ANSWER = 65536
MOST_GROUPS = 32
MOST_ADDRESSES = 16
LONGEST_BUDGET_S = 60.0


class Malformed(ValueError):
    """A message that cannot be believed. Its text is one sentence."""


# ------------------------------------------------------------------ requests


class Hello(NamedTuple):
    """Ask who answers here."""


class Register(NamedTuple):
    """Guard this service from now on: hold it, and fence it when its deadline passes. Again with the same values: harmless."""

    group: str
    data_dir: str
    uid: int
    fence_budget_s: float
    addresses: tuple[str, ...] = ()
    """`192.0.2.100/24`: taken off this host once the service is fenced. Left out of the message when there are none."""


class HandOver(NamedTuple):
    """Let the service be writable until then."""

    group: str
    epoch: int
    boot_ns: int
    raw_ns: int
    nonce: str


class Adopt(NamedTuple):
    """What is armed? For an agent that starts."""

    group: str


class FenceNow(NamedTuple):
    """Kill the service now; answered when it is proven dead, or after its fence_budget."""

    group: str


class Suspend(NamedTuple):
    """A pause of this epoch is committed: hold nothing and let no deadline pass until the next HandOver."""

    group: str
    epoch: int


class Release(NamedTuple):
    """Disarm: the service is not writable."""

    group: str


class Status(NamedTuple):
    """Everything, for people."""


Request = Hello | Register | HandOver | Adopt | FenceNow | Suspend | Release | Status

# ------------------------------------------------------------------ answers


class Greeting(NamedTuple):
    """Who answers, and on which clocks. The three sentences say which protections of its own it has: `yes`, or why not."""

    protocol: int
    pid: int
    start_ticks: int
    boot_id: str
    time_namespace: int
    memory_locked: str
    real_time: str
    oom_protected: str


class Done(NamedTuple):
    """It is so."""


class Acknowledged(NamedTuple):
    """This deadline is in force."""

    epoch: int
    boot_ns: int
    raw_ns: int
    nonce: str


class Fenced(NamedTuple):
    """How the fence ended: nothing left is the proof."""

    left: int
    killed: int


class GroupReport(NamedTuple):
    """One group. `phase`: held, armed, paused or fencing; the deadline's fields are 0 and "" when there is none."""

    group: str
    data_dir: str
    uid: int
    fence_budget_s: float
    phase: str
    epoch: int
    boot_ns: int
    raw_ns: int
    nonce: str
    highest_epoch: int
    fences: int
    last_fence_ms: float


class Report(NamedTuple):
    """All groups."""

    groups: tuple[GroupReport, ...]


class Refused(NamedTuple):
    """Nothing was changed. `reason`: a Refusal's name in lower case, or `malformed`, `busy`, `forbidden`."""

    reason: str
    sentence: str


Answer = Greeting | Done | Acknowledged | Fenced | GroupReport | Report | Refused

_REQUESTS: dict[str, type[Request]] = {
    "hello": Hello,
    "register": Register,
    "hand_over": HandOver,
    "adopt": Adopt,
    "fence_now": FenceNow,
    "suspend": Suspend,
    "release": Release,
    "status": Status,
}
_ANSWERS: dict[str, type[Answer]] = {
    "greeting": Greeting,
    "done": Done,
    "acknowledged": Acknowledged,
    "fenced": Fenced,
    "group": GroupReport,
    "report": Report,
    "refused": Refused,
}
_NAMES: dict[type, str] = {kind: name for name, kind in (*_REQUESTS.items(), *_ANSWERS.items())}
_NO_DEFAULT = object()
_Message = TypeVar("_Message", bound=Request | Answer)


def encode(message: Request | Answer) -> bytes:
    """A message as it goes over the socket."""
    return json.dumps(_plain(message), separators=(",", ":")).encode()


def decode_request(data: bytes) -> Request:
    """A request that may be acted on. Raises Malformed."""
    if len(data) > LARGEST_REQUEST:
        raise Malformed(f"the message is longer than {LARGEST_REQUEST} bytes")
    request = _decode(_load(data), _REQUESTS)
    if isinstance(request, Register):
        check_registration(request)
    return request


def decode_answer(data: bytes) -> Answer:
    """An answer. Raises Malformed."""
    return _decode(_load(data), _ANSWERS)


def check_registration(request: Register) -> None:
    """Raise Malformed unless this names a folder that a service could own. `/` is nobody's: every daemon works there."""
    path = request.data_dir
    try:
        os.fsencode(path)
    except ValueError:
        raise Malformed("data_dir cannot be a path of this system") from None
    if not path.startswith("/") or "\0" in path or not os.path.normpath(path).strip("/") or len(path) > 4095:
        raise Malformed("data_dir is no absolute path of a folder of its own")
    if not 0 < request.fence_budget_s <= LONGEST_BUDGET_S:
        raise Malformed(f"fence_budget_s is not above 0 and at most {LONGEST_BUDGET_S:g}")
    if len(request.addresses) > MOST_ADDRESSES or not all(parse_address(text) for text in request.addresses):
        raise Malformed(f"addresses are not at most {MOST_ADDRESSES} of the form 192.0.2.100/24")


def _plain(message: Request | Answer) -> dict[str, object]:
    said = {key: value for key, value in message._asdict().items() if value != message._field_defaults.get(key, _NO_DEFAULT)}
    fields: dict[str, object] = {"is": _NAMES[type(message)], **said}
    if isinstance(message, Report):
        fields["groups"] = [_plain(group) for group in message.groups]
    return fields


def _load(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("the message is no JSON") from None


def _decode(raw: object, kinds: Mapping[str, type[_Message]]) -> _Message:
    """The message named by `is`, each field checked against its annotation."""
    if not isinstance(raw, dict):
        raise Malformed("the message is no JSON object")
    name = raw.pop("is", None)
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise Malformed("the message names no verb that is known here")
    raw = {**kind._field_defaults, **raw}  # a field that came later may be missing, and is left out when it says nothing
    if raw.keys() != set(kind._fields):
        raise Malformed(f"{name} wants the fields {', '.join(kind._fields) or 'none'}")
    return cast("_Message", kind._make(_checked(key, raw[key], kind.__annotations__[key]) for key in kind._fields))


def _checked(key: str, value: object, wanted: object) -> object:
    if wanted is int and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return value
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12 and math.isfinite(value):
        return float(value)
    if wanted is str and isinstance(value, str) and (key != "group" or 0 < len(value) < 64) and len(value) < 4096:
        return value
    if wanted == tuple[str, ...] and isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return tuple(value)
    if wanted == tuple[GroupReport, ...] and isinstance(value, list):
        return tuple(_decode(group, {"group": GroupReport}) for group in value)
    raise Malformed(f"the field {key} does not hold what belongs there")
