"""Hosts, links and cuts do what they say, side by side with another lab, and leave nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.network import FOLDER_PREFIX, Host, LabFailed, Network, why_impossible
from tests.plugins.left_out import left_out
from tests.polling import eventually

PORT = 7000
SERVE = f"""
import socket
server = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    client, _ = server.accept()
    client.sendall(b"hello")
    import threading
    def echo(client=client):
        while data := client.recv(100):
            client.sendall(data)
    threading.Thread(target=echo, daemon=True).start()
"""
ASK = f"""
import socket, sys
with socket.create_connection((sys.argv[1], {PORT}), timeout=0.3) as wire:
    sys.exit(wire.recv(100) != b"hello")
"""
TALK = f"""
import socket, sys
wire = socket.create_connection((sys.argv[1], {PORT}), timeout=1)
wire.recv(100)
wire.settimeout(0.3)
for line in sys.stdin:
    try:
        wire.sendall(b"x")
        print(wire.recv(100).decode(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.fixture
def network() -> Iterator[Network]:
    if why := why_impossible():
        left_out(why, "run as root on Linux with iproute2 and nftables")
    with Network() as network:
        for number, name in enumerate(("h1", "h2", "h3"), start=11):
            network.add(name, number)
        yield network


def serve(host: Host, folder: Path) -> None:
    host.keep("server", [sys.executable, "-c", SERVE], folder / "server.log")


def reaches(source: Host, address: str) -> bool:
    return source.run([sys.executable, "-c", ASK, address]).returncode == 0


def test_hosts_reach_one_another_by_both_families(network: Network) -> None:
    h1, h2 = network.hosts["h1"], network.hosts["h2"]
    serve(h2, network.folder)
    eventually(lambda: reaches(h1, "192.0.2.12"), 5, "IPv4")
    assert reaches(h1, "2001:db8::12")


def test_a_cut_stops_what_is_open_and_what_is_new_and_nothing_else(network: Network) -> None:
    h1, h2, h3 = network.hosts.values()
    serve(h2, network.folder)
    eventually(lambda: reaches(h1, h2.address), 5, "before the cut")
    talk = h1.popen([sys.executable, "-c", TALK, h2.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with talk:
        assert talk.stdin is not None
        assert talk.stdout is not None

        def say() -> str:
            print("x", file=talk.stdin, flush=True)
            return talk.stdout.readline().strip()  # type: ignore[union-attr]

        assert say() == "x"
        network.partition(["h2"], ["h1"])
        assert say() == "TimeoutError"
        assert not reaches(h1, h2.address)
        assert not reaches(h1, h2.address6)
        assert reaches(h3, h2.address)
        network.heal()
        assert reaches(h1, h2.address)
        talk.stdin.close()


def test_a_link_that_is_down_is_like_a_cable_pulled(network: Network) -> None:
    h1, h2 = network.hosts["h1"], network.hosts["h2"]
    serve(h2, network.folder)
    eventually(lambda: reaches(h1, h2.address), 5, "before")
    network.link("h2", up=False)
    assert not reaches(h1, h2.address)
    assert "NO-CARRIER" in h2.run(["ip", "link", "show", "eth0"]).stdout
    network.link("h2", up=True)
    eventually(lambda: reaches(h1, h2.address), 5, "afterwards")
    assert reaches(h1, h2.address6), "an interface that loses its carrier keeps its IPv6 address"


def test_a_crashed_host_is_silent_and_comes_back_as_another_boot(network: Network) -> None:
    h1, h2 = network.hosts["h1"], network.hosts["h2"]
    serve(h2, network.folder)
    eventually(lambda: reaches(h1, h2.address), 5, "before")
    pids = h2.processes()
    assert len(pids) >= 2
    first = h2.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    h2.crash()
    assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids)
    assert not reaches(h1, h2.address)
    h2.boot()
    second = h2.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    assert first != second
    assert len(first) == len(second) == 37
    assert Path("/proc/sys/kernel/random/boot_id").read_text() not in (first, second)
    assert h2.processes() == (h2.space.pid,), "nothing starts by itself"
    serve(h2, network.folder)
    eventually(lambda: reaches(h1, h2.address), 5, "afterwards")


def test_a_unit_is_started_again_and_a_held_one_is_not(network: Network) -> None:
    h1 = network.hosts["h1"]
    log = network.folder / "log"
    h1.keep("unit", ["bash", "-c", 'echo "begun $WORD"; exec sleep 1000'], log, {"WORD": "here"})
    eventually(lambda: log.exists() and log.read_text() == "begun here\n", 5, "started")
    h1.signal("unit", signal.SIGKILL)
    eventually(lambda: log.read_text() == "begun here\n" * 2, 5, "started again")
    h1.signal("unit", signal.SIGSTOP)
    h1.hold("unit", signal.SIGTERM)
    eventually(lambda: h1.processes() == (h1.space.pid,), 5, "held")


def test_two_labs_side_by_side_do_not_meet(network: Network) -> None:
    with Network() as other:
        stranger = other.add("h1", 11)
        serve(network.hosts["h2"], network.folder)
        eventually(lambda: reaches(network.hosts["h1"], "192.0.2.12"), 5, "the own lab")
        assert not reaches(stranger, "192.0.2.12")
        assert stranger.netns != network.hosts["h1"].netns


def test_an_unknown_host_is_one_clear_line(network: Network) -> None:
    with pytest.raises(LabFailed, match="no such host: h9"):
        network.partition(["h1"], ["h9"])


KILLED = """
import signal, sys, time
from tests.lab.network import Network
signal.signal(signal.SIGINT, signal.default_int_handler)
network = Network()
host = network.add("h1", 11)
host.keep("unit", ["bash", "-c", "setsid sleep 60 & wait"], network.folder / "log")
print(network.folder, *host.processes(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_lab_that_is_killed_leaves_nothing(network: Network, number: signal.Signals) -> None:
    del network  # it proves that labs are possible here
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[2]) as lab:
        assert lab.stdout is not None
        folder, *pids = lab.stdout.readline().split()
        assert len(pids) >= 2
        lab.send_signal(number)
    eventually(lambda: not any(_lives(int(pid)) for pid in pids), 5, "its processes are gone")
    with Network():
        assert not Path(folder).exists(), "the next lab sweeps the folder"


def test_nothing_is_left_in_the_root_namespace(network: Network) -> None:
    links = [name for _, name in socket.if_nameindex()]
    folder = network.folder
    network.close()
    network.close()
    assert [name for _, name in socket.if_nameindex()] == links
    assert not folder.exists()
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    assert not list(Path("/tmp").glob(f"{FOLDER_PREFIX}{os.getpid()}-*"))


SEGMENT = """
import ctypes
print(ctypes.CDLL(None).shmget(0x51AB0001, 4096, 0o1600))
"""


def test_shared_memory_of_a_host_goes_with_it(network: Network) -> None:
    h1 = network.hosts["h1"]
    made = h1.run([sys.executable, "-c", SEGMENT])
    assert int(made.stdout) >= 0, made.stderr
    assert str(0x51AB0001) in h1.run(["cat", "/proc/sysvipc/shm"]).stdout
    assert str(0x51AB0001) not in Path("/proc/sysvipc/shm").read_text()
    h1.crash()
    h1.boot()
    assert str(0x51AB0001) not in h1.run(["cat", "/proc/sysvipc/shm"]).stdout


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
