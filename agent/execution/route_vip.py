"""A VIP as one of the things that follow the leader. Imported only where one is configured: pyroute2 comes with it."""

from __future__ import annotations

from ipaddress import ip_interface

from actions.base import Guard
from actions.vip import DropVip, RaiseVip, Vip, renew, rival, stands, tell_neighbours
from agent.execution.routes import Lifetime


class VipRoute:
    """`address` is `192.0.2.100/24`; `interface` None: the one that has an address in that network."""

    def __init__(self, address: str, interface: str | None) -> None:
        self._vip = Vip(ip_interface(address), interface)
        self.name = f"vip {self._vip.text}"
        self.address = str(self._vip.address)

    async def points_here(self) -> bool:
        return await stands(self._vip)

    async def rival(self) -> str | None:
        return await rival(self._vip)

    async def raise_here(self, guard: Guard, lifetime: Lifetime) -> None:
        await RaiseVip(self._vip, lifetime, probed=True).apply(guard)

    async def renew(self, lifetime: Lifetime) -> bool:
        return await renew(self._vip, lifetime)

    async def drop(self) -> None:
        await DropVip(self._vip).drop()

    async def announce(self) -> None:
        await tell_neighbours(self._vip)
