"""How agents prove to each other who speaks: HMAC-SHA256 with the shared key over everything that is said, both ways. No I/O.

A question is signed over method, path, who asks, who is meant, a time, a nonce and the body; an answer over its status, both names, the
question's nonce, a time and the body. The time is the RECEIVER's own: a *stamp* that it gave out with its last answer, naming its life
and its boot clock. So a wall clock that is an hour off changes nothing (faults.md 22), a recorded question is worth nothing to another
receiver, after a restart of it, after STAMP_S, or twice: within STAMP_S each nonce is taken once, and the memory for that is bounded.
Who has no stamp, or an old one, is told a fresh one in a signed answer and asks again: once after a start, once after a quiet while.
Nothing that is not signed makes this side remember anything.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import Enum, auto

from agent.clock import Clock
from agent.configuration.peer_keys import PeerKeys
from agent.instant import NANOSECONDS

STAMP_S = 20.0
"""How long a stamp is good, by the clock of whoever gave it out."""
MAX_NONCES = 4096
"""Nonces remembered within STAMP_S. Only who knows the key can fill it; then nobody is admitted before the oldest are out of date."""

PEER = "Quorate-Peer"
MEANT = "Quorate-For"
NONCE = "Quorate-Nonce"
STAMP = "Quorate-Stamp"
MAC = "Quorate-Mac"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it is signed."""

    method: str
    path: str
    sender: str
    receiver: str
    stamp: str
    nonce: str
    body: bytes

    def mac(self, key: bytes) -> str:
        return _mac(key, "question", self.method, self.path, self.sender, self.receiver, self.stamp, self.nonce, self.body)

    def headers(self, keys: PeerKeys) -> dict[str, str]:
        """What goes with it."""
        named = {PEER: self.sender, MEANT: self.receiver, NONCE: self.nonce, STAMP: self.stamp}
        return {**named, MAC: self.mac(keys.signing)}


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it is signed. `sender` is who had asked, `stamp` a fresh one of the receiver's."""

    status: int
    sender: str
    receiver: str
    stamp: str
    nonce: str
    body: bytes

    def mac(self, key: bytes) -> str:
        return _mac(key, "answer", str(self.status), self.sender, self.receiver, self.stamp, self.nonce, self.body)

    def headers(self, key: bytes) -> dict[str, str]:
        """What goes with it, signed with the key that the question was signed with."""
        return {PEER: self.receiver, STAMP: self.stamp, MAC: self.mac(key)}


def _mac(key: bytes, *parts: str | bytes) -> str:
    """Each part with its length before it: no two lists of parts look alike."""
    mac = hmac.new(key, b"quorate peers 1", hashlib.sha256)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        mac.update(b"%d:" % len(data))
        mac.update(data)
    return mac.hexdigest()


def signed_with(said: Asked | Answered, mac: str, keys: PeerKeys) -> bytes | None:
    """The key that signed it; None: none that is known. Takes as long for a wrong signature as for a right one."""
    found = None
    for key in keys.keys:
        if hmac.compare_digest(said.mac(key).encode(), mac.encode("utf-8", "surrogateescape")):
            found = key
    return found


class Verdict(Enum):
    """What the door says to a question."""

    ADMITTED = auto()
    STALE = auto()
    """Rightly signed, but its stamp is not of this life, too old, or its nonce was there before."""
    STRANGER = auto()
    """Not signed with a known key, or meant for another node."""


class Door:
    """The receiver's side: gives out stamps, and lets each signed question in once."""

    def __init__(self, node: str, keys: PeerKeys, clock: Clock) -> None:
        self.node = node
        self._keys = keys
        self._clock = clock
        self._life = clock.nonce()
        self._nonces: dict[tuple[str, str], int] = {}

    def stamp(self) -> str:
        """The time of this moment, as this node knows it."""
        return f"{self._life}-{self._clock.now().boot_ns}"

    def judge(self, asked: Asked, mac: str) -> tuple[Verdict, bytes]:
        """Whether to let the question in, and the key to sign the answer with."""
        key = signed_with(asked, mac, self._keys)
        if key is None or asked.receiver != self.node or not asked.nonce or not asked.sender:
            return Verdict.STRANGER, self._keys.signing
        now_ns, made_ns = self._clock.now().boot_ns, self._made_ns(asked.stamp)
        self._forget(now_ns)
        known, name = (asked.sender, asked.nonce) in self._nonces, (asked.sender, asked.nonce)
        if made_ns is None or not 0 <= now_ns - made_ns <= STAMP_S * NANOSECONDS or known or len(self._nonces) >= MAX_NONCES:
            return Verdict.STALE, key
        self._nonces[name] = made_ns
        return Verdict.ADMITTED, key

    def _made_ns(self, stamp: str) -> int | None:
        life, _, made_ns = stamp.partition("-")
        is_ours = life == self._life and made_ns.isascii() and made_ns.isdecimal() and len(made_ns) < 20
        return int(made_ns) if is_ours else None

    def _forget(self, now_ns: int) -> None:
        """Nonces whose stamp is out of date come in no more anyhow."""
        if len(self._nonces) >= MAX_NONCES // 2:
            self._nonces = {name: made for name, made in self._nonces.items() if now_ns - made <= STAMP_S * NANOSECONDS}
