"""The packet filter's door to a service's port: closed to clients unless a lease in the kernel holds it open.

The lease is an element of an nf_tables set, with a timeout in milliseconds. When nobody renews it, it expires by itself: the kernel cuts
even established connections, with every process of ours dead or frozen. Clients are told at once by a TCP reset. What the service sends is
held back as well, so that a commit which was asked for before the end is not acknowledged after it.

Never shut out: other ports; the loopback interface (the agent, its checks; an application on this very host is cut by the watchdog, not by
this door); the group's other nodes, for replication and observers, but not at an address that clients are sent to (a VIP). This module must
never decide when the door opens, and it reads no clock: whoever calls it says how many milliseconds are left.

No connection tracking: each packet is judged alone. Each node has chains and a set of its own in the group's table, so that two members in
one network namespace do not meet. Table, set and rules are put right with each opening and closing: whatever an earlier life left is
adopted, whatever somebody flushed comes back.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import StrEnum

from actions import port_netfilter as netfilter
from actions.base import ActionError, ActionTooLate
from actions.port_netfilter import Address, Hook, Message, Netfilter

PRIORITY = -10
"""Before the host's own filter, whose chains stand at 0: what is shut here is shut."""
SHORTEST_MS = 20
"""Nothing shorter is armed: kernels have taken a timeout below one of their ticks (10 ms at most) for none at all."""


class DoorState(StrEnum):
    """How the door stands."""

    MISSING = "missing"
    """The filter is not, or not wholly, in place: nothing keeps clients out."""
    CLOSED = "closed"
    LEASED = "leased"
    """Open until the lease expires."""
    STANDING = "standing"
    """Open without an end."""


@dataclass(frozen=True, slots=True)
class Door:
    """The door as the kernel has it. `left_ms`: of a lease; else None."""

    state: DoorState
    left_ms: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether clients come through by this door's leave."""
        return self.state in (DoorState.LEASED, DoorState.STANDING)


class PortExpired(ActionError):
    """There is no living lease to renew. Opening anew is another action, and another decision."""


class Port:
    """One service's port in one network namespace. Nothing here waits or retries; each call takes well under a millisecond."""

    def __init__(self, group: str, node: str, port: int, peers: tuple[Address, ...], client_addresses: tuple[Address, ...] = ()) -> None:
        """`peers`: the group's other nodes. `client_addresses`: addresses of this host at which peers are clients like any other."""
        self.table = f"quorate_{group}"
        self.port = port
        self._filter = Netfilter()
        self._set = f"open_{node}"
        self._chains = {Hook.INPUT: f"in_{node}", Hook.OUTPUT: f"out_{node}"}
        self._rules = {hook: self._rules_of(hook, peers, client_addresses) for hook in Hook}
        frame = [netfilter.new_table(self.table), netfilter.new_port_set(self.table, self._set)]
        for hook, chain in self._chains.items():
            frame += [netfilter.new_chain(self.table, chain, hook, PRIORITY), netfilter.flush_chain(self.table, chain), *self._rules[hook]]
        self._install = tuple(frame)

    def _rules_of(self, hook: Hook, peers: tuple[Address, ...], client_addresses: tuple[Address, ...]) -> tuple[Message, ...]:
        """In order: open to all, or one of those that are never shut out, or shut."""
        ours = netfilter.tcp_port(self.port, hook)
        passing = [netfilter.port_in_set(self._set, hook), netfilter.loopback(hook)]
        passing += [netfilter.between(peer, client_addresses, hook) for peer in peers]
        if hook is Hook.OUTPUT:
            passing.append(netfilter.tcp_reset())
        shut = netfilter.reject_with_reset() if hook is Hook.INPUT else netfilter.drop()
        expressions = [*(ours + condition + netfilter.accept() for condition in passing), ours + shut]
        return tuple(netfilter.new_rule(self.table, self._chains[hook], e) for e in expressions)

    # ------------------------------------------------------------------ what stands

    def read(self) -> Door:
        """The door as it stands. Raises ActionError when the kernel does not tell."""
        try:
            if any(self._filter.count_rules(self.table, self._chains[hook]) != len(rules) for hook, rules in self._rules.items()):
                return Door(DoorState.MISSING)
            element = self._filter.find_element(self.table, self._set, self.port)
        except OSError as error:
            raise _refused(error) from error
        if element is None:
            return Door(DoorState.CLOSED)
        return Door(DoorState.STANDING) if element.left_ms is None else Door(DoorState.LEASED, element.left_ms)

    # ------------------------------------------------------------------ changes, each of them one batch

    def close(self) -> None:
        """Shut clients out now; established connections end with their next packet."""
        self._change(*self._install, self._empty())

    def open_for(self, left_ms: int) -> None:
        """Open anew, for so long. Whatever stood before is replaced between two packets. Raises ActionTooLate when that is too short."""
        _refuse_too_short(left_ms)
        self._change(*self._install, self._empty(), self._add(left_ms))

    def open_standing(self) -> None:
        """Open without an end: for a service behind which nothing takes writes."""
        self._change(*self._install, self._empty(), self._add(None))

    def renew(self, left_ms: int) -> None:
        """Have what stands open end in `left_ms` from now instead. PortExpired (it is open no more), ActionTooLate: nothing changed."""
        _refuse_too_short(left_ms)
        try:
            self._filter.change((netfilter.delete_port(self.table, self._set, self.port), self._add(left_ms)))
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise PortExpired(f"the kernel's lease of port {self.port} has expired: nothing was renewed") from None
            raise _refused(error) from error

    def undo(self) -> None:
        """Take the door out of its frame: this node's part of the filter goes, and the group's table when nothing else is in it."""
        ours = [
            *(step for chain in self._chains.values() for step in self._removal(chain)),
            netfilter.delete_set(self.table, self._set),
        ]
        try:
            if self._filter.count_rules(self.table, self._chains[Hook.INPUT]) is not None:
                self._filter.change(ours)
            if self._filter.count_in_table(self.table) == 0:
                self._filter.change((netfilter.delete_table(self.table),))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise _refused(error) from error

    def hang_up(self) -> None:
        """Free the line to the kernel; the door stays as it is."""
        self._filter.close()

    def _removal(self, chain: str) -> tuple[Message, Message]:
        return netfilter.flush_chain(self.table, chain), netfilter.delete_chain(self.table, chain)

    def _empty(self) -> Message:
        return netfilter.flush_set(self.table, self._set)

    def _add(self, left_ms: int | None) -> Message:
        return netfilter.add_port(self.table, self._set, self.port, left_ms)

    def _change(self, *messages: Message) -> None:
        try:
            self._filter.change(messages)
        except OSError as error:
            raise _refused(error) from error


def _refuse_too_short(left_ms: int) -> None:
    if left_ms < SHORTEST_MS:
        raise ActionTooLate(f"too little of the lease is left ({left_ms} ms) to lease the port to the kernel")


def _refused(error: OSError) -> ActionError:
    """Why the packet filter is not at our command, for a person."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return ActionError("no right to change the packet filter (it takes CAP_NET_ADMIN)")
    if error.errno in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENOENT, errno.EINVAL):
        return ActionError(f"this kernel's packet filter cannot do it (nf_tables: {error.strerror})")
    return ActionError(f"the packet filter refused: {error.strerror}")
