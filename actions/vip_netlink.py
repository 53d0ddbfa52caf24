"""The addresses of this host's interfaces by rtnetlink (pyroute2): read, added with a lifetime, removed. No program is run.

pyroute2 as a whole costs 8 MB and 0.2 s to import, this part of it 3 MB: so only the part is, and only by a node that has a VIP to look
after.

Traps, each tried: adding an address of IPv6 with a lifetime gives that lifetime to the host's OWN route of the same prefix, which then
vanishes with the VIP: so the VIP brings no route along where the host has one. `replace` adds what is not there, for IPv4 and IPv6 alike:
so whoever renews looks first. IPv6 does its own duplicate address detection for a second or two, in which the address is dead: ours is done
before, so it is switched off.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from actions.base import ActionError, ActionTimeout
from actions.vip_link import Link


def _leave_the_rest_out() -> None:
    """Have parts of pyroute2 imported without the package itself, which does nothing but import all its parts."""
    spec = None if "pyroute2" in sys.modules else find_spec("pyroute2")
    if spec is not None:
        sys.modules["pyroute2"] = module_from_spec(spec)  # and not run


_leave_the_rest_out()

from pyroute2 import iproute  # noqa: E402 - only after the line above
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402 - the same

TIMEOUT_S = 0.5
"""An exchange with the kernel takes less than a millisecond; whatever takes this long is not the kernel."""
FOREVER_S = 0xFFFFFFFF

_ETHERNET = 1
_NODAD = 0x02
_NO_PREFIX_ROUTE = 0x200
_NOT_THERE = 99
_MAC_LENGTH = 6

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Standing:
    """One address as it stands. `valid_s`: None: for good."""

    index: int
    interface: Interface
    valid_s: int | None


class Netlink:
    """An open conversation with the kernel, for one short piece of work. All raise ActionError. Made by `conversation`."""

    def __init__(self, route: iproute.AsyncIPRoute) -> None:
        self._route = route

    async def links(self) -> tuple[Link, ...]:
        """Every interface, those that are up first."""
        found = [message async for message in await self._route.link("dump")]
        found.sort(key=lambda message: message["state"] != "up")
        macs = {message["index"]: _mac(message) for message in found}
        own = frozenset(mac for mac in macs.values() if mac is not None)
        return tuple(Link(message["index"], message.get_attr("IFLA_IFNAME"), macs[message["index"]], own) for message in found)

    async def standings(self) -> tuple[Standing, ...]:
        """Every address of every interface."""
        return tuple([_standing(message) async for message in await self._route.addr("dump")])

    async def put(self, index: int, interface: Interface, valid_s: int | None, *, covered: bool) -> None:
        """Add the address, or give the one that stands a new lifetime. `covered`: the host has a route to its network already.

        It is deprecated from the start: the host's own connections go out from its own address.
        """
        flags = (_NODAD | (_NO_PREFIX_ROUTE if covered else 0)) if interface.version == 6 else 0
        lifetime_s = FOREVER_S if valid_s is None else valid_s
        await self._route.addr(
            "replace",
            index=index,
            address=str(interface.ip),
            prefixlen=interface.network.prefixlen,
            flags=flags,
            preferred_lft=0,
            valid_lft=lifetime_s,
        )

    async def remove(self, standing: Standing) -> None:
        """Remove it; harmless when it is gone already."""
        try:
            await self._route.addr(
                "del", index=standing.index, address=str(standing.interface.ip), prefixlen=standing.interface.network.prefixlen
            )
        except NetlinkError as error:
            if error.code != _NOT_THERE:
                raise


@contextlib.asynccontextmanager
async def conversation() -> AsyncIterator[Netlink]:
    """Talk to the kernel, for TIMEOUT_S at most. What it refuses is an ActionError."""
    try:
        async with asyncio.timeout(TIMEOUT_S), iproute.AsyncIPRoute() as route:
            yield Netlink(route)
    except TimeoutError:
        raise ActionTimeout(f"the kernel did not answer within {TIMEOUT_S:g} s") from None
    except NetlinkError as error:
        right = " (that takes CAP_NET_ADMIN)" if error.code == 1 else ""
        raise ActionError(f"the kernel refused: {error.args[1]}{right}") from None
    except OSError as error:
        raise ActionError(f"the kernel cannot be asked for addresses: {error.strerror or error}") from None


def _mac(message: dict[str, object]) -> bytes | None:
    """The hardware address of an interface with neighbours; None for loopback and tunnels."""
    text = message.get_attr("IFLA_ADDRESS")  # type: ignore[attr-defined]  # a pyroute2 message is a dict with more to it
    if message["ifi_type"] != _ETHERNET or not isinstance(text, str):
        return None
    mac = bytes.fromhex(text.replace(":", ""))
    return mac if len(mac) == _MAC_LENGTH else None


def _standing(message: dict[str, object]) -> Standing:
    attribute = message.get_attr  # type: ignore[attr-defined]  # the same
    address = attribute("IFA_LOCAL") or attribute("IFA_ADDRESS")
    cache = attribute("IFA_CACHEINFO")
    valid_s = FOREVER_S if cache is None else cache["ifa_valid"]
    index = message["index"]
    assert isinstance(index, int)
    return Standing(index, ip_interface(f"{address}/{message['prefixlen']}"), None if valid_s == FOREVER_S else valid_s)
