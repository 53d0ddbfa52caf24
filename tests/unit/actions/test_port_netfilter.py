"""Against the real kernel, in a network of the test's own; what the rules say is read back by the program `nft`."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from actions import port_netfilter as netfilter
from actions.port_netfilter import Hook, Netfilter, NetfilterError
from tests.servers.own_network import own_network, ruleset

TABLE = "quorate_t"


@pytest.fixture
def line() -> Iterator[Netfilter]:
    with own_network():
        one = Netfilter()
        yield one
        one.close()


def frame() -> tuple[netfilter.Message, ...]:
    return (
        netfilter.new_table(TABLE),
        netfilter.new_port_set(TABLE, "open"),
        netfilter.new_chain(TABLE, "in", Hook.INPUT, -10),
        netfilter.new_chain(TABLE, "out", Hook.OUTPUT, 5),
    )


def test_a_frame_is_made_once_and_may_be_made_again(line: Netfilter) -> None:
    line.change(frame())
    line.change((*frame(), netfilter.add_port(TABLE, "open", 5432, None)))
    line.change(frame())
    assert line.find_element(TABLE, "open", 5432) == netfilter.Element(None)
    assert (line.count_in_table(TABLE), line.count_rules(TABLE, "in")) == (3, 0)
    assert "type filter hook input priority filter - 10; policy accept;" in ruleset()


def test_what_is_not_there_is_told(line: Netfilter) -> None:
    assert line.count_in_table(TABLE) is None
    assert line.count_rules(TABLE, "in") is None
    assert line.find_element(TABLE, "open", 5432) is None
    line.change(frame())
    assert line.find_element(TABLE, "open", 5432) is None


def test_a_batch_happens_whole_or_not_at_all(line: Netfilter) -> None:
    line.change(frame())
    with pytest.raises(NetfilterError) as refused:
        line.change((netfilter.add_port(TABLE, "open", 1, None), netfilter.delete_port(TABLE, "open", 2)))
    assert refused.value.errno == errno.ENOENT
    assert line.find_element(TABLE, "open", 1) is None
    line.change((netfilter.add_port(TABLE, "open", 1, None),))
    with pytest.raises(NetfilterError) as refused:
        line.change((netfilter.add_port(TABLE, "open", 2, None), netfilter.add_port(TABLE, "open", 1, None)))
    assert refused.value.errno == errno.EEXIST
    assert line.find_element(TABLE, "open", 2) is None


def test_an_element_has_so_long(line: Netfilter) -> None:
    line.change((*frame(), netfilter.add_port(TABLE, "open", 5432, 60_000)))
    found = line.find_element(TABLE, "open", 5432)
    assert found is not None
    assert found.left_ms is not None
    assert 50_000 < found.left_ms <= 60_000
    line.change((netfilter.flush_set(TABLE, "open"),))
    assert line.find_element(TABLE, "open", 5432) is None


def test_what_each_condition_says(line: Netfilter) -> None:
    v4, v6, vip = ip_address("192.0.2.2"), ip_address("2001:db8::2"), ip_address("192.0.2.9")
    rules = [
        (Hook.INPUT, netfilter.tcp_port(5432, Hook.INPUT) + netfilter.port_in_set("open", Hook.INPUT) + netfilter.accept()),
        (Hook.INPUT, netfilter.tcp_port(5432, Hook.INPUT) + netfilter.loopback(Hook.INPUT) + netfilter.drop()),
        (Hook.INPUT, netfilter.between(v4, (vip, v6), Hook.INPUT) + netfilter.accept()),
        (Hook.INPUT, netfilter.tcp_port(5432, Hook.INPUT) + netfilter.reject_with_reset()),
        (Hook.OUTPUT, netfilter.tcp_port(5432, Hook.OUTPUT) + netfilter.port_in_set("open", Hook.OUTPUT) + netfilter.accept()),
        (Hook.OUTPUT, netfilter.loopback(Hook.OUTPUT) + netfilter.accept()),
        (Hook.OUTPUT, netfilter.between(v6, (vip, v6), Hook.OUTPUT) + netfilter.accept()),
        (Hook.OUTPUT, netfilter.tcp_port(5432, Hook.OUTPUT) + netfilter.tcp_reset() + netfilter.accept()),
    ]
    line.change((*frame(), *(netfilter.new_rule(TABLE, "in" if hook is Hook.INPUT else "out", rule) for hook, rule in rules)))
    text = [row.strip() for row in ruleset().splitlines()]
    assert text[text.index("type filter hook input priority filter - 10; policy accept;") + 1 :][:4] == [
        "tcp dport 5432 tcp dport @open accept",
        'tcp dport 5432 iifname "lo" drop',
        "ip saddr 192.0.2.2 ip daddr != 192.0.2.9 accept",
        "tcp dport 5432 reject with tcp reset",
    ]
    assert text[text.index("type filter hook output priority filter + 5; policy accept;") + 1 :][:4] == [
        "tcp sport 5432 tcp sport @open accept",
        'oifname "lo" accept',
        "ip6 daddr 2001:db8::2 ip6 saddr != 2001:db8::2 accept",
        "tcp sport 5432 tcp flags & rst == rst accept",
    ]
    assert line.count_rules(TABLE, "in") == 4


def test_what_was_made_can_be_removed(line: Netfilter) -> None:
    line.change((*frame(), netfilter.new_rule(TABLE, "in", netfilter.drop())))
    line.change((netfilter.flush_chain(TABLE, "in"), netfilter.delete_chain(TABLE, "in"), netfilter.delete_chain(TABLE, "out")))
    line.change((netfilter.delete_set(TABLE, "open"),))
    assert line.count_in_table(TABLE) == 0
    line.change((netfilter.delete_table(TABLE),))
    assert line.count_in_table(TABLE) is None


def test_a_closed_line_opens_anew(line: Netfilter) -> None:
    line.change(frame())
    line.close()
    line.close()
    assert line.count_in_table(TABLE) == 3


def test_nonsense_in_an_answer_ends_it() -> None:
    assert list(netfilter._attributes(b"\x00\x00\x01\x00" + b"more")) == []
    assert list(netfilter._split(bytes(32))) == []
