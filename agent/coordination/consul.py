"""The coordinator of several hosts: Consul's key-value store and sessions. It survives the loss of a minority of Consul's servers.

Consul runs the transactions of `lease.py` as they are. This file only says which question each call of the contract is; how questions are
sent is `consul_client.py`, what they look like `consul_requests.py`, how sessions are kept `consul_session.py`. Imported only when Consul
is configured. All reading is `consistent`: the server that answers has just asked a majority whether it still leads.

Must never need Consul to be built: an agent starts without it, and its calls raise `CoordinationError` until Consul is back.
"""

from __future__ import annotations

import contextlib

from agent.clock import Clock
from agent.coordination.consul_access import Access, ConsulPlace
from agent.coordination.consul_client import ConsulClient
from agent.coordination.consul_requests import (
    get_key,
    list_folder,
    raft_multiplier,
    session_exists,
    transaction,
)
from agent.coordination.consul_session import Sessions
from agent.coordination.coordinator import Committed, Operation, Refused, Snapshot, Transaction, Verb
from agent.coordination.shape import check_shape
from agent.errors import CoordinationError, CoordinationRefused
from agent.instant import remaining_s

OWN_TIMEOUT_S = 5.0
"""For calls that name no deadline of their own."""
NOTES_TIMEOUT_S = 1.0
LAST_READ_S = 1.0
"""What a wait allows its last reading at least: with Consul away it is late by up to twice this much."""
IDENTITY_KEY = "_identity"
"""Beside the groups' folders; no group's name begins with `_`."""
CONSULS_JITTER = 1 / 16
"""Consul answers a waiting question later than asked for, by up to this share."""
ELECTION_S_PER_MULTIPLIER = 3.0
"""Measured: how long after its leader's death Consul takes writes again, for each unit of raft_multiplier (1: 3 s, 5: 14 s)."""


class ConsulCoordinator:
    """`Coordinator` on Consul. Made inside the event loop that uses it; making it asks nothing of Consul."""

    def __init__(self, place: ConsulPlace, access: Access, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._client = ConsulClient(place.urls, access, clock)
        self._sessions = Sessions(self._client, clock.nonce(), f"{place.prefix}/")
        self._multiplier: int | None = None

    @property
    def description(self) -> str:
        where = ", ".join(self._place.urls)
        sentence = f"Consul at {where}, keys below {self._place.prefix}/: it survives the loss of a minority of its servers"
        if self._multiplier is None or self._multiplier <= 1:
            return sentence
        slow_s = self._multiplier * ELECTION_S_PER_MULTIPLIER
        return (
            f"{sentence}; when it loses its leader nothing can be written for about {slow_s:.0f} s"
            f" (raft_multiplier {self._multiplier}; with 1 about {ELECTION_S_PER_MULTIPLIER:.0f} s)"
        )

    async def identity(self) -> str:
        """A name that lies beside the data: restored with it, it is the same store (epochs say how old); made anew, it is another one."""
        await self._learn_about_servers()
        found = await self._client.ask(get_key(self._place.prefix, IDENTITY_KEY), OWN_TIMEOUT_S)
        if found is None:
            made = f"consul-{self._clock.nonce()}{self._clock.nonce()}".encode()
            first = (Operation(Verb.CHECK_NOT_EXISTS, IDENTITY_KEY), Operation(Verb.SET, IDENTITY_KEY, value=made))
            await self.transact(first, OWN_TIMEOUT_S)
            found = await self._client.ask(get_key(self._place.prefix, IDENTITY_KEY), OWN_TIMEOUT_S)
        if not found:
            raise CoordinationError(f"Consul's key {self._place.prefix}/{IDENTITY_KEY} is gone as soon as it was written")
        return found.decode("utf-8", errors="replace")

    async def _learn_about_servers(self) -> None:
        """How slow elections are, for people. Only a server says it, and only to whom may read agents: otherwise nothing is said."""
        if self._multiplier is None:
            with contextlib.suppress(CoordinationError):
                self._multiplier = await self._client.ask(raft_multiplier(), NOTES_TIMEOUT_S)

    async def open_session(self, name: str) -> str:
        return await self._sessions.open(name, OWN_TIMEOUT_S)

    async def session_is_alive(self, session: str) -> bool:
        return await self._client.ask(session_exists(session), OWN_TIMEOUT_S)

    async def close_session(self, session: str) -> None:
        await self._sessions.close_session(session, OWN_TIMEOUT_S)

    async def transact(self, operations: Transaction, timeout_s: float) -> Committed | Refused:
        check_shape(operations)
        stamp = int(self._clock.nonce(), 16)
        return await self._client.ask(transaction(self._place.prefix, operations, stamp), timeout_s)

    async def read(self, folder: str, timeout_s: float) -> Snapshot:
        """All below `folder`. An empty folder has the index of the latest change anywhere, so a wait for it may be woken by others."""
        deadline = self._clock.now().after(timeout_s)
        snapshot = await self._client.ask(list_folder(self._place.prefix, folder), timeout_s)
        if not snapshot.entries:
            await self._refuse_if_hidden(folder, remaining_s(deadline, self._clock.now()))
        return snapshot

    async def _refuse_if_hidden(self, folder: str, timeout_s: float) -> None:
        """To whom nothing may be read Consul shows an empty folder; asked for one key of it, it says that it refuses."""
        await self._client.ask(get_key(self._place.prefix, folder), timeout_s)

    async def wait(self, folder: str, index: int, timeout_s: float) -> Snapshot:
        """Consul rings; but when it answers that nothing has changed it tells what it knew when it was asked, so then it is read anew."""
        deadline = self._clock.now().after(timeout_s)
        question = list_folder(self._place.prefix, folder, index, timeout_s / (1 + CONSULS_JITTER))
        try:
            snapshot = await self._client.wait(question, timeout_s + min(LAST_READ_S, timeout_s / 2))
        except CoordinationRefused:
            raise
        except CoordinationError:
            snapshot = None  # that address is asked last from now on, and the reading goes to another one
        if snapshot is not None and snapshot.index != index and snapshot.entries:
            return snapshot
        return await self.read(folder, max(LAST_READ_S, remaining_s(deadline, self._clock.now())))

    async def close(self) -> None:
        """Close the connections and renew no more. Sessions stay for what is left of their time."""
        await self._sessions.close()
        await self._client.close()
