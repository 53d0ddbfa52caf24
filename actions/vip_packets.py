"""The few packets by which an address is asked for and announced on a link: ARP (RFC 826, 5227) and IPv6 neighbours (RFC 4861).

Pure: bytes in, bytes out; sockets are in vip_link. A probe asks without claiming: an ARP request from 0.0.0.0, a solicitation from `::`.
So a probe never spoils anybody's table. An announcement does the opposite on purpose: it tells every table on the link to forget whom it
knew, in both forms of ARP, because some hosts believe only requests and others only replies.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD
NEIGHBOUR_SOLICITATION = 135
NEIGHBOUR_ADVERTISEMENT = 136

_BROADCAST = b"\xff" * 6
_UNKNOWN = b"\x00" * 6
_NOBODY = b"\x00" * 4
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET_IPV4 = (1, 0x0800, 6, 4)
_REQUEST, _REPLY = 1, 2
_ICMPV6 = 58
_HOP_LIMIT = 255
"""Only neighbours may speak of neighbours: a router would have lowered it."""
_OVERRIDE = 0x20000000
_ALL_NODES = IPv6Address("ff02::1")
_SOLICITED = int(IPv6Address("ff02::1:ff00:0"))
_TARGET_LINK_ADDRESS = 2


def mac_text(mac: bytes) -> str:
    """`02:00:00:00:00:01`."""
    return mac.hex(":")


# ------------------------------------------------------------------ IPv4


def arp_probe(mac: bytes, address: IPv4Address) -> bytes:
    """Who has this address? Asked by nobody, so that nobody learns anything from the question."""
    return _arp(_REQUEST, mac, _NOBODY, _UNKNOWN, address.packed)


def arp_announcements(mac: bytes, address: IPv4Address) -> tuple[bytes, bytes]:
    """This address is here: as a request, and as a reply that nobody asked for."""
    return (
        _arp(_REQUEST, mac, address.packed, _UNKNOWN, address.packed),
        _arp(_REPLY, mac, address.packed, _BROADCAST, address.packed),
    )


def arp_rival(frame: bytes, address: IPv4Address, own: frozenset[bytes]) -> bytes | None:
    """The hardware address of somebody else who has this address, or is about to take it (a probe for it); None: it says no such thing."""
    if len(frame) < 14 + _ARP.size or frame[12:14] != struct.pack("!H", ETHERTYPE_ARP):
        return None
    *kind, _, sender_mac, sender, _, target = _ARP.unpack_from(frame, 14)
    if tuple(kind) != _ETHERNET_IPV4 or sender_mac in own:
        return None
    claims = sender == address.packed
    probes = sender == _NOBODY and target == address.packed
    return sender_mac if claims or probes else None


def _arp(operation: int, sender_mac: bytes, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    body = _ARP.pack(*_ETHERNET_IPV4, operation, sender_mac, sender, target_mac, target)
    return _ethernet(_BROADCAST, sender_mac, ETHERTYPE_ARP) + body


def _ethernet(to: bytes, sender: bytes, ethertype: int) -> bytes:
    return to + sender + struct.pack("!H", ethertype)


# ------------------------------------------------------------------ IPv6


def neighbour_probe(mac: bytes, address: IPv6Address) -> bytes:
    """Who has this address? As duplicate address detection asks it: from `::`, to the group of those whose address ends like this one."""
    group = IPv6Address(_SOLICITED | (int(address) & 0xFFFFFF))
    message = struct.pack("!BBHI", NEIGHBOUR_SOLICITATION, 0, 0, 0) + address.packed
    return _icmpv6(mac, IPv6Address("::"), group, message)


def neighbour_announcement(mac: bytes, address: IPv6Address) -> bytes:
    """This address is here, whoever had it before: an advertisement that nobody asked for, with the override flag."""
    option = struct.pack("!BB", _TARGET_LINK_ADDRESS, 1) + mac
    message = struct.pack("!BBHI", NEIGHBOUR_ADVERTISEMENT, 0, 0, _OVERRIDE) + address.packed + option
    return _icmpv6(mac, address, _ALL_NODES, message)


def neighbour_rival(message: bytes, address: IPv6Address, own: frozenset[bytes]) -> bytes | None:
    """The hardware address of somebody else who advertises this address (zeros: it does not say which); None: no such thing.

    `message` begins with the ICMPv6 header, as a raw socket hands it over.
    """
    if len(message) < 24 or message[0] != NEIGHBOUR_ADVERTISEMENT or message[8:24] != address.packed:
        return None
    mac = _link_address(message[24:])
    return None if mac in own else mac


def _link_address(options: bytes) -> bytes:
    """The target's hardware address among the options."""
    while len(options) >= 8 and options[1] > 0:
        if options[0] == _TARGET_LINK_ADDRESS:
            return options[2:8]
        options = options[8 * options[1] :]
    return _UNKNOWN


def _icmpv6(mac: bytes, source: IPv6Address, to: IPv6Address, message: bytes) -> bytes:
    """A whole frame to a multicast group."""
    checksum = _checksum(source.packed + to.packed + struct.pack("!II", len(message), _ICMPV6) + message)
    body = message[:2] + struct.pack("!H", checksum) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, _HOP_LIMIT) + source.packed + to.packed
    return _ethernet(b"\x33\x33" + to.packed[12:], mac, ETHERTYPE_IPV6) + header + body


def _checksum(data: bytes) -> int:
    """The internet's: the complement of the sum of its 16-bit words."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
