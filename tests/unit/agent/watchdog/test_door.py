"""The socket: nobody makes it wait, nobody makes it fall."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.watchdog import door as module
from agent.watchdog.door import MOST_CLIENTS, Door
from agent.watchdog.protocol import (
    LARGEST_REQUEST,
    Adopt,
    Answer,
    Done,
    Fenced,
    FenceNow,
    Refused,
    Report,
    Request,
    Status,
    decode_answer,
    encode,
)
from tests.plugins.left_out import left_out


class House:
    """A door, what came in through it, and clients."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.path = str(folder / "s")
        self.stack = stack
        self.heard: list[tuple[socket.socket, Request]] = []
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        listener.bind(self.path)
        listener.listen(64)
        self.door = Door(listener, self.handle)
        stack.callback(self.door.close)

    def handle(self, client: socket.socket, request: Request) -> Answer | None:
        self.heard.append((client, request))
        return None if isinstance(request, FenceNow) else Done()

    def client(self) -> socket.socket:
        connection = self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        connection.connect(self.path)
        connection.settimeout(0)
        return connection

    def serve(self, turns: int = 5) -> None:
        for _ in range(turns):
            self.door.wait_and_serve(0)

    def ask(self, client: socket.socket, data: bytes) -> Answer:
        client.send(data)
        self.serve()
        return decode_answer(client.recv(100_000))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with ExitStack() as stack:
        yield House(tmp_path, stack)


def test_a_request_is_answered(house: House) -> None:
    assert house.ask(house.client(), encode(Adopt("g"))) == Done()
    assert [request for _, request in house.heard] == [Adopt("g")]


def test_an_answer_may_come_later_and_only_to_who_asked(house: House) -> None:
    first, second = house.client(), house.client()
    first.send(encode(FenceNow("g")))
    house.serve()
    with pytest.raises(BlockingIOError):
        first.recv(100)
    asker = house.heard[0][0]
    house.door.answer(asker, Fenced(0, 3))
    assert decode_answer(first.recv(100)) == Fenced(0, 3)
    first.close()
    house.serve()
    third = house.client()
    house.serve()
    house.door.answer(asker, Fenced(0, 3))  # it is gone; its number may be another client's by now
    for client in (second, third):
        with pytest.raises(BlockingIOError):
            client.recv(100)


def test_nonsense_is_answered_with_a_sentence_and_the_talk_goes_on(house: House) -> None:
    client = house.client()
    assert house.ask(client, b"\0\1") == Refused("malformed", "the message is no JSON")
    answer = house.ask(client, b"x" * (LARGEST_REQUEST + 1))
    assert answer == Refused("malformed", f"the message is longer than {LARGEST_REQUEST} bytes")
    assert house.ask(client, encode(Status())) == Done()


@given(data=st.binary(min_size=1, max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_random_bytes_are_refused(house: House, data: bytes) -> None:
    client = house.client()
    answer = house.ask(client, data)
    client.close()
    house.serve()
    assert isinstance(answer, Refused)


def test_a_client_that_does_not_read_is_dropped(house: House) -> None:
    deaf = house.client()
    deaf.send(encode(FenceNow("g")))
    house.serve()
    asker = house.heard[0][0]
    began = time.monotonic()
    for _ in range(5000):
        house.door.answer(asker, Report(()))
        if asker.fileno() < 0:
            break
    assert asker.fileno() < 0
    assert time.monotonic() - began < 5
    assert house.ask(house.client(), encode(Status())) == Done()


def test_a_client_that_talks_without_pause_lets_others_in(house: House) -> None:
    chatty = house.client()
    while True:
        try:
            chatty.send(encode(FenceNow("g")))
        except BlockingIOError:
            break
    house.serve(1)
    house.door.wait_and_serve(0)
    assert len(house.heard) == module.MESSAGES_A_TURN
    assert house.ask(house.client(), encode(Status())) == Done()


def test_there_is_an_end_to_clients(house: House) -> None:
    clients = [house.client() for _ in range(MOST_CLIENTS)]
    house.serve(MOST_CLIENTS)
    one_more = house.client()
    house.serve()
    assert decode_answer(one_more.recv(1000)) == Refused("busy", f"{MOST_CLIENTS} clients are connected already")
    assert one_more.recv(1000) == b""
    clients[0].close()
    house.serve()
    assert house.ask(house.client(), encode(Status())) == Done()


def test_another_user_is_turned_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = house.client()
    real = struct.unpack
    monkeypatch.setattr(struct, "unpack", lambda form, data: (1, 4242, 1) if form == "3i" else real(form, data))
    house.serve()
    monkeypatch.undo()
    assert decode_answer(stranger.recv(1000)) == Refused("forbidden", f"user 4242 may not talk to the watchdog of user {os.geteuid()}")


def test_the_kernel_says_who_comes() -> None:
    if os.geteuid() != 0:
        left_out("no root: whether the kernel names another user at the watchdog's socket", "run the tests as root")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        folder.chmod(0o755)
        house = House(folder, stack)
        Path(house.path).chmod(0o777)  # by its mode alone it would be kept out
        _comes_as_nobody(house)


def _comes_as_nobody(house: House) -> None:
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            client.connect(house.path)
            os._exit(0 if b"forbidden" in client.recv(1000) else 2)
        finally:
            os._exit(3)
    end = time.monotonic() + 10
    done, status = 0, 0
    while not done and time.monotonic() < end:
        house.serve(1)
        done, status = os.waitpid(child, os.WNOHANG)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_wake_up_ends_the_wait(house: House) -> None:
    read, write = os.pipe()
    house.door.also_wake_for(read)
    os.write(write, b"!" * 100)
    began = time.monotonic()
    house.door.wait_and_serve(5000)
    house.door.wait_and_serve(0)
    assert time.monotonic() - began < 1
    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("error", [BlockingIOError(11, "again"), OSError(24, "too many open files")])
def test_a_door_that_cannot_open_goes_on(house: House, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    class Broken:
        def __init__(self, real: socket.socket) -> None:
            self.fileno: Callable[[], int] = real.fileno

        def accept(self) -> None:
            raise error

    client = house.client()
    with monkeypatch.context() as broken:
        broken.setattr(house.door, "_listener", Broken(house.door._listener))
        house.serve()
    assert house.ask(client, encode(Status())) == Done()
