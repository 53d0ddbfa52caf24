"""Tells systemd how the agent is: one datagram. Without NOTIFY_SOCKET it does nothing; it never raises and never waits."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send `state`, such as `READY=1` or `STATUS=…`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
