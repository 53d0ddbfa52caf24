from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from agent.watchdog import address
from agent.watchdog.address import Address, delete_message, parse_address, remove_address


@pytest.fixture(autouse=True)
def line_closed_in_the_end() -> Iterator[None]:
    """The watchdog keeps its one socket for life; a test does not."""
    yield
    if address._line.cache_info().currsize:
        address._line().close()
        address._line.cache_clear()


def test_both_families_are_read() -> None:
    assert parse_address("192.0.2.100/24") == Address(socket.AF_INET, bytes([192, 0, 2, 100]), 24)
    assert parse_address("2001:db8::64/128") == Address(socket.AF_INET6, bytes.fromhex("20010db8000000000000000000000064"), 128)


@pytest.mark.parametrize(
    "text", ["", "/", "192.0.2.100", "192.0.2.100/", "192.0.2.100/33", "2001:db8::1/129", "192.0.2/24", "x/24", "192.0.2.1/-1", "::/\u0664"]
)
def test_nothing_else_is(text: str) -> None:
    assert parse_address(text) is None


def test_the_message_byte_by_byte() -> None:
    four = delete_message(Address(socket.AF_INET, bytes([192, 0, 2, 100]), 24), 5, 9)
    assert four == struct.pack("=IHHII", 32, 21, 5, 9, 0) + struct.pack("=BBBBI", 2, 24, 0, 0, 5) + struct.pack(
        "=HH4B", 8, 2, 192, 0, 2, 100
    )
    six = delete_message(Address(socket.AF_INET6, bytes(16), 64), 5, 9)
    assert len(six) == struct.unpack_from("=I", six)[0] == 16 + 8 + 2 * 20


def test_where_it_does_not_stand_there_is_nothing_to_do() -> None:
    """Also for an ordinary user: then the kernel refuses before it looks, and says which right is missing."""
    said = remove_address("192.0.2.100/24")
    assert said == "" or "EPERM" in said
    assert remove_address("nonsense") == "nonsense is no address"


def test_a_refusal_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Line:
        def send(self, _: bytes) -> None:
            return

        def recv(self, _: int) -> bytes:
            return struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -errno.EBUSY)

    monkeypatch.setattr(address, "_line", Line)
    assert remove_address("192.0.2.100/24").endswith(": EBUSY")
