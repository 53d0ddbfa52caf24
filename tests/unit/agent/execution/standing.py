"""A thing that follows the leader, in memory, for the tests of what raises and drops it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from actions.base import ActionError, Guard
from agent.execution.routes import Lifetime


@dataclass
class StandInFollower:
    """`errors`: what each call raises; `wait`: what each call waits for first."""

    name: str = "vip 192.0.2.100"
    address: str | None = "192.0.2.100/24"
    here: bool = False
    other: str | None = None
    calls: list[str] = field(default_factory=list)
    lifetimes_s: list[float | None] = field(default_factory=list)
    errors: dict[str, ActionError] = field(default_factory=dict)
    wait: dict[str, asyncio.Event] = field(default_factory=dict)

    async def _do(self, call: str) -> None:
        if call != "look":
            self.calls.append(call)
        if call in self.wait:
            await self.wait[call].wait()
        if call in self.errors:
            raise self.errors[call]

    async def points_here(self) -> bool:
        await self._do("look")
        return self.here

    async def rival(self) -> str | None:
        await self._do("ask")
        return self.other

    async def raise_here(self, guard: Guard, lifetime: Lifetime) -> None:
        await self._do("raise")
        guard.permit()
        self.lifetimes_s.append(lifetime())
        self.here = True

    async def renew(self, lifetime: Lifetime) -> bool:
        await self._do("renew")
        if self.here:
            self.lifetimes_s.append(lifetime())
        return self.here

    async def drop(self) -> None:
        await self._do("drop")
        self.here = False

    async def announce(self) -> None:
        await self._do("announce")
