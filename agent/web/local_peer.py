"""Which user of this host is at the other end of a loopback connection: the kernel knows, and tells it in /proc/net/tcp.

Without a tokens file this is all that stands before a write, so it never guesses: whatever it cannot tell is None.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from pathlib import Path

TIMEOUT_S = 2.0
IPV6 = 6
STATE, UID, INODE = 3, 7, 9
"""Columns of the kernel's table."""
ESTABLISHED = "01"

Address = tuple[str, int]


async def uid_of_peer(peer: Address, own: Address) -> int | None:
    """The user who owns the connection's other end, as this process sees users; None when nobody can tell."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await asyncio.to_thread(find_uid, peer, own)
    except (OSError, ValueError, TimeoutError):
        return None


def find_uid(peer: Address, own: Address) -> int | None:
    """Look the connection up: the row whose local end is `peer` and whose remote end is `own`. Raises OSError and ValueError.

    Only an established connection with a socket behind it counts: the kernel shows one that its owner has closed as user 0.
    """
    ends = (_plain(peer[0]), _plain(own[0]))
    table = "/proc/net/tcp6" if ends[0].version == IPV6 else "/proc/net/tcp"
    wanted = (_in_hex(ends[0], peer[1]), _in_hex(ends[1], own[1]))
    with Path(table).open(encoding="ascii") as rows:
        for row in rows:
            columns = row.split()
            if len(columns) > INODE and (columns[1], columns[2]) == wanted:
                is_owned = columns[STATE] == ESTABLISHED and columns[INODE] != "0"
                return int(columns[UID]) if is_owned else None
    return None


def is_loopback(host: str) -> bool:
    """Whether the address can only be of this host."""
    try:
        return _plain(host).is_loopback
    except ValueError:
        return False


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address; an IPv4 one that wears an IPv6 coat without it."""
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _in_hex(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    """The address as the kernel writes it: words of four bytes in the machine's own order."""
    words = struct.unpack(f"={len(address.packed) // 4}I", address.packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
