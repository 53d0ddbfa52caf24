from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.sd_notify import notify
from tests.unit.agent.stage import swift_folder


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        channel.bind("\0" + address[1:] if address.startswith("@") else address)
        yield channel


def test_one_datagram_is_sent_to_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    with swift_folder() as folder, listening(f"{folder}/notify") as channel:
        monkeypatch.setenv("NOTIFY_SOCKET", f"{folder}/notify")
        notify("STATUS=leads für alle")
        assert channel.recv(100) == "STATUS=leads für alle".encode()
        with pytest.raises(BlockingIOError):
            channel.recv(100)


def test_and_to_an_abstract_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("@quorate-unit-notify") as channel:
        monkeypatch.setenv("NOTIFY_SOCKET", "@quorate-unit-notify")
        notify("READY=1")
        assert channel.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify", "/" + "x" * 200, "@nobody-listens-here", "relative/none"])
def test_where_nobody_listens_nothing_happens(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


def test_a_reader_that_is_slow_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("@quorate-unit-slow") as channel:
        monkeypatch.setenv("NOTIFY_SOCKET", "@quorate-unit-slow")
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for _ in range(2000):
            notify("STATUS=" + "x" * 1000)
