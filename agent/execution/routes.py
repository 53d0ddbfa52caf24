"""What follows the leader on this node: kept as it is known here, and changed only when told. The same noun as decision/routes.

Each thing is a Follower (a VIP: route_vip). `Routes` looks, asks, raises, renews and drops all of a group's, remembers how each stands, and
announces again and again what stands. It decides nothing: the core says when, the lease's guard says whether, and the lifetime of what is
raised is what is left of the lease. One lock keeps a renewal from bringing back what a drop has just taken off; no question to the link is
asked under it, because that takes longer than a renewal may wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import structlog

from actions.base import ActionError, ActionTooLate, Guard
from agent.clock import Clock
from agent.decision.routes import PROBE_FRESH_S, PROBE_HELD_S
from agent.decision.view import RouteView
from agent.instant import observer_elapsed_s

log = structlog.get_logger()

BURST_S = (0.1, 0.4, 1.0)
"""Pauses between the announcements after the first: whoever missed one hears the next."""
ANNOUNCE_EVERY_S = 60.0
"""And then: a neighbour's table that was lost or spoilt mends."""

RIVAL_KEPT_S = 2 * PROBE_HELD_S

Lifetime = Callable[[], float | None]
"""Seconds that what is raised may stand from now on; None: for good. Raises ActionTooLate when there are none left."""


class Follower(Protocol):
    """One thing that can point to this host. All raise ActionError, and end within their own deadline."""

    @property
    def name(self) -> str:
        """As people and metrics know it: a kind and what is unique, `vip 192.0.2.100`."""
        ...

    @property
    def address(self) -> str | None:
        """`192.0.2.100/24` when it is an address that the watchdog can take off by itself."""
        ...

    async def points_here(self) -> bool:
        """Whether it does, wholly or in part. Reads only."""
        ...

    async def rival(self) -> str | None:
        """Who else answers for it; None: nobody, or nobody else can."""
        ...

    async def raise_here(self, guard: Guard, lifetime: Lifetime) -> None:
        """Have it point here. Nobody else answers for it: that was just asked."""
        ...

    async def renew(self, lifetime: Lifetime) -> bool:
        """Let what points here go on for so long; False: it does not point here (any more), and nothing was done."""
        ...

    async def drop(self) -> None:
        """Have it point here no more."""
        ...

    async def announce(self) -> None:
        """Tell again whoever has to know."""
        ...


class Routes:
    """All that follows the leader of one group, on this node. `changed` is told what is known whenever that is something else."""

    def __init__(self, followers: tuple[Follower, ...], clock: Clock, changed: Callable[[tuple[RouteView, ...]], None]) -> None:
        self._followers = followers
        self._clock = clock
        self._changed = changed
        self._known = {follower.name: RouteView(follower.name) for follower in followers}
        self._lock = asyncio.Lock()
        self._announcing: dict[str, asyncio.Task[None]] = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        """What the watchdog takes off when the deadline has passed."""
        return tuple(follower.address for follower in self._followers if follower.address is not None)

    # ------------------------------------------------------------------ looking

    async def look(self) -> None:
        """See how everything stands. What cannot be seen is unknown, and says why."""
        async with self._lock:
            for follower in self._followers:
                self._forget_rival(follower.name)
                try:
                    self._note(follower, present=await follower.points_here())
                except ActionError as error:
                    self._note(follower, present=None, sentence=str(error))

    def _forget_rival(self, name: str) -> None:
        """Who leads asks again and again; what a node learnt while it led is soon worth nothing."""
        known = self._known[name]
        if known.rival and known.asked is not None and observer_elapsed_s(known.asked, self._clock.now()) > RIVAL_KEPT_S:
            self._set(replace(known, rival="", sentence=""))

    async def ask(self) -> None:
        """Ask who else answers. Raises ActionError when the link cannot be asked."""
        for follower in self._followers:
            await self._ask(follower)

    async def _ask(self, follower: Follower) -> str:
        rival = await follower.rival() or ""
        before = self._known[follower.name]
        sentence = f"{follower.name} answers elsewhere, from {rival}" if rival else ""
        self._set(replace(before, rival=rival, asked=self._clock.now(), sentence=sentence))
        return rival

    # ------------------------------------------------------------------ changing

    async def raise_all(self, guard: Guard, lifetime: Lifetime) -> tuple[str, ...]:
        """Raise what does not point here yet and answers nowhere else; the names of what was not raised, because it does.

        Raises ActionTooLate when the permission has ended, ActionError with the first thing that could not be raised.
        """
        blocked: list[str] = []
        failed: list[ActionError] = []
        for follower in self._followers:
            if self._known[follower.name].present is True:
                continue
            try:
                guard.permit()
                if not self._was_just_asked(follower) and await self._ask(follower):
                    blocked.append(follower.name)
                    continue
                async with self._lock:
                    await follower.raise_here(guard, lifetime)
                    self._note(follower, present=True)
            except ActionTooLate:
                raise
            except ActionError as error:
                self._set(replace(self._known[follower.name], sentence=str(error)))
                failed.append(error)
        if failed:
            raise failed[0]
        return tuple(blocked)

    def _was_just_asked(self, follower: Follower) -> bool:
        known = self._known[follower.name]
        return not known.rival and known.asked is not None and observer_elapsed_s(known.asked, self._clock.now()) < PROBE_FRESH_S

    async def renew(self, lifetime: Lifetime) -> None:
        """Let what points here go on. Never raises: what could not be renewed falls by itself, and the next look finds it."""
        if not any(known.present for known in self._known.values()):
            return
        async with self._lock:
            for follower in self._followers:
                if self._known[follower.name].present is not True:
                    continue
                try:
                    self._note(follower, present=await follower.renew(lifetime))
                except ActionTooLate:
                    self._note(follower, present=False)
                except ActionError as error:
                    log.warning("route.not_renewed", route=follower.name, reason=str(error))
                    self._set(replace(self._known[follower.name], sentence=str(error)))

    async def drop_all(self) -> None:
        """Take off everything, wherever it came from. Raises ActionError with the first thing that could not be taken off."""
        failed: list[ActionError] = []
        async with self._lock:
            for follower in self._followers:
                self._hush(follower.name)
                try:
                    await follower.drop()
                    self._note(follower, present=False)
                except ActionError as error:
                    self._set(replace(self._known[follower.name], sentence=str(error)))
                    failed.append(error)
        if failed:
            raise failed[0]

    async def close(self) -> None:
        """Announce no more. What stands stays: it falls by its lifetime."""
        for name in tuple(self._announcing):
            self._hush(name)

    # ------------------------------------------------------------------ what is known

    def _note(self, follower: Follower, *, present: bool | None, sentence: str = "") -> None:
        """Take how it stands. Where it stands it is announced, also when an earlier life or a hand put it there."""
        before = self._known[follower.name]
        self._set(replace(before, present=present, sentence=sentence or (before.sentence if before.rival else "")))
        if present is not True:
            self._hush(follower.name)
        elif follower.name not in self._announcing:
            self._announcing[follower.name] = asyncio.create_task(self._announce(follower), name=f"announce {follower.name}")

    def _set(self, known: RouteView) -> None:
        if self._known[known.name] != known:
            self._known[known.name] = known
            self._changed(tuple(self._known.values()))

    def _hush(self, name: str) -> None:
        task = self._announcing.pop(name, None)
        if task is not None:
            task.cancel()

    async def _announce(self, follower: Follower) -> None:
        """It was announced when it was raised."""
        pauses = iter(BURST_S)
        while True:
            await asyncio.sleep(next(pauses, ANNOUNCE_EVERY_S))
            with contextlib.suppress(ActionError):
                await follower.announce()
