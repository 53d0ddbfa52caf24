"""A network namespace of the test's own, around the test's own thread: what it does to the packet filter, nobody else feels.

Only the calling thread moves, and threads that it starts while it is inside. Needs root.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.plugins.left_out import left_out

CLONE_NEWNET = 0x40000000


def ruleset() -> str:
    """The packet filter as the program `nft` shows it: another reader than ours. The test is left out without it."""
    program = shutil.which("nft")
    if program is None:
        left_out("no nft: what the packet filter's own program says of our rules", "apt-get install nftables")
    return subprocess.run([program, "list", "ruleset"], check=True, capture_output=True, text=True, timeout=10).stdout


@contextmanager
def own_network() -> Iterator[None]:
    """Inside: an empty network, with no interface but a loopback that is down."""
    if os.geteuid() != 0:
        left_out("no root: the kernel's lease of a port", "run the tests as root")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            left_out(
                f"no network namespaces ({os.strerror(ctypes.get_errno())}): the kernel's lease of a port",
                "run the tests as root of the host",
            )
        try:
            yield
        finally:
            assert libc.setns(before, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(before)
