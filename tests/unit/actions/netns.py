"""Two interfaces that are wired to each other, in a network of the test's own: what stands on one answers to the other."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from actions import vip_link
from tests.plugins.left_out import left_out
from tests.servers.own_network import own_network


def ip(*words: str) -> str:
    program = shutil.which("ip")
    if program is None:
        left_out("no ip: addresses of a network of the test's own", "apt-get install iproute2")
    return subprocess.run([program, *words], check=True, capture_output=True, text=True, timeout=10).stdout


@contextmanager
def wired() -> Iterator[None]:
    """`near` has 192.0.2.1/24 and 2001:db8::1/64; its neighbour `far` has nothing yet."""
    with own_network():
        ip("link", "set", "lo", "up")
        ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        for name in ("near", "far"):
            ip("link", "set", name, "up")
        ip("addr", "add", "192.0.2.1/24", "dev", "near")
        ip("addr", "add", "2001:db8::1/64", "dev", "near", "nodad")
        vip_link._sender.cache_clear()
        try:
            yield
        finally:
            if vip_link._sender.cache_info().currsize:  # a socket stays in the network that it was opened in
                vip_link._sender().close()
            vip_link._sender.cache_clear()
