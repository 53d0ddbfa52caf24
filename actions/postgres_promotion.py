"""Making a standby writable, and telling a writable server whose acknowledgement its commits wait for.

Promote is the ONLY thing in quorate that makes a Postgres take writes. It does so on one open connection to the very life that was armed
(pid and start), asks for permission right before and right after, and seals while the promotion is still under way: Postgres removes
standby.signal as it ends recovery, an instant before it takes the first write, and the file is put back within about a millisecond.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psycopg

from actions import postgres_files as files
from actions.base import ActionError, ActionTimeout, Guard
from actions.postgres_action import KillTree, PostgresAction
from actions.postgres_instance import PostgresInstance, Postmaster, parse_lsn, sync_setting
from actions.postgres_lifecycle import kill
from actions.postgres_process import POLL_S, current_postmaster, parent_of, until
from actions.postgres_session import Connection, PostgresSession, fetch, within
from actions.postgres_settings import change_settings, checkpointer_has_taken, read_standing

NOBODY = "quorate nobody"
"""A name that no member can bear (it holds a space), so that a list with it is never satisfied."""
UNDO_BUDGET_S = 1.0


class KnownPromotion(NamedTuple):
    """A promotion that the group's record knows of."""

    epoch: int
    node: str
    timeline: int
    parent_timeline: int
    switch_lsn: int


@dataclass(frozen=True, slots=True)
class Promoted:
    """The timeline that this instance writes, and where it left which parent; a first timeline has none (0, 0)."""

    timeline: int
    parent_timeline: int
    switch_lsn: int


class Promote(PostgresAction[Promoted]):
    """Make it writable, sealed, with the right sync names from its first commit on, on a timeline number that nobody used.

    Steps, in this order, each harmless to repeat: set_sync_names, place_history, promote, seal. On an instance that is primary already
    only what is missing is completed. `expected`: the life that was armed; None: whichever runs.
    """

    name = "promote"

    def __init__(
        self,
        instance: PostgresInstance,
        session: PostgresSession,
        kill_tree: KillTree,
        *,
        sync_names: tuple[str, ...] | None,
        known_promotions: Sequence[tuple[int, str, int, int, int]] = (),
        expected: Postmaster | None = None,
    ) -> None:
        super().__init__(instance, session)
        self.timeout_s = instance.promote_timeout_s
        self._kill_tree = kill_tree
        self._names = sync_names or ()
        self._highest = max((KnownPromotion(*known).timeline for known in known_promotions), default=0)
        self._expected = expected
        self._requested = False

    async def apply(self, guard: Guard) -> Promoted:
        """As every action; but a promotion that was asked for and is late, or could not be sealed, is undone: nobody would mend that."""
        try:
            return await super().apply(guard)
        except ActionError as error:
            if self._requested and (isinstance(error, ActionTimeout) or not files.is_sealed(self.instance.data_dir)):
                await self.undo()
            raise

    async def is_done(self) -> bool:
        if not await asyncio.to_thread(files.is_sealed, self.instance.data_dir):
            return False
        rows = await self.session.rows("SELECT pg_is_in_recovery(), current_setting('synchronous_standby_names')")
        return tuple(rows[0]) == (False, sync_setting(self._names))

    async def _apply(self, guard: Guard) -> Promoted:
        await self._be_the_armed_one()
        await guard.step("set_sync_names")
        await change_settings(self.instance, self.session, {"synchronous_standby_names": sync_setting(self._names)})
        if self._names:
            await checkpointer_has_taken(self.instance, self.session)
        if (await read_standing(self.session)).in_recovery:
            await guard.step("place_history")
            await asyncio.to_thread(files.place_placeholders, self.instance.data_dir, self._highest)
            await guard.step("promote")
            await self._promote(guard)
        await guard.step("seal")
        await asyncio.to_thread(files.seal, self.instance.data_dir)
        await self._keep_permission(guard)
        return await read_promoted(self.instance, self.session)

    async def _promote(self, guard: Guard) -> None:
        """Ask for it and see it through. From the request on, a permission that ends means: kill it, whatever it is just doing."""
        connection = await self._be_the_armed_one()
        guard.permit()
        self._requested = True
        stop = threading.Event()
        sealing = asyncio.ensure_future(asyncio.to_thread(files.seal_again, self.instance.data_dir, stop))
        try:
            await within(connection, fetch(connection, "SELECT pg_promote(false)"), self.instance.query_timeout_s)
            while (await read_standing(self.session)).in_recovery:
                await self._keep_permission(guard)
                await asyncio.sleep(POLL_S)
            await self._keep_permission(guard)
        finally:
            stop.set()
            await sealing

    async def _keep_permission(self, guard: Guard) -> None:
        try:
            guard.permit()
        except BaseException:
            await self.undo()
            raise

    async def _be_the_armed_one(self) -> Connection:
        """The open connection, proven to lead to the life that was armed, which still is the one that runs."""
        running = current_postmaster(self.instance.data_dir)
        if running is None:
            raise ActionError("it does not run: there is nothing to promote")
        expected = self._expected = self._expected or running
        connection = await self.session.live_connection(self.instance.query_timeout_s)
        if running != expected or parent_of(connection.info.backend_pid) != expected.pid:
            raise ActionError("another life of the server runs than the one that was armed: it is not promoted")
        return connection

    async def verify(self) -> None:
        rows = await self.session.rows("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')")
        if tuple(rows[0]) != (False, "off"):
            raise ActionError("it takes no writes")
        if not await self.is_done():
            raise ActionError("it takes writes, but not sealed, or commits wait for others than they should")

    async def undo(self) -> None:
        """Fence it."""
        await kill(self.instance, self._kill_tree, UNDO_BUDGET_S)
        await self.session.drop()

    def lateness(self) -> str:
        return "replay of what it had received did not come to its end"


async def read_promoted(instance: PostgresInstance, session: PostgresSession) -> Promoted:
    """What a primary's promotion made, by the history file that Postgres itself wrote."""
    rows = await session.rows("SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int")
    timeline = int(rows[0][0])
    history = await asyncio.to_thread(files.read_history, instance.data_dir, timeline)
    parent, switch = history[-1] if history else (0, 0)
    return Promoted(timeline, parent, switch)


# ------------------------------------------------------------------ sync names


@dataclass(frozen=True, slots=True)
class SyncEffect:
    """`effective_lsn`: whatever was acknowledged without the new names is below it. A standby that flushed it lacks nothing of that."""

    effective_lsn: int


class SetSyncNames(PostgresAction[SyncEffect]):
    """Have commits wait for ALL of `names`; empty: for nobody. It returns when that is really so, not only set.

    The proof has two halves. The checkpointer, which tells commits whether to wait at all, has taken the names. And every sender has: one
    that has not could release commits by the old list. A sender shows its standby's place in the list, so for some milliseconds a name
    that nobody bears goes first and moves every place by one; no commit is released in that state, and there the LSN is read. Nothing slow
    is waited for while commits are held, and whatever happens then, the names alone are put back.
    """

    name = "set_sync_names"

    def __init__(self, instance: PostgresInstance, session: PostgresSession, names: tuple[str, ...]) -> None:
        super().__init__(instance, session)
        self.timeout_s = max(5.0, instance.query_timeout_s)
        self._names = names

    async def is_done(self) -> bool:
        rows = await self.session.rows("SELECT current_setting('synchronous_standby_names')")
        return bool(rows[0][0] == sync_setting(self._names)) and await self._senders_know(self._names)

    async def _apply(self, guard: Guard) -> SyncEffect:
        if (await read_standing(self.session)).in_recovery:
            raise ActionError("it is a standby: its commits are another's")
        await guard.step("set_sync_names")
        await self._set(self._names)
        if self._names:
            await checkpointer_has_taken(self.instance, self.session)
            effective_lsn = await self._move_every_place()
        else:
            effective_lsn = await self._written()
        await until(lambda: self._senders_know(self._names))
        await self._have_standbys_reply()
        return SyncEffect(effective_lsn)

    async def _move_every_place(self) -> int:
        """Hold all commits until every sender is seen to have read the list; the LSN written then."""
        held = (NOBODY, *self._names)
        try:
            await self._set(held)
            await until(lambda: self._senders_know(held))
            return await self._written()
        finally:
            await self._set(self._names)

    async def _have_standbys_reply(self) -> None:
        """Senders release waiting commits when their standby replies; on an idle server that could take 10 s. New WAL brings a reply."""
        await self.session.rows("SELECT pg_logical_emit_message(true, 'quorate', '')")

    async def _set(self, names: tuple[str, ...]) -> None:
        await change_settings(self.instance, self.session, {"synchronous_standby_names": sync_setting(names)})

    async def _senders_know(self, names: tuple[str, ...]) -> bool:
        """Each sender writes its standby's priority itself, when it has read the list: its place in the list, 0 for a stranger."""
        rows = await self.session.rows("SELECT lower(application_name), sync_priority FROM pg_stat_replication")
        places = {name.lower(): place for place, name in enumerate(names, start=1)}
        return all(places.get(str(name), 0) == int(priority) for name, priority in rows)

    async def _written(self) -> int:
        rows = await self.session.rows("SELECT pg_current_wal_lsn()")
        return parse_lsn(str(rows[0][0]))

    async def verify(self) -> None:
        try:
            if await self.is_done():
                return
        except psycopg.Error as error:
            raise ActionError(f"it does not say for whom commits wait: {error}") from None
        raise ActionError("commits wait for others than they should")
