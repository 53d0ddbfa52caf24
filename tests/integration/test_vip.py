"""A VIP between two hosts and a client: who gets its packets, and when. Hosts are namespaces of the lab; the addresses are theirs alone."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from tests.lab.network import ROOT, Host, Network, why_impossible
from tests.plugins.left_out import left_out
from tests.polling import eventually

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "agents" / "vip_hand.py"
FOUR, SIX = "192.0.2.100/24", "2001:db8::64/64"
BOTH = pytest.mark.parametrize("vip", [FOUR, SIX], ids=["ipv4", "ipv6"])
KNOCK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=0.8)
except ConnectionRefusedError:
    print("refused")
except OSError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    why = why_impossible()
    if why is not None:
        left_out(f"a VIP between hosts: {why}", "run the tests as root of a host with nft")
    with Network() as made:
        yield made


class Hand:
    """A process on a host that does what it is told to one VIP, a line each; each line has one answer."""

    def __init__(self, host: Host, vip: str) -> None:
        self.host = host
        command = [sys.executable, str(PROGRAM), vip]
        self.process: Popen[str] = host.popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT)
        self.vip = vip

    def do(self, order: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def has_it(self) -> bool:
        return self.vip.partition("/")[0] + "/" in self.host.run(["ip", "-o", "addr", "show"]).stdout

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def hosts(network: Network) -> tuple[Host, Host, Host]:
    return network.add("h1", 11), network.add("h2", 12), network.add("client", 13)


@pytest.fixture(scope="module")
def all_hands(hosts: tuple[Host, Host, Host]) -> Iterator[dict[str, tuple[Hand, Hand]]]:
    made = {vip: (Hand(hosts[0], vip), Hand(hosts[1], vip)) for vip in (FOUR, SIX)}
    try:
        for hand in (each for pair in made.values() for each in pair):
            assert hand.do("probe") == "nobody"  # once, so that everything is imported and the links are up
        yield made
    finally:
        for hand in (each for pair in made.values() for each in pair):
            hand.end()


@pytest.fixture
def hands(hosts: tuple[Host, Host, Host], all_hands: dict[str, tuple[Hand, Hand]], vip: str) -> Iterator[tuple[Hand, Hand, Host]]:
    """The address is nowhere, before and after."""
    one, two = all_hands[vip]
    yield one, two, hosts[2]
    for hand in (one, two):
        hand.process.send_signal(signal.SIGCONT)
        assert hand.do("drop") == "done"
    hosts[2].run(["ip", "neigh", "flush", "all"])


def is_reached(client: Host, vip: str) -> bool:
    """One packet (nobody listens on that port), one refusal. A second one would be sent after a second."""
    return client.run([sys.executable, "-I", "-S", "-c", KNOCK, vip.partition("/")[0]]).stdout.strip() == "refused"


def who_answers(client: Host, vip: str) -> str:
    """The hardware address that the client has for the address, after one packet."""
    assert is_reached(client, vip)
    found = client.run(["ip", "neigh", "show", vip.partition("/")[0]]).stdout.split()
    return found[found.index("lladdr") + 1]


@BOTH
def test_the_clients_next_packet_goes_to_the_new_host(hands: tuple[Hand, Hand, Host], vip: str) -> None:
    one, two, client = hands
    assert one.do("raise 5") == "done"
    first = who_answers(client, vip)
    assert one.do("drop") == "done"
    assert two.do("raise 5") == "done"
    assert who_answers(client, vip) != first


@BOTH
def test_without_an_announcement_it_would_not(hands: tuple[Hand, Hand, Host], vip: str) -> None:
    """That the test above can fail: the same move in silence, and the client goes on talking to nobody."""
    one, two, client = hands
    assert one.do("raise 5") == "done"
    assert is_reached(client, vip)
    assert one.do("drop") == "done"
    two.host.run(["ip", "addr", "add", vip, "dev", _interface(two.host), *(["nodad"] if vip == SIX else [])])
    assert not is_reached(client, vip)
    assert two.do("announce") == "done"
    assert is_reached(client, vip)


@BOTH
def test_it_vanishes_when_nobody_renews_it(hands: tuple[Hand, Hand, Host], vip: str) -> None:
    one, _, client = hands
    assert one.do("raise 1.2") == "done"
    began = time.monotonic()
    one.process.send_signal(signal.SIGSTOP)
    assert is_reached(client, vip)
    eventually(lambda: not one.has_it(), 5, "the kernel took it away")
    assert 1.2 <= time.monotonic() - began <= 4
    assert not is_reached(client, vip)


@BOTH
def test_renewed_it_stays_and_a_vanished_one_is_not_brought_back(hands: tuple[Hand, Hand, Host], vip: str) -> None:
    one, _, _ = hands
    assert one.do("raise 1") == "done"
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert one.do("renew 1") == "renewed"
    assert one.has_it()
    eventually(lambda: not one.has_it(), 5)
    assert one.do("renew 1") == "gone"
    assert not one.has_it()
    assert one.do("raise forever") == "done"
    assert "forever" in one.host.run(["ip", "addr", "show", "to", vip.partition("/")[0]]).stdout


@BOTH
def test_an_address_that_answers_elsewhere_is_not_raised(hands: tuple[Hand, Hand, Host], vip: str) -> None:
    one, two, _ = hands
    assert one.do("raise 10") == "done"
    shown = one.host.run(["ip", "link", "show", _interface(one.host)]).stdout.split()
    mac = shown[shown.index("link/ether") + 1]
    assert two.do("raise 10") == f"{vip.partition('/')[0]} answers elsewhere, from {mac}: it is not raised while that is so"
    assert not two.has_it()
    assert two.do("probe") == mac
    assert one.do("probe") == "nobody"  # itself is no rival
    assert one.do("drop") == "done"
    assert two.do("raise 10") == "done"


@BOTH
def test_a_host_never_speaks_from_it_and_keeps_its_own_route(hands: tuple[Hand, Hand, Host], vip: str) -> None:
    one, _, client = hands
    family = "-6" if vip == SIX else "-4"
    routes = one.host.run(["ip", family, "route"]).stdout
    assert one.do("raise 2") == "done"
    assert one.host.run(["ip", family, "route"]).stdout == routes
    target = "2001:db8::d" if vip == SIX else client.address
    said = one.host.run(["ip", family, "route", "get", target]).stdout.split()
    assert said[said.index("src") + 1] != vip.partition("/")[0]
    eventually(lambda: not one.has_it(), 5)
    assert one.host.run(["ip", family, "route"]).stdout == routes


@BOTH
def test_what_a_hand_added_is_dropped_wherever_it_stands(hands: tuple[Hand, Hand, Host], vip: str) -> None:
    one, _, _ = hands
    one.host.run(["ip", "addr", "add", f"{vip.partition('/')[0]}/{128 if vip == SIX else 32}", "dev", "lo"])
    assert one.has_it()
    assert one.do("drop") == "done"
    assert not one.has_it()


@BOTH
def test_a_permission_that_ends_meanwhile_leaves_nothing(hands: tuple[Hand, Hand, Host], vip: str) -> None:
    one, _, _ = hands
    assert one.vip == vip
    assert one.do("raise late") == "the lease ran out"
    assert not one.has_it()


@BOTH
def test_the_watchdog_takes_it_off_without_the_agent(hands: tuple[Hand, Hand, Host], vip: str) -> None:
    one, _, _ = hands
    assert one.do("raise forever") == "done"
    program = f"from agent.watchdog.address import remove_address; print(remove_address({vip!r}) or 'off')"
    assert one.host.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}"]).stdout == "off\n"
    assert not one.has_it()


def test_where_no_interface_fits_it_says_so(hosts: tuple[Host, Host, Host]) -> None:
    hand = Hand(hosts[0], "198.51.100.7/24")
    try:
        said = hand.do("raise 5")
        assert said == "198.51.100.7: no interface of this host has an address in 198.51.100.0/24; say which with `interface`"
        assert hand.do("drop") == "done"
    finally:
        hand.end()


def _interface(host: Host) -> str:
    """The one with an address of the lab's network."""
    lines = host.run(["ip", "-o", "-4", "addr", "show"]).stdout.splitlines()
    return next(line.split()[1] for line in lines if "192.0.2." in line)
