from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from actions.vip_packets import (
    arp_announcements,
    arp_probe,
    arp_rival,
    mac_text,
    neighbour_announcement,
    neighbour_probe,
    neighbour_rival,
)

MAC = bytes.fromhex("020000000001")
OTHER = bytes.fromhex("020000000002")
OWN = frozenset({MAC})
VIP = IPv4Address("192.0.2.100")
VIP6 = IPv6Address("2001:db8::64")


def test_an_arp_probe_byte_by_byte() -> None:
    assert arp_probe(MAC, VIP).hex(" ", 2) == (
        "ffff ffff ffff 0200 0000 0001 0806 "  # to everybody, from us, ARP
        "0001 0800 0604 0001 "  # Ethernet, IPv4, 6 and 4 bytes, request
        "0200 0000 0001 0000 0000 "  # from our hardware, of nobody
        "0000 0000 0000 c000 0264"  # for whoever is 192.0.2.100
    )


def test_arp_announcements_byte_by_byte() -> None:
    request, reply = arp_announcements(MAC, VIP)
    head = "ffff ffff ffff 0200 0000 0001 0806 0001 0800 0604 "
    assert request.hex(" ", 2) == head + "0001 0200 0000 0001 c000 0264 0000 0000 0000 c000 0264"
    assert reply.hex(" ", 2) == head + "0002 0200 0000 0001 c000 0264 ffff ffff ffff c000 0264"


def test_a_neighbour_probe_byte_by_byte() -> None:
    assert neighbour_probe(MAC, VIP6).hex(" ", 2) == (
        "3333 ff00 0064 0200 0000 0001 86dd "
        "6000 0000 0018 3aff "  # version 6, 24 bytes, ICMPv6, hop limit 255
        "0000 0000 0000 0000 0000 0000 0000 0000 "  # from nobody
        "ff02 0000 0000 0000 0000 0001 ff00 0064 "
        "8700 4c27 0000 0000 2001 0db8 0000 0000 0000 0000 0000 0064"
    )


def test_a_neighbour_announcement_byte_by_byte() -> None:
    assert neighbour_announcement(MAC, VIP6).hex(" ", 2) == (
        "3333 0000 0001 0200 0000 0001 86dd "
        "6000 0000 0020 3aff "
        "2001 0db8 0000 0000 0000 0000 0000 0064 "
        "ff02 0000 0000 0000 0000 0000 0000 0001 "
        "8800 f864 2000 0000 2001 0db8 0000 0000 0000 0000 0000 0064 "  # override, nobody asked
        "0201 0200 0000 0001"  # our hardware
    )


def test_whoever_claims_an_address_or_probes_for_it_is_a_rival() -> None:
    request, reply = arp_announcements(OTHER, VIP)
    assert [arp_rival(frame, VIP, OWN) for frame in (request, reply, arp_probe(OTHER, VIP))] == [OTHER] * 3
    assert mac_text(OTHER) == "02:00:00:00:00:02"


@pytest.mark.parametrize(
    "frame",
    [
        *arp_announcements(MAC, VIP),
        arp_probe(MAC, VIP),
        *arp_announcements(OTHER, IPv4Address("192.0.2.101")),
        arp_probe(OTHER, IPv4Address("192.0.2.101")),
        b"",
        arp_probe(OTHER, VIP)[:41],
        arp_probe(OTHER, VIP)[:12] + b"\x08\x00" + arp_probe(OTHER, VIP)[14:],
        arp_probe(OTHER, VIP)[:14] + b"\x00\x06" + arp_probe(OTHER, VIP)[16:],
        neighbour_announcement(OTHER, VIP6),
    ],
)
def test_nobody_else_is(frame: bytes) -> None:
    assert arp_rival(frame, VIP, OWN) is None


def test_a_question_for_the_address_by_somebody_with_another_one_is_no_claim() -> None:
    asks = arp_probe(OTHER, VIP)
    asks = asks[:28] + IPv4Address("192.0.2.7").packed + asks[32:]
    assert arp_rival(asks, VIP, OWN) is None


def test_an_advertisement_by_somebody_else_is_a_rival() -> None:
    assert neighbour_rival(neighbour_announcement(OTHER, VIP6)[54:], VIP6, OWN) == OTHER
    without_option = neighbour_announcement(OTHER, VIP6)[54:78]
    assert neighbour_rival(without_option, VIP6, OWN) == bytes(6)
    other_option = without_option + b"\x01\x01" + bytes(6) + b"\x02\x01" + OTHER
    assert neighbour_rival(other_option, VIP6, OWN) == OTHER
    assert neighbour_rival(without_option + b"\x01\x00" + bytes(6), VIP6, OWN) == bytes(6)


@pytest.mark.parametrize(
    "message",
    [
        neighbour_announcement(MAC, VIP6)[54:],
        neighbour_announcement(OTHER, IPv6Address("2001:db8::65"))[54:],
        neighbour_probe(OTHER, VIP6)[54:],
        b"\x88" * 23,
        b"",
    ],
)
def test_an_own_echo_another_address_and_a_question_are_none(message: bytes) -> None:
    assert neighbour_rival(message, VIP6, OWN) is None
