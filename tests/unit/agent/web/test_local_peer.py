from __future__ import annotations

import os
import socket

import pytest

from agent.web.local_peer import find_uid, is_loopback, uid_of_peer


def connected(family: socket.AddressFamily, host: str) -> tuple[socket.socket, socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        listener.listen(1)
        client = socket.create_connection(listener.getsockname()[:2], timeout=5)
        server, _ = listener.accept()
    return client, server


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
async def test_the_kernel_says_whose_the_other_end_is(family: socket.AddressFamily, host: str) -> None:
    client, server = connected(family, host)
    with client, server:
        assert find_uid(server.getpeername()[:2], server.getsockname()[:2]) == os.getuid()
        assert await uid_of_peer(server.getpeername()[:2], server.getsockname()[:2]) == os.getuid()


def test_a_coat_of_ipv6_is_taken_off() -> None:
    client, server = connected(socket.AF_INET, "127.0.0.1")
    with client, server:
        peer, own = server.getpeername(), server.getsockname()
        assert find_uid((f"::ffff:{peer[0]}", peer[1]), (f"::ffff:{own[0]}", own[1])) == os.getuid()


def test_a_connection_that_its_owner_closed_is_nobodys() -> None:
    """The kernel shows it as user 0: whoever closes at once must not become root."""
    client, server = connected(socket.AF_INET, "127.0.0.1")
    with server:
        peer, own = server.getpeername(), server.getsockname()
        client.close()
        assert find_uid(peer, own) is None


async def test_what_is_not_there_is_nobodys() -> None:
    assert find_uid(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
    assert await uid_of_peer(("no address", 1), ("127.0.0.1", 2)) is None


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("::", False),
        ("x", False),
    ],
)
def test_loopback(host: str, is_ours: bool) -> None:
    assert is_loopback(host) is is_ours
