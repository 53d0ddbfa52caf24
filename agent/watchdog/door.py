"""The watchdog's socket: who may come in, and their messages. It never waits for anybody.

At most MOST_CLIENTS; only root and our own user, as the kernel names them; an answer that a client does not take at once ends that client,
and a client that talks without pause is heard a few times a turn only.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable

from agent.watchdog.protocol import LARGEST_REQUEST, Answer, Malformed, Refused, Request, decode_request, encode

MOST_CLIENTS = 16
MESSAGES_A_TURN = 8
ACCEPT_PAUSE_S = 0.005


class Door:
    """The listening socket and its clients. `handle(client, request)` gives the answer, or None when it will come by `answer`."""

    def __init__(self, listener: socket.socket, handle: Callable[[socket.socket, Request], Answer | None]) -> None:
        self._listener = listener
        self._handle = handle
        self._clients: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def also_wake_for(self, handle: int) -> None:
        """Another readable thing that ends a wait; its bytes are thrown away."""
        os.set_blocking(handle, False)
        self._poll.register(handle, select.POLLIN)

    def wait_and_serve(self, timeout_ms: int) -> None:
        """Wait for messages, at most so long, and answer them."""
        for handle, _ in self._poll.poll(timeout_ms):
            if handle == self._listener.fileno():
                self._let_in()
            elif handle in self._clients:
                self._hear(self._clients[handle])
            else:
                _drain(handle)

    def answer(self, client: socket.socket, answer: Answer) -> None:
        """Send; drop the client if it does not read. Nothing if it is gone already."""
        if self._clients.get(client.fileno()) is client and not _send(client, answer):
            self._drop(client)

    def close(self) -> None:
        """End all connections."""
        for client in tuple(self._clients.values()):
            self._drop(client)
        self._listener.close()

    def _let_in(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            time.sleep(ACCEPT_PAUSE_S)  # out of descriptors or memory: poll would say "readable" again at once
            return
        connection.setblocking(False)  # noqa: FBT003 - socket takes it by position only
        refused = self._why_not(connection)
        if refused is not None:
            _send(connection, refused)
            connection.close()
            return
        self._clients[connection.fileno()] = connection
        self._poll.register(connection, select.POLLIN)

    def _why_not(self, connection: socket.socket) -> Refused | None:
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in {0, os.geteuid()}:
            return Refused("forbidden", f"user {uid} may not talk to the watchdog of user {os.geteuid()}")
        if len(self._clients) >= MOST_CLIENTS:
            return Refused("busy", f"{MOST_CLIENTS} clients are connected already")
        return None

    def _hear(self, client: socket.socket) -> None:
        for _ in range(MESSAGES_A_TURN):
            if client.fileno() < 0:
                return
            try:
                data, _, flags, _ = client.recvmsg(LARGEST_REQUEST)
            except BlockingIOError:
                return
            except OSError:
                data, flags = b"", 0
            if not data:
                self._drop(client)
                return
            answer = self._judge(client, data, truncated=bool(flags & socket.MSG_TRUNC))
            if answer is not None:
                self.answer(client, answer)

    def _judge(self, client: socket.socket, data: bytes, *, truncated: bool) -> Answer | None:
        if truncated:
            return Refused("malformed", f"the message is longer than {LARGEST_REQUEST} bytes")
        try:
            return self._handle(client, decode_request(data))
        except Malformed as error:
            return Refused("malformed", str(error))

    def _drop(self, client: socket.socket) -> None:
        self._poll.unregister(client)
        del self._clients[client.fileno()]
        client.close()


def _send(connection: socket.socket, answer: Answer) -> bool:
    try:
        connection.send(encode(answer), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def _drain(handle: int) -> None:
    try:
        while os.read(handle, 64):
            pass
    except OSError:
        return
