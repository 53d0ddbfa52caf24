"""What follows the leader, as the file says it: its problems, and what the agent makes of it. Pure.

An address that two groups raise, or that is a node's own, is worse than none: it is refused here, before anybody has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from agent.configuration.document import Path, Problem
from agent.configuration.model import Configuration, Group, Hook, Vip, host_and_port
from agent.decision.command import HookRole

MOST_VIPS = 16
"""As many as the watchdog takes off."""


def hook_roles(group: Group) -> frozenset[HookRole]:
    """On which occasions the group wants commands run."""
    return frozenset(role for follower in group.follows_leader if follower.hook is not None for role, _ in commands_of(follower.hook))


def commands_of(hook: Hook) -> tuple[tuple[HookRole, tuple[str, ...]], ...]:
    """The commands that are there, each with its occasion."""
    both = ((HookRole.ELECTED, hook.on_elected), (HookRole.DEFEATED, hook.on_defeated))
    return tuple((role, command) for role, command in both if command)


def vips_of(group: Group) -> tuple[Vip, ...]:
    return tuple(follower.vip for follower in group.follows_leader if follower.vip is not None)


def judge_followers(configuration: Configuration) -> Iterator[Problem]:
    """All problems of what follows the leaders."""
    raised: dict[str, str] = {}
    for name, group in configuration.groups.items():
        at: Path = ("groups", name, "follows_leader")
        if len(vips_of(group)) > MOST_VIPS:
            yield Problem(at, f"{len(vips_of(group))} addresses; at most {MOST_VIPS} can follow one leader")
        for place, follower in enumerate(group.follows_leader):
            if (follower.vip is None) == (follower.hook is None):
                yield Problem((*at, place), "expected exactly one of vip and hook; begin another entry of the list for the next")
            if follower.vip is not None:
                yield from _vip((*at, place, "vip"), name, follower.vip, configuration, raised)
            if follower.hook is not None:
                yield from _hook((*at, place, "hook"), follower.hook)


def _hook(at: Path, hook: Hook) -> Iterator[Problem]:
    commands = commands_of(hook)
    if not commands:
        yield Problem(at, "runs nothing; expected on_elected or on_defeated: [/path/of/program, argument]")
    for role, command in commands:
        if not command[0].startswith("/"):
            yield Problem((*at, f"on_{role.value}", 0), "expected the program's absolute path, one that begins with /")


def _vip(at: Path, group: str, vip: Vip, configuration: Configuration, raised: dict[str, str]) -> Iterator[Problem]:
    address = ip_interface(vip.address)
    unfit = _why_unfit(address)
    if unfit:
        yield Problem((*at, "address"), f"{address.ip} {unfit}")
    other = raised.setdefault(str(address.ip), group)
    first = vips_of(configuration.groups[other])
    if other != group or sum(ip_interface(one.address).ip == address.ip for one in first) > 1:
        yield Problem((*at, "address"), f"{address.ip} follows the leader of {other} already; an address can stand in one place only")
    for node, entry in configuration.nodes.items():
        for own in (entry.address, host_and_port(entry.api)[0]):
            if _is(own, address):
                yield Problem((*at, "address"), f"{address.ip} is the own address of node {node}", (at, ("nodes", node)))
                break


def _is(own: str, address: IPv4Interface | IPv6Interface) -> bool:
    try:
        return ip_address(own) == address.ip
    except ValueError:
        return False  # a name


def _why_unfit(address: IPv4Interface | IPv6Interface) -> str:
    """Why nobody could be reached there; empty: nothing against it."""
    if address.ip.is_loopback or address.ip.is_unspecified or address.ip.is_multicast:
        return "is no address that a host of a network can have"
    if address.network.prefixlen == 0:
        return "has a prefix of 0: every address there is would be its neighbour"
    wide = address.network.prefixlen < address.max_prefixlen - 1
    if wide and address.ip == address.network.network_address:
        return "is the network itself, no address in it"
    if wide and isinstance(address, IPv4Interface) and address.ip == address.network.broadcast_address:
        return "is the network's broadcast address"
    return ""
