"""The kernel's lease of one group's port on this node: the fence that falls with agent and watchdog dead, frozen or swapped out.

The door (actions/port.py) is open for exactly as long as the deadline that the watchdog acknowledged, and is armed anew with each renewal.
Before the service is promoted the lease of that very epoch is armed and read back. For a proven standby, and while a pause has stopped the
clocks, the door stands open without an end: nothing writable is behind it, or nothing is to be fenced.

This module must never decide who leads, and never raises: a door that does not obey is `problem`, and the core draws its conclusions. The
calls take some 70 us, but they wait when somebody else rewrites a large packet filter: so a thread of their own makes them.

A machine that sleeps stops the kernel's timers: after it wakes, the watchdog, whose clock went on, is the one that fences.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from ipaddress import ip_address, ip_interface

import structlog

from actions.base import ActionError, ActionTooLate
from actions.port import DoorState, Port, PortExpired
from agent.clock import Clock
from agent.configuration.engine_section import postgres_of
from agent.configuration.followers import vips_of
from agent.configuration.model import Configuration
from agent.decision.view import FenceLayer, GroupSpec
from agent.instant import Instant, remaining_s
from agent.worker import LateAnswer, Ticket, Worker

log = structlog.get_logger()

LATE_MS = 50
"""A door armed to close this much after the deadline, or later, is closed at once: time went by between reading the clock and arming."""
ATTEMPTS = 3
TIMEOUT_S = 0.5


def _nothing() -> None:
    """Nobody counts."""


class KernelLease:
    """Owns the door. `required`: without it this node takes no lease; otherwise a door that does not obey is taken away."""

    def __init__(self, group: str, port: Port, clock: Clock, *, required: bool, on_cut: Callable[[], None] = _nothing) -> None:
        self._group = group
        self._port = port
        self._clock = clock
        self._required = required
        self._on_cut = on_cut
        self._worker = Worker(f"port of {group}")
        self._turn = asyncio.Lock()
        self.stands = False
        """The door obeyed when it was last told something."""
        self.epoch: int | None = None
        """The epoch that the door is leased for, as read back; None: it is closed, or stands open, or is not known."""
        self.problem = ""
        """Why the layer does not stand; empty: it does, or nobody has tried."""

    # ------------------------------------------------------------------ what can be wanted

    async def begin(self) -> None:
        """Put the door in its frame, closed if it is new. What an earlier life left stays as it is."""
        await self._do(self._put_in_place, None)

    async def arm(self, epoch: int, deadline: Instant) -> None:
        """Have the door close by itself at the deadline. Only for a deadline that the watchdog has acknowledged, where there is one."""
        await self._do(lambda: self._lease(deadline), epoch)

    async def stand(self, still: Callable[[], bool] = lambda: True) -> None:
        """Open it without an end, if that is `still` wanted when its turn comes."""
        await self._do(self._open_standing, None, still)

    async def close(self, still: Callable[[], bool] = lambda: True) -> None:
        """Shut clients out now, if that is `still` wanted when its turn comes."""
        await self._do(self._shut, None, still)

    async def hang_up(self) -> None:
        """Free thread and line. The door stays as it is, and a lease runs on to its end."""
        async with self._turn:
            with contextlib.suppress(LateAnswer):
                await self._worker.run(lambda _: self._port.hang_up(), TIMEOUT_S)
            self._worker.stop()

    # ------------------------------------------------------------------ one after the other, in the thread

    async def _do(self, work: Callable[[], bool], epoch: int | None, still: Callable[[], bool] = lambda: True) -> None:
        """`work` says whether the kernel had cut clients off by itself since the door was leased."""
        async with self._turn:
            if not still():
                return
            before = self.epoch
            self.epoch = before if before == epoch else None  # while it is renewed, the lease of before runs on
            try:
                was_cut = await self._worker.run(lambda ticket: self._claimed(ticket, work), TIMEOUT_S)
            except (ActionError, LateAnswer) as error:
                self.epoch = None
                await self._not_done(error)
                return
            self.epoch = epoch
            self._note("")
        if was_cut and before is not None:
            log.warning("port.cut", group=self._group, reason="the kernel's lease expired before it was renewed or closed")
            self._on_cut()

    @staticmethod
    def _claimed(ticket: Ticket, work: Callable[[], bool]) -> bool:
        ticket.claim()
        return work()

    async def _not_done(self, error: ActionError | LateAnswer) -> None:
        """A door that does not obey shuts out clients of a healthy primary: unless it must stand, the watchdog guards alone."""
        if isinstance(error, LateAnswer):
            self._note(f"the packet filter did not answer within {TIMEOUT_S:g} s", keeps_standing=not self.problem)
        elif isinstance(error, ActionTooLate):
            log.warning("port.closed", group=self._group, reason=str(error))
            self._note("")
        else:
            await self._give_way(str(error))

    async def _give_way(self, sentence: str) -> None:
        self._note(sentence)
        if not self._required:
            try:
                await self._worker.run(lambda _: self._port.undo(), TIMEOUT_S)
            except (ActionError, LateAnswer) as error:
                log.warning("port.stuck", group=self._group, reason=str(error))

    def _note(self, problem: str, *, keeps_standing: bool = False) -> None:
        """`keeps_standing`: once is never; a lease that was armed before runs on meanwhile."""
        if problem and problem != self.problem:
            log.warning("port.unleased", group=self._group, reason=problem)
        self.stands, self.problem = not problem or (keeps_standing and self.stands), problem

    # ------------------------------------------------------------------ what the thread does

    def _put_in_place(self) -> bool:
        if self._port.read().state is DoorState.MISSING:
            self._port.close()
        return False

    def _shut(self) -> bool:
        before = self._port.read().state
        if before is not DoorState.CLOSED:
            self._port.close()
        return before is DoorState.CLOSED

    def _open_standing(self) -> bool:
        before = self._port.read().state
        if before is not DoorState.STANDING:
            self._port.open_standing()
        return before is DoorState.CLOSED

    def _lease(self, deadline: Instant) -> bool:
        """Read the clock, arm, read back what was armed, read the clock again: what froze us in between leaves no open door behind.

        A lease that expired is not renewed; opening anew is a decision of its own, upon the clock as it is then.
        """
        try:
            return self._try_to_lease(deadline)
        except ActionTooLate:
            self._port.close()
            raise

    def _try_to_lease(self, deadline: Instant) -> bool:
        was_cut = False
        try:
            self._port.renew(self._left_ms(deadline))
        except PortExpired:
            was_cut = self._port.read().state is DoorState.CLOSED
        for _ in range(ATTEMPTS):
            if self._closes_in_time(deadline):
                return was_cut
            self._port.open_for(self._left_ms(deadline))
        if not self._closes_in_time(deadline):
            raise ActionTooLate("the port could not be leased to the kernel in time: it is closed")
        return was_cut

    def _closes_in_time(self, deadline: Instant) -> bool:
        """Whether the door is leased until the deadline. One that would close too late is closed."""
        door = self._port.read()
        in_time = door.left_ms is not None and door.left_ms - self._left_ms(deadline) <= LATE_MS
        if door.is_open and not in_time:
            self._port.close()
        return in_time

    def _left_ms(self, deadline: Instant) -> int:
        """Rounded down: never longer than the deadline."""
        return int(remaining_s(deadline, self._clock.now()) * 1000)


def kernel_lease_of(
    configuration: Configuration, spec: GroupSpec, node: str, clock: Clock, on_cut: Callable[[], None] = _nothing
) -> tuple[KernelLease | None, str]:
    """The lease of the port of `node`'s instance; or None, and why there is none although it is wanted.

    `auto` wants none with the local coordinator: the clients of one host come over the loopback interface, which is never shut.
    """
    wanted = configuration.groups[spec.name].fence
    local = configuration.coordination.local is not None
    if local if wanted == "auto" else FenceLayer.KERNEL not in wanted:
        return None, ""
    try:
        door = port_of(configuration, spec, node)
    except ValueError as error:
        return None, f"the packet filter takes numbers, no names: {error}"
    return KernelLease(spec.name, door, clock, required=wanted != "auto", on_cut=on_cut), ""


def port_of(configuration: Configuration, spec: GroupSpec, node: str) -> Port:
    """The door to the port of `node`'s instance. Raises ValueError for a node whose address is a name: no fence waits for a name server."""
    group = configuration.groups[spec.name]
    peers = tuple(ip_address(configuration.nodes[name].address) for name in spec.voters if name != node)
    return Port(spec.name, node, postgres_of(group, node).port, peers, tuple(ip_interface(vip.address).ip for vip in vips_of(group)))


def take_away(configuration: Configuration, spec: GroupSpec, node: str) -> None:
    """Remove a door that an earlier configuration left: nobody would open it any more."""
    with contextlib.suppress(ActionError, ValueError):
        door = port_of(configuration, spec, node)
        try:
            door.undo()
        finally:
            door.hang_up()
