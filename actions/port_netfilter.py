"""The packet filter's own language: nf_tables messages over a netlink socket, with nothing but the standard library.

Why not pyroute2: its batches wait for no acknowledgement of their parts, each call turns an event loop of its own, and its import costs
23 MB and 0.2 s. A port's lease is armed at each renewal, in a process that has to stay small. Why not the program `nft`: no renewal may
wait for a fork. This module must never know what a lease or a service is: only tables, chains, sets and rules of the family `inet`.

A batch is one change: all of it or nothing, in force between two packets. The kernel works it off while it is sent, so its answers are
there when the sending returns: nothing here waits for one.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

NETLINK_NETFILTER = 12
SOL_NETLINK, NETLINK_CAP_ACK = 270, 10
SUBSYSTEM = 10
BATCH_BEGIN, BATCH_END, ERROR = 0x10, 0x11, 0x02
REQUEST, ACK, EXCLUSIVE, CREATE, APPEND = 0x1, 0x4, 0x200, 0x400, 0x800
NESTED = 0x8000
FAMILY_INET = 1
LARGEST_ANSWER = 1 << 16
MOST_ANSWERS = 4096
TCP = 6
RST = 0x04

Address = IPv4Address | IPv6Address


class NetfilterError(OSError):
    """The kernel refused; nothing of the batch happened. `errno` says why."""


class Kind(IntEnum):
    """What a message asks for."""

    NEW_TABLE = 0
    GET_TABLE = 1
    DELETE_TABLE = 2
    NEW_CHAIN = 3
    GET_CHAIN = 4
    DELETE_CHAIN = 5
    NEW_RULE = 6
    DELETE_RULE = 8
    NEW_SET = 9
    DELETE_SET = 11
    NEW_ELEMENT = 12
    GET_ELEMENT = 13
    DELETE_ELEMENT = 14


class Hook(IntEnum):
    """Where a chain sits in the way of a packet."""

    INPUT = 1
    OUTPUT = 3


@dataclass(frozen=True, slots=True)
class Message:
    """One part of a batch."""

    kind: Kind
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Element:
    """An element that is alive. `left_ms`: until it expires; None: it never does."""

    left_ms: int | None


# ------------------------------------------------------------------ attributes


def _attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def _nested(kind: int, *parts: bytes) -> bytes:
    return _attribute(kind | NESTED, b"".join(parts))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode("ascii") + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">i" if value < 0 else ">I", value))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of an answer, their flags taken off."""
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += size + -size % 4


# ------------------------------------------------------------------ tables, chains, sets, elements


def new_table(table: str) -> Message:
    """Make the table unless it is there."""
    return Message(Kind.NEW_TABLE, CREATE, _text(1, table))


def delete_table(table: str) -> Message:
    """Remove the table with all that is in it."""
    return Message(Kind.DELETE_TABLE, 0, _text(1, table))


def new_chain(table: str, chain: str, hook: Hook, priority: int) -> Message:
    """Make a filter chain that accepts what none of its rules decides, unless it is there."""
    where = _nested(4, _u32(1, hook), _u32(2, priority))
    return Message(Kind.NEW_CHAIN, CREATE, _text(1, table) + _text(3, chain) + where + _u32(5, 1) + _text(7, "filter"))


def delete_chain(table: str, chain: str) -> Message:
    """Remove a chain; its rules have to be gone."""
    return Message(Kind.DELETE_CHAIN, 0, _text(1, table) + _text(3, chain))


def flush_chain(table: str, chain: str) -> Message:
    """Remove all rules of a chain."""
    return Message(Kind.DELETE_RULE, 0, _text(1, table) + _text(2, chain))


def new_port_set(table: str, name: str) -> Message:
    """Make a set of ports whose elements may expire, unless it is there."""
    timeouts, port_type, port_size = 0x10, 13, 2
    shape = _u32(3, timeouts) + _u32(4, port_type) + _u32(5, port_size) + _u32(10, 1)
    return Message(Kind.NEW_SET, CREATE, _text(1, table) + _text(2, name) + shape)


def delete_set(table: str, name: str) -> Message:
    """Remove a set; no rule may refer to it."""
    return Message(Kind.DELETE_SET, 0, _text(1, table) + _text(2, name))


def flush_set(table: str, name: str) -> Message:
    """Remove all elements of a set."""
    return Message(Kind.DELETE_ELEMENT, 0, _text(1, table) + _text(2, name))


def add_port(table: str, name: str, port: int, left_ms: int | None) -> Message:
    """Add an element that must not be there, to expire by itself after `left_ms`; None: never."""
    timeout = b"" if left_ms is None else _attribute(4, struct.pack(">Q", left_ms))
    return Message(Kind.NEW_ELEMENT, CREATE | EXCLUSIVE, _element(table, name, port, timeout))


def delete_port(table: str, name: str, port: int) -> Message:
    """Remove an element that must be there and alive."""
    return Message(Kind.DELETE_ELEMENT, 0, _element(table, name, port, b""))


def _element(table: str, name: str, port: int, more: bytes) -> bytes:
    key = _nested(1, _attribute(1, struct.pack(">H", port)))
    return _text(1, table) + _text(2, name) + _nested(3, _nested(1, key, more))


# ------------------------------------------------------------------ rules


def new_rule(table: str, chain: str, *expressions: bytes) -> Message:
    """Add a rule at the end of a chain."""
    return Message(Kind.NEW_RULE, CREATE | APPEND, _text(1, table) + _text(2, chain) + _nested(4, *expressions))


def _expression(name: str, *parts: bytes) -> bytes:
    return _nested(1, _text(1, name), _nested(2, *parts))


def _compare(value: bytes, *, equal: bool = True) -> bytes:
    return _expression("cmp", _u32(1, 1), _u32(2, 0 if equal else 1), _nested(3, _attribute(1, value)))


def _meta(key: int) -> bytes:
    return _expression("meta", _u32(1, 1), _u32(2, key))


def _payload(base: int, offset: int, size: int) -> bytes:
    return _expression("payload", _u32(1, 1), _u32(2, base), _u32(3, offset), _u32(4, size))


def tcp_port(port: int, hook: Hook) -> bytes:
    """TCP to that port (input), or from it (output)."""
    return _meta(16) + _compare(bytes([TCP])) + _payload(2, 2 if hook is Hook.INPUT else 0, 2) + _compare(struct.pack(">H", port))


def port_in_set(name: str, hook: Hook) -> bytes:
    """That port is an element of the set and alive. Stands behind `tcp_port`."""
    return _payload(2, 2 if hook is Hook.INPUT else 0, 2) + _expression("lookup", _text(1, name), _u32(2, 1))


def loopback(hook: Hook) -> bytes:
    """The packet came, or goes, over the loopback interface."""
    return _meta(6 if hook is Hook.INPUT else 7) + _compare(b"lo".ljust(16, b"\0"))


def between(peer: Address, but_not: Iterable[Address], hook: Hook) -> bytes:
    """The packet comes from `peer` (input) or goes to it (output), and its end on this host is none of `but_not`."""
    size = len(peer.packed)
    source, destination = (12, 16) if size == 4 else (8, 24)
    theirs, ours = (source, destination) if hook is Hook.INPUT else (destination, source)
    is_family = _meta(15) + _compare(bytes([socket.AF_INET if size == 4 else socket.AF_INET6]))
    excluded = (_payload(1, ours, size) + _compare(own.packed, equal=False) for own in but_not if own.version == peer.version)
    return is_family + _payload(1, theirs, size) + _compare(peer.packed) + b"".join(excluded)


def tcp_reset() -> bytes:
    """The packet says RST."""
    mask = _nested(4, _attribute(1, bytes([RST]))) + _nested(5, _attribute(1, bytes(1)))
    return _payload(2, 13, 1) + _expression("bitwise", _u32(1, 1), _u32(2, 1), _u32(3, 1), mask) + _compare(bytes([RST]))


def accept() -> bytes:
    """The packet may pass."""
    return _verdict(1)


def drop() -> bytes:
    """The packet is lost."""
    return _verdict(0)


def reject_with_reset() -> bytes:
    """The packet is lost, and its sender is told at once that the connection is no more."""
    return _expression("reject", _u32(1, 1))


def _verdict(code: int) -> bytes:
    return _expression("immediate", _u32(1, 0), _nested(2, _nested(2, _u32(1, code))))


# ------------------------------------------------------------------ asking the kernel


class Netfilter:
    """A line to the packet filter of the network namespace that it was opened in. For one thread at a time.

    The line stays open: when one is closed, the kernel first waits until all that was removed is freed (16 ms and more).
    """

    def __init__(self) -> None:
        self._link: socket.socket | None = None
        self._sequence = 0

    def change(self, messages: Sequence[Message]) -> None:
        """Do all of it at once, or nothing: NetfilterError."""
        first = self._sequence + 1
        parts = [_packed(BATCH_BEGIN, 0, first, b"", SUBSYSTEM)]
        parts += [_packed(SUBSYSTEM << 8 | m.kind, m.flags | ACK, first + n, m.body, 0) for n, m in enumerate(messages, 1)]
        self._sequence = first + len(messages) + 1
        parts.append(_packed(BATCH_END, 0, self._sequence, b"", SUBSYSTEM))
        done: set[int] = set()
        for kind, sequence, data in self._exchange(b"".join(parts), first):
            if kind == ERROR:
                _raise_for(data)
                done.add(sequence)
        if not done.issuperset(range(first + 1, self._sequence)):
            raise NetfilterError(errno.EIO, "the kernel acknowledged only a part of the batch")

    def find_element(self, table: str, name: str, port: int) -> Element | None:
        """The element, if it is there and alive. NetfilterError when it cannot be told."""
        answer = self._ask(Message(Kind.GET_ELEMENT, 0, _element(table, name, port, b"")))
        if answer is None:
            return None
        listed = dict(_attributes(answer)).get(3, b"")
        fields = dict(_attributes(dict(_attributes(listed)).get(1, b"")))
        left = fields.get(5)
        return Element(None if left is None else int.from_bytes(left, "big"))

    def count_in_table(self, table: str) -> int | None:
        """How many chains, sets and the like the table holds; None: there is no such table. NetfilterError when it cannot be told."""
        answer = self._ask(Message(Kind.GET_TABLE, 0, _text(1, table)))
        return None if answer is None else int.from_bytes(dict(_attributes(answer)).get(3, b""), "big")

    def count_rules(self, table: str, chain: str) -> int | None:
        """How many rules the chain has; None: there is no such chain. NetfilterError when it cannot be told."""
        answer = self._ask(Message(Kind.GET_CHAIN, 0, _text(1, table) + _text(3, chain)))
        return None if answer is None else int.from_bytes(dict(_attributes(answer)).get(6, b""), "big")

    def close(self) -> None:
        """End the line. What was changed stays."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _ask(self, message: Message) -> bytes | None:
        self._sequence += 1
        request = _packed(SUBSYSTEM << 8 | message.kind, message.flags, self._sequence, message.body, 0)
        for kind, _, data in self._exchange(request, self._sequence):
            if kind != ERROR:
                return data[4:]
            if -struct.unpack_from("=i", data)[0] == errno.ENOENT:
                return None
            _raise_for(data)
        raise NetfilterError(errno.EIO, "the kernel gave no answer")

    def _exchange(self, request: bytes, first: int) -> list[tuple[int, int, bytes]]:
        """Send; then each answer since sequence `first`: its kind, its sequence, what it says. Older ones were for somebody who left."""
        if self._link is None:
            self._link = _open()
        try:
            self._link.sendto(request, (0, 0))
            return [answer for data in _datagrams(self._link) for answer in _split(data) if answer[1] >= first]
        except OSError:
            self.close()
            raise


def _open() -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        link.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        link.setblocking(False)  # noqa: FBT003 - the library's own way
        link.bind((0, 0))
    except OSError:
        link.close()
        raise
    return link


def _datagrams(link: socket.socket) -> Iterator[bytes]:
    for _ in range(MOST_ANSWERS):
        try:
            yield link.recv(LARGEST_ANSWER)
        except BlockingIOError:
            return


def _packed(kind: int, flags: int, sequence: int, body: bytes, resource: int) -> bytes:
    family = FAMILY_INET if kind not in (BATCH_BEGIN, BATCH_END) else 0
    return struct.pack("=IHHII", 20 + len(body), kind, REQUEST | flags, sequence, 0) + struct.pack(">BBH", family, 0, resource) + body


def _raise_for(data: bytes) -> None:
    code = -struct.unpack_from("=i", data)[0]
    if code:
        raise NetfilterError(code, os.strerror(code))


def _split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        size, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, at)
        if size < 16:
            return
        yield kind, sequence, data[at + 16 : at + size]
        at += size + -size % 4
