"""A virtual IP address that follows the leader: an IPv4 or IPv6 address with its prefix, on an interface of the host that leads.

| action | wanted state |
| --- | --- |
| RaiseVip | the address stands here, for as long as the lease lasts, and everybody on the link knows it |
| DropVip | it stands nowhere on this host |

Two hosts with one address are worse than none: nobody knows who gets which packet. So an address is raised only when nobody else on the
link answers for it; it is added with a lifetime, so that the kernel takes it away when nobody renews it (whole seconds: the broom; the
exact cut is the fence's); and a drop takes it off wherever it stands, also where somebody put it by hand.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from actions.base import Action, ActionError, ActionTooLate, Guard
from actions.vip_link import Link, announce, rival_of
from actions.vip_netlink import Interface, Netlink, Standing, conversation
from actions.vip_packets import mac_text

SHORTEST_S = 1
"""The kernel counts in whole seconds, and takes 0 as an error."""

Lifetime = Callable[[], float | None]
"""Seconds that the address may stand from now on; None: for good. Asked at the last moment. Raises ActionTooLate when none are left."""


class VipTaken(ActionError):
    """Another host answers for the address: it was not raised. `mac` is that host's hardware address."""

    def __init__(self, address: str, mac: str) -> None:
        super().__init__(f"{address} answers elsewhere, from {mac}: it is not raised while that is so")
        self.mac = mac


@dataclass(frozen=True, slots=True)
class Vip:
    """What is raised, and where. `interface` None: the one that has an address in the same network, found at run time."""

    address: Interface
    interface: str | None = None

    @property
    def text(self) -> str:
        """The address without its prefix."""
        return str(self.address.ip)


def valid_s(left_s: float | None) -> int | None:
    """The lifetime that the kernel is given for what is left of a lease; None: for good.

    Rounded UP, at least 1 s. Rounded down, a lease of 2 s would give the address 1 s, and a renewal that is late but still good would find
    it gone. So it outlives the deadline by less than a second and the kernel's own slack: that is why it is the broom and not the cut.
    """
    return None if left_s is None else max(SHORTEST_S, math.ceil(left_s))


# ------------------------------------------------------------------ what can be asked and done without an action


async def stands(vip: Vip) -> bool:
    """Whether the address stands on this host, wherever and with whatever prefix. Raises ActionError."""
    async with conversation() as kernel:
        return bool(_of(vip, await kernel.standings()))


async def rival(vip: Vip) -> str | None:
    """The hardware address of another host that answers for the address; None: nobody does. Takes about 80 ms. Raises ActionError."""
    async with conversation() as kernel:
        link = await _link(vip, kernel)
    mac = await rival_of(link, vip.address.ip)
    return None if mac is None else mac_text(mac)


async def renew(vip: Vip, lifetime: Lifetime) -> bool:
    """Give the address that stands a new lifetime; False: it does not stand here, and nothing was done. Raises ActionError."""
    async with conversation() as kernel:
        link, standings = await _link(vip, kernel), await kernel.standings()
        if not _stands_right(vip, link, standings):
            return False
        async with _in_time(vip, kernel, lifetime):
            await kernel.put(link.index, vip.address, valid_s(lifetime()), covered=_is_covered(vip, link, standings))
        return True


async def tell_neighbours(vip: Vip) -> None:
    """Announce the address, which stands here, on its link. Raises ActionError."""
    async with conversation() as kernel:
        link = await _link(vip, kernel)
    announce(link, vip.address.ip)


# ------------------------------------------------------------------ the actions


class RaiseVip(Action[None]):
    """The address stands here. `probed`: somebody has just seen that nobody answers for it, so it is not asked again."""

    name = "raise_vip"

    def __init__(self, vip: Vip, lifetime: Lifetime, *, probed: bool = False) -> None:
        self._vip = vip
        self._lifetime = lifetime
        self._probed = probed

    async def is_done(self) -> bool:
        async with conversation() as kernel:
            return _stands_right(self._vip, await _link(self._vip, kernel), await kernel.standings())

    async def apply(self, guard: Guard) -> None:
        """Probe, add, announce. Raises VipTaken when it answers elsewhere, ActionTooLate when the permission ended meanwhile."""
        guard.permit()
        vip = self._vip
        async with conversation() as kernel:
            link = await _link(vip, kernel)
        if not self._probed:
            mac = await rival_of(link, vip.address.ip)
            if mac is not None:
                raise VipTaken(vip.text, mac_text(mac))
        await guard.step("raise_vip")
        guard.permit()
        async with conversation() as kernel:
            covered = _is_covered(vip, link, await kernel.standings())
            async with _in_time(vip, kernel, self._lifetime):
                await kernel.put(link.index, vip.address, valid_s(self._lifetime()), covered=covered)
        announce(link, vip.address.ip)

    async def verify(self) -> None:
        if not await self.is_done():
            raise ActionError(f"{self._vip.text} does not stand on this host")

    async def undo(self) -> None:
        await DropVip(self._vip).drop()


class DropVip(Action[None]):
    """The address stands nowhere on this host."""

    name = "drop_vip"

    def __init__(self, vip: Vip) -> None:
        self._vip = vip

    async def is_done(self) -> bool:
        return not await stands(self._vip)

    async def apply(self, guard: Guard) -> None:
        """Take it off every interface. Asks for no permission: off is the safe state."""
        await guard.step("drop_vip")
        await self.drop()

    async def drop(self) -> None:
        """The same without noting a step."""
        async with conversation() as kernel:
            await _remove_all(self._vip, kernel)

    async def verify(self) -> None:
        if not await self.is_done():
            raise ActionError(f"{self._vip.text} still stands on this host")

    async def undo(self) -> None:
        """Nothing: absent is the safe state."""


# ------------------------------------------------------------------ small helps


@contextlib.asynccontextmanager
async def _in_time(vip: Vip, kernel: Netlink, lifetime: Lifetime) -> AsyncIterator[None]:
    """The clock is read before and after: an address that was armed too late is taken off at once."""
    yield
    try:
        lifetime()
    except ActionTooLate:
        await _remove_all(vip, kernel)
        raise


async def _remove_all(vip: Vip, kernel: Netlink) -> None:
    for standing in _of(vip, await kernel.standings()):
        await kernel.remove(standing)


def _of(vip: Vip, standings: tuple[Standing, ...]) -> list[Standing]:
    return [standing for standing in standings if standing.interface.ip == vip.address.ip]


def _stands_right(vip: Vip, link: Link, standings: tuple[Standing, ...]) -> bool:
    return any(standing.index == link.index and standing.interface == vip.address for standing in standings)


def _is_covered(vip: Vip, link: Link, standings: tuple[Standing, ...]) -> bool:
    """Whether another address of that interface brings the route to the VIP's network along."""
    return any(_is_neighbour(vip, standing) and standing.index == link.index for standing in standings)


def _is_neighbour(vip: Vip, standing: Standing) -> bool:
    return standing.interface.ip != vip.address.ip and standing.interface.network == vip.address.network


async def _link(vip: Vip, kernel: Netlink) -> Link:
    """The interface for the address. Raises ActionError with what to do."""
    links = await kernel.links()
    if vip.interface is not None:
        named = next((link for link in links if link.name == vip.interface), None)
        if named is None:
            raise ActionError(f"{vip.text}: this host has no interface {vip.interface}")
        return named
    standings = await kernel.standings()
    own = [s for s in standings if s.interface.ip != vip.address.ip and vip.address.ip in s.interface.network]
    near = max(own, key=lambda standing: standing.interface.network.prefixlen, default=None)
    found = None if near is None else next((link for link in links if link.index == near.index), None)
    if found is None:
        raise ActionError(f"{vip.text}: no interface of this host has an address in {vip.address.network}; say which with `interface`")
    return found
