from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from actions.base import ActionError
from actions.vip_link import Link, announce, rival_of
from actions.vip_packets import arp_announcements, neighbour_announcement
from tests.unit.actions.netns import wired

MAC, OTHER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
VIP, VIP6 = IPv4Address("192.0.2.100"), IPv6Address("2001:db8::64")
NEAR = Link(2, "near", MAC, frozenset({MAC}))
NOWHERE = Link(9, "nowhere", MAC, frozenset({MAC}))
TUNNEL = Link(1, "lo", None, frozenset())


@pytest.fixture
def far() -> Iterator[socket.socket]:
    """Hears and says whatever it likes at the other end of the wire."""
    with wired(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(3)) as raw:
        raw.bind(("far", 3))
        yield raw


async def heard(far: socket.socket, frame: bytes) -> None:
    async with asyncio.timeout(5):
        while await asyncio.get_running_loop().sock_recv(far, 2048) != frame:
            pass


async def test_an_announcement_is_heard_at_the_other_end(far: socket.socket) -> None:
    announce(NEAR, VIP)
    for frame in arp_announcements(MAC, VIP):
        await heard(far, frame)
    announce(NEAR, VIP6)
    await heard(far, neighbour_announcement(MAC, VIP6))


async def test_whoever_answers_is_the_rival(far: socket.socket) -> None:
    async def answer(frame: bytes, marker: bytes) -> None:
        async with asyncio.timeout(5):
            while marker not in await asyncio.get_running_loop().sock_recv(far, 2048):
                pass
        far.send(frame)

    asking = asyncio.create_task(answer(arp_announcements(OTHER, VIP)[1], VIP.packed))
    assert await rival_of(NEAR, VIP) == OTHER
    await asking
    asking = asyncio.create_task(answer(neighbour_announcement(OTHER, VIP6), b"\x87\x00"))
    assert await rival_of(NEAR, VIP6) == OTHER
    await asking


@pytest.mark.usefixtures("far")
async def test_silence_is_nobody_and_a_link_without_neighbours_is_not_asked() -> None:
    assert await rival_of(NEAR, VIP) is None
    assert await rival_of(NEAR, VIP6) is None
    assert await rival_of(TUNNEL, VIP) is None
    announce(TUNNEL, VIP)


async def test_a_storm_does_not_hold_it_up(far: socket.socket) -> None:
    async def storm() -> None:
        for _ in range(10_000):
            with_another = arp_announcements(OTHER, IPv4Address("192.0.2.7"))[0]
            far.send(with_another)
            await asyncio.sleep(0)

    storming = asyncio.create_task(storm())
    async with asyncio.timeout(2):
        assert await rival_of(NEAR, VIP) is None
    storming.cancel()


@pytest.mark.usefixtures("far")
async def test_a_link_that_is_not_there_is_said() -> None:
    with pytest.raises(ActionError, match="nowhere: no raw packets can be sent there"):
        announce(NOWHERE, VIP)
    for address in (VIP, VIP6):
        with pytest.raises(ActionError, match="nowhere"):
            await rival_of(NOWHERE, address)
