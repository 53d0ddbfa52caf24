"""Taking an address off this host, without the network, without a program: one netlink message an interface.

The kernel is asked to remove the address from EVERY interface, because whoever put it there may have chosen another one than the agent
would; where it does not stand the kernel says so, and that is well. The socket is opened once and kept: a machine whose file table is full
must not keep the address up. Needs CAP_NET_ADMIN; without it the address falls by the lifetime that the agent gave it.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
from typing import NamedTuple

RTM_DELADDR = 21
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR = 2
IFA_ADDRESS, IFA_LOCAL = 1, 2
LARGEST_ANSWER = 65536
HARMLESS = (0, errno.EADDRNOTAVAIL, errno.ENODEV)
_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_PREFIXES = {socket.AF_INET: 32, socket.AF_INET6: 128}


class Address(NamedTuple):
    """An address of a family with its prefix, as the kernel takes it."""

    family: int
    packed: bytes
    prefix: int


def parse_address(text: str) -> Address | None:
    """`192.0.2.100/24` or `2001:db8::64/64`; None: it is none."""
    host, slash, length = text.partition("/")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        packed = socket.inet_pton(family, host)
    except (OSError, ValueError):
        return None
    if not slash or not (length.isascii() and length.isdigit()) or int(length) > _PREFIXES[family]:
        return None
    return Address(family, packed, int(length))


def delete_message(address: Address, index: int, number: int) -> bytes:
    """Ask the kernel to take it off one interface, and to answer."""
    size = _ATTRIBUTE.size + len(address.packed)
    # of IPv4 the local address alone: with IFA_ADDRESS the kernel would want the very prefix that whoever added it chose
    kinds = (IFA_LOCAL,) if address.family == socket.AF_INET else (IFA_LOCAL, IFA_ADDRESS)
    body = _ADDRESS.pack(address.family, address.prefix, 0, 0, index)
    body += b"".join(_ATTRIBUTE.pack(size, kind) + address.packed for kind in kinds)
    return _HEADER.pack(_HEADER.size + len(body), RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK, number, 0) + body


def remove_address(text: str) -> str:
    """Take it off every interface; never waits. What the kernel refused, as a sentence; empty: it stands nowhere here any more."""
    address = parse_address(text)
    if address is None:
        return f"{text} is no address"
    refused = ""
    try:
        line = _line()
        for index, name in socket.if_nameindex():
            line.send(delete_message(address, index, index))
            code = _answer(line.recv(LARGEST_ANSWER))
            if code not in HARMLESS:
                refused = f"{text} was not taken off {name}: {errno.errorcode.get(code, code)}"
    except OSError as error:
        return f"{text} was not taken off: {error.strerror}"
    return refused


def _answer(data: bytes) -> int:
    """The kernel's error number; 0: done. Each request has one answer, at once."""
    _, kind, _, _, _ = _HEADER.unpack_from(data)
    return -struct.unpack_from("=i", data, _HEADER.size)[0] if kind == NLMSG_ERROR else errno.EPROTO


@functools.cache
def _line() -> socket.socket:
    line = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    line.bind((0, 0))
    return line
