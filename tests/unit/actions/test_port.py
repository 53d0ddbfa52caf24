"""The door in the real kernel, in a network of the test's own. What passes it: tests/integration/test_kernel_lease.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from actions.base import ActionError, ActionTooLate
from actions.port import SHORTEST_MS, Door, DoorState, Port, PortExpired
from actions.port_netfilter import Netfilter, flush_chain
from tests.polling import eventually
from tests.servers.own_network import own_network, ruleset

PEERS = (ip_address("192.0.2.2"), ip_address("2001:db8::2"))
VIPS = (ip_address("192.0.2.100"),)
LONG_MS = 60_000


@pytest.fixture
def port() -> Iterator[Port]:
    with own_network():
        door = Port("main", "h1", 5432, PEERS, VIPS)
        yield door
        door.hang_up()


def is_leased(door: Door, below_ms: int = LONG_MS) -> bool:
    return door.state is DoorState.LEASED and door.left_ms is not None and 0 < door.left_ms <= below_ms


def test_the_rules_in_their_order(port: Port) -> None:
    port.close()
    rows = [row.strip() for row in ruleset().splitlines()]
    assert [row for row in rows if "5432" in row] == [
        "tcp dport 5432 tcp dport @open_h1 accept",
        'tcp dport 5432 iifname "lo" accept',
        "tcp dport 5432 ip saddr 192.0.2.2 ip daddr != 192.0.2.100 accept",
        "tcp dport 5432 ip6 saddr 2001:db8::2 accept",
        "tcp dport 5432 reject with tcp reset",
        "tcp sport 5432 tcp sport @open_h1 accept",
        'tcp sport 5432 oifname "lo" accept',
        "tcp sport 5432 ip daddr 192.0.2.2 ip saddr != 192.0.2.100 accept",
        "tcp sport 5432 ip6 daddr 2001:db8::2 accept",
        "tcp sport 5432 tcp flags & rst == rst accept",
        "tcp sport 5432 drop",
    ]


def test_a_door_closed_open_leased_and_closed_again(port: Port) -> None:
    assert port.read() == Door(DoorState.MISSING)
    port.close()
    assert port.read() == Door(DoorState.CLOSED)
    port.open_for(LONG_MS)
    assert is_leased(port.read())
    port.open_standing()
    assert port.read() == Door(DoorState.STANDING)
    port.renew(LONG_MS // 2)
    assert is_leased(port.read(), LONG_MS // 2)
    port.close()
    port.close()
    assert port.read() == Door(DoorState.CLOSED)
    assert [Door(state).is_open for state in DoorState] == [False, False, True, True]


def test_a_renewal_moves_the_end_in_both_directions(port: Port) -> None:
    port.open_for(1_000)
    port.renew(LONG_MS)
    assert not is_leased(port.read(), 1_000)
    port.renew(1_000)
    assert is_leased(port.read(), 1_000)


def test_an_expired_lease_is_not_renewed(port: Port) -> None:
    port.open_for(SHORTEST_MS)
    eventually(lambda: port.read().state is DoorState.CLOSED, 5, "it expires by itself")
    with pytest.raises(PortExpired, match=r"^the kernel's lease of port 5432 has expired: nothing was renewed$"):
        port.renew(LONG_MS)
    assert port.read() == Door(DoorState.CLOSED)


def test_a_door_that_is_not_there_is_not_renewed(port: Port) -> None:
    with pytest.raises(PortExpired):
        port.renew(LONG_MS)
    assert port.read() == Door(DoorState.MISSING)


@pytest.mark.parametrize("left_ms", [SHORTEST_MS - 1, 0])
def test_too_little_is_not_armed(port: Port, left_ms: int) -> None:
    port.open_for(LONG_MS)
    for call in (port.open_for, port.renew):
        with pytest.raises(ActionTooLate, match=rf"^too little of the lease is left \({left_ms} ms\)"):
            call(left_ms)
    assert is_leased(port.read())


def test_what_an_earlier_life_left_is_adopted(port: Port) -> None:
    port.open_for(LONG_MS)
    again = Port("main", "h1", 5432, PEERS, VIPS)
    assert is_leased(again.read())
    again.renew(LONG_MS)
    again.hang_up()
    assert is_leased(port.read())


def test_what_somebody_flushed_is_noticed_and_comes_back(port: Port) -> None:
    port.open_for(LONG_MS)
    line = Netfilter()
    line.change((flush_chain(port.table, "out_h1"),))
    line.close()
    assert port.read() == Door(DoorState.MISSING)
    port.open_for(LONG_MS)
    assert is_leased(port.read())


def test_two_members_in_one_namespace_do_not_meet(port: Port) -> None:
    other = Port("main", "h2", 5433, PEERS)
    port.open_for(LONG_MS)
    other.close()
    assert is_leased(port.read())
    other.undo()
    assert other.read() == Door(DoorState.MISSING)
    assert is_leased(port.read())
    other.hang_up()


def test_undone_there_is_nothing_left(port: Port) -> None:
    port.undo()
    port.open_standing()
    port.undo()
    assert port.read() == Door(DoorState.MISSING)
    assert ruleset() == ""
    port.undo()


def test_without_the_right_it_says_what_it_takes() -> None:
    """In a process of its own, which gives its capabilities away for good."""
    root = Path(__file__).parents[3]
    program = f"""
import os, sys
sys.path.insert(0, {str(root)!r})
from actions.base import ActionError
from actions.port import Port
if os.geteuid() == 0:
    os.setuid(65534)
for call in (Port("main", "h1", 5432, ()).read, Port("main", "h1", 5432, ()).close):
    try:
        call()
    except ActionError as error:
        print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=20)
    assert ran.stdout.splitlines() == ["no right to change the packet filter (it takes CAP_NET_ADMIN)"] * 2, ran.stderr


def test_other_refusals_have_their_sentence(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errors.pop(), "it did not")

    errors = [95, 12]
    monkeypatch.setattr(Netfilter, "change", refuse)
    for sentence in ("the packet filter refused: it did not", r"this kernel's packet filter cannot do it \(nf_tables: it did not\)"):
        with pytest.raises(ActionError, match=f"^{sentence}$"):
            port.close()
