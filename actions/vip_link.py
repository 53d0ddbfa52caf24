"""Asking and telling a link who has an address, through raw sockets: needs CAP_NET_RAW. What is said is in vip_packets.

A probe takes PROBE_S and not more: it stands in the way of a failover. RFC 5227 would wait for seconds, because its hosts have nothing
else; here the lease has decided who may, and the probe only looks for what the lease does not know of (a stranger, a frozen host).
"""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from actions.base import ActionError
from actions.vip_packets import (
    ETHERTYPE_ARP,
    NEIGHBOUR_ADVERTISEMENT,
    arp_announcements,
    arp_probe,
    arp_rival,
    neighbour_announcement,
    neighbour_probe,
    neighbour_rival,
)

PROBES = 3
PROBE_GAP_S = 0.02
PROBE_S = 0.08
"""From the first question to the end of listening: a neighbour that is awake answers within a millisecond, one under load within tens."""

_ICMP6_FILTER = 1
_LARGEST_FRAME = 2048
_MOST_FRAMES = 64
"""Frames looked at in one listening: a storm of ARP must not hold up a failover."""

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of this host. `mac` is None where there is no such thing as a neighbour (loopback, a tunnel)."""

    index: int
    name: str
    mac: bytes | None
    own_macs: frozenset[bytes]
    """The hardware addresses of ALL interfaces of this host: one may answer for an address of another."""


def announce(link: Link, address: Address) -> None:
    """Tell every host on the link that the address is here. Takes microseconds; raises ActionError."""
    if link.mac is None:
        return
    try:
        for frame in _announcements(link.mac, address):
            _send(link, frame)
    except OSError as error:
        raise _refused(link, error) from None


def _announcements(mac: bytes, address: Address) -> tuple[bytes, ...]:
    return arp_announcements(mac, address) if isinstance(address, IPv4Address) else (neighbour_announcement(mac, address),)


async def rival_of(link: Link, address: Address) -> bytes | None:
    """Who else on the link answers for this address; None: nobody within PROBE_S. Raises ActionError when it cannot be asked."""
    if link.mac is None:
        return None
    probe = arp_probe(link.mac, address) if isinstance(address, IPv4Address) else neighbour_probe(link.mac, address)
    try:
        listener = _listener(link, address)
        asking = asyncio.create_task(_ask(link, probe))
        try:
            async with asyncio.timeout(PROBE_S):
                return await _first_rival(listener, link, address)
        except TimeoutError:
            if asking.done():  # else the link took no frame: nobody was asked
                asking.result()
            return None
        finally:
            asking.cancel()
            await asyncio.wait({asking})
            _close(listener)
    except OSError as error:
        raise _refused(link, error) from None


async def _ask(link: Link, probe: bytes) -> None:
    for _ in range(PROBES):
        _send(link, probe)
        await asyncio.sleep(PROBE_GAP_S)


async def _first_rival(listener: socket.socket, link: Link, address: Address) -> bytes | None:
    loop = asyncio.get_running_loop()
    for _ in range(_MOST_FRAMES):
        frame = await loop.sock_recv(listener, _LARGEST_FRAME)
        if isinstance(address, IPv4Address):
            rival = arp_rival(frame, address, link.own_macs)
        else:
            rival = neighbour_rival(frame, address, link.own_macs)
        if rival is not None:
            return rival
    return None


@functools.cache
def _sender() -> socket.socket:
    """For every link, and kept for the life of the process: the kernel takes 10 ms and more to close a packet socket.

    Protocol 0: it receives nothing.
    """
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)


def _send(link: Link, frame: bytes) -> None:
    _sender().sendto(frame, (link.name, 0))


def _close(listener: socket.socket) -> None:
    """Not on the event loop: see above."""
    asyncio.get_running_loop().run_in_executor(None, listener.close)


def _listener(link: Link, address: Address) -> socket.socket:
    """Hears ARP on the link; for IPv6 the advertisements alone, which go to all nodes when nobody in particular asked."""
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    if isinstance(address, IPv4Address):
        listener = socket.socket(socket.AF_PACKET, kind, 0)
    else:
        listener = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
    try:
        if isinstance(address, IPv4Address):
            listener.bind((link.name, ETHERTYPE_ARP))
        else:
            listener.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _only(NEIGHBOUR_ADVERTISEMENT))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.name.encode())
    except OSError:
        listener.close()
        raise
    return listener


def _only(wanted: int) -> bytes:
    """A filter that lets one type of ICMPv6 message through: a set bit blocks."""
    words = [0xFFFFFFFF] * 8
    words[wanted >> 5] &= ~(1 << (wanted & 31)) & 0xFFFFFFFF
    return struct.pack("8I", *words)


def _refused(link: Link, error: OSError) -> ActionError:
    right = " (that takes CAP_NET_RAW)" if isinstance(error, PermissionError) else ""
    return ActionError(f"{link.name}: no raw packets can be sent there: {error.strerror or error}{right}")
