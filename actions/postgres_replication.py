"""Who receives from whom: stop receiving for good, and follow an upstream. Both by settings and a reload, without a restart.

Slots, in the simplest way that is right: a follower makes its OWN slot at the upstream that it is about to follow, over the replication
protocol with the replication login, and goes on without one where that fails. So a slot exists only where somebody follows; nobody keeps a
list of members; a missing slot never blocks. A member that itself follows somebody drops its inactive `quorate_` slots: those who used them
have gone over, and an old one would keep its WAL for ever. A restart in place keeps them. A follower that dies keeps WAL at its leader:
`max_slot_wal_keep_size`, the user's, bounds that.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from enum import Enum

import psycopg
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from actions import postgres_files as files
from actions.base import ActionError, Guard
from actions.postgres_action import KillTree, PostgresAction
from actions.postgres_instance import SLOT_PREFIX, PostgresInstance, Upstream, format_lsn, parse_lsn, passfile_content, slot_name
from actions.postgres_lifecycle import Start, Stop
from actions.postgres_process import POLL_S
from actions.postgres_session import PostgresSession, fetch, upstream_connection, within, words_of
from actions.postgres_settings import change_settings, read_standing, startup_has_taken

UPSTREAM_S = 2.0
LOOKS = 40
"""How often is_done looks, POLL_S apart: a receiver that writes or fsyncs is for that moment in no wait of its main loop."""
NUDGE_POLLS = 50
"""About 0.25 s. A reload wakes the startup process from wal_retrieve_retry_interval (5 s by default)."""


@dataclass(frozen=True, slots=True)
class FinalPosition:
    """A place in history that will not move while nobody is followed: timeline, and the greater of flushed-received and replayed LSN."""

    timeline: int
    lsn: int


class StopReceiving(PostgresAction[FinalPosition]):
    """Receive from nobody, for good, and say how far this standby has come. Replay may go on; what was received counts.

    Where the upstream died as a timeline had just begun, this standby may know that timeline's history and yet not have come to its
    beginning; Postgres would then write a false history at the next promotion, so the server is started anew without it. That is rare, and
    takes as long as a start.
    """

    name = "stop_receiving"

    def __init__(self, instance: PostgresInstance, session: PostgresSession, kill_tree: KillTree) -> None:
        super().__init__(instance, session)
        self.timeout_s = instance.stop_receiving_timeout_s
        self._starts_anew = False
        self._kill_tree = kill_tree

    async def is_done(self) -> bool:
        settings = await asyncio.to_thread(files.read_role_settings, self.instance.data_dir)
        rows = await self.session.rows(
            "SELECT current_setting('primary_conninfo') FROM pg_stat_activity WHERE backend_type = 'walreceiver'"
        )
        return settings["primary_conninfo"] == "" and not rows

    async def _apply(self, guard: Guard) -> FinalPosition:
        if not (await read_standing(self.session)).in_recovery:
            raise ActionError("it takes writes: it receives from nobody")
        await guard.step("stop_receiving")
        await change_settings(self.instance, self.session, {"primary_conninfo": "", "primary_slot_name": ""})
        await startup_has_taken(self.instance, self.session)
        position = await final_position(self.instance, self.session)
        futures = await asyncio.to_thread(files.unreached_futures, self.instance.data_dir, position.timeline, position.lsn)
        if futures:
            await self._start_without(futures, guard)
            position = await final_position(self.instance, self.session)
        return position

    async def _start_without(self, futures: tuple[int, ...], guard: Guard) -> None:
        self._starts_anew = True
        await Stop(self.instance, self.session, self._kill_tree).apply(guard)
        await asyncio.to_thread(files.forget_futures, self.instance.data_dir, futures)
        await Start(self.instance, self.session).apply(guard)

    async def verify(self) -> None:
        if not await self.is_done():
            raise ActionError("a receiver still runs")

    def lateness(self) -> str:
        if self._starts_anew:
            return "it is starting anew, without the history of a timeline that it never came to"
        return "its replay is busy or blocked, so that it does not let go of its receiver"


async def final_position(instance: PostgresInstance, session: PostgresSession) -> FinalPosition:
    """Where a standby is. The timeline is read from its WAL's file names: pg_control learns of a new one only at the next restartpoint."""
    standing = await read_standing(session)
    return FinalPosition(await asyncio.to_thread(files.newest_timeline, instance.data_dir), standing.position_lsn)


# ------------------------------------------------------------------ the upstream


@dataclass(frozen=True, slots=True)
class UpstreamFacts:
    """What an upstream says over the replication protocol. `slot`: this node's slot there; empty: there is none."""

    system_identifier: str
    timeline: int
    lsn: int
    history: tuple[tuple[int, int], ...]
    slot: str


async def ask_upstream(instance: PostgresInstance, upstream: Upstream, timeout_s: float = UPSTREAM_S) -> UpstreamFacts:
    """Who it is, where it is, its timeline's ancestors; and make this node's slot there, if it can be had. Raises ActionError."""
    try:
        async with upstream_connection(instance, upstream, instance.replication, timeout_s, replication=True) as connection:
            return await within(connection, _ask(connection, slot_name(instance.node)), timeout_s)
    except psycopg.Error as error:
        raise ActionError(f"{upstream.node} does not say where it is: {words_of(error)}") from None


async def _ask(connection: psycopg.AsyncConnection[TupleRow], slot: str) -> UpstreamFacts:
    system, timeline, lsn = (_text(value) for value in (await fetch(connection, "IDENTIFY_SYSTEM"))[0][:3])
    history: tuple[tuple[int, int], ...] = ()
    if int(timeline) > 1:
        rows = await fetch(connection, SQL("TIMELINE_HISTORY {}").format(SQL(str(int(timeline)))))
        history = files.parse_history(bytes(rows[0][1]))
    try:
        await fetch(connection, SQL("CREATE_REPLICATION_SLOT {} PHYSICAL RESERVE_WAL").format(Identifier(slot)))
    except psycopg.errors.DuplicateObject:
        pass
    except psycopg.Error:
        slot = ""  # no place left, or no right: it works without
    return UpstreamFacts(system, int(timeline), parse_lsn(lsn), history, slot)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def why_not_a_descendant(own: FinalPosition, upstream: Upstream, facts: UpstreamFacts) -> str:
    """Why a standby at `own` can never stream from `upstream`, in one sentence; empty: nothing known speaks against it."""
    if facts.timeline < own.timeline:
        return f"{upstream.node} is on timeline {facts.timeline}, older than the own timeline {own.timeline}"
    if facts.timeline == own.timeline:
        return ""
    switch = dict(facts.history).get(own.timeline)
    if switch is None:
        return f"the own timeline {own.timeline} is no ancestor of timeline {facts.timeline} of {upstream.node}: it has to rejoin"
    if own.lsn > switch:
        left = f"{upstream.node} left timeline {own.timeline} at {format_lsn(switch)}"
        return f"{left}, this one went on to {format_lsn(own.lsn)}: it has to rewind"
    return ""


class Receiver(Enum):
    """What one look at the own receiver says."""

    ABSENT = "absent"
    """There is none of this upstream, or it does not call itself streaming."""
    BUSY = "busy"
    """It calls itself streaming, which proves nothing yet: it may be asking, or writing what it received."""
    STREAMS = "streams"


class Follow(PostgresAction[None]):
    """Receive from `upstream` from now on; done when it really streams, on the upstream's timeline or on the way to it.

    pg_stat_wal_receiver says "streaming" before the upstream was even asked, so the receiver must be seen in its main loop, or moving.
    """

    name = "follow"

    def __init__(self, instance: PostgresInstance, session: PostgresSession, upstream: Upstream) -> None:
        super().__init__(instance, session)
        self.upstream = upstream
        self.timeout_s = instance.follow_timeout_s
        self._why = ""
        self._flushed = 0
        self._timeline = 0

    async def is_done(self) -> bool:
        settings = await asyncio.to_thread(files.read_role_settings, self.instance.data_dir)
        if settings["primary_conninfo"] != self.instance.primary_conninfo(self.upstream):
            return False
        for _ in range(LOOKS):
            if (seen := await self._look_at_receiver()) is not Receiver.BUSY:
                return seen is Receiver.STREAMS
            await asyncio.sleep(POLL_S)
        return False

    async def _apply(self, guard: Guard) -> None:
        if not (await read_standing(self.session)).in_recovery:
            raise ActionError("it takes writes: it follows nobody")
        facts = await self._look()
        if facts is not None and await self.is_done():
            return
        await guard.step("follow")
        await asyncio.to_thread(self._prepare)
        slot = "" if facts is None else facts.slot
        settings = {"primary_conninfo": self.instance.primary_conninfo(self.upstream), "primary_slot_name": slot}
        await change_settings(self.instance, self.session, settings)
        await self._wait()
        await drop_own_slots(self.session)

    def _prepare(self) -> None:
        files.remove_placeholders(self.instance.data_dir)
        files.write_durably(self.instance.passfile, passfile_content(self.instance.replication))

    async def _look(self) -> UpstreamFacts | None:
        """Ask the upstream; ActionError when its history has no place for ours; None, and a sentence kept, when it does not answer."""
        try:
            facts = await ask_upstream(self.instance, self.upstream)
        except ActionError as error:
            self._why = str(error)
            return None
        own_system = (await self.session.rows("SELECT system_identifier::text FROM pg_control_system()"))[0][0]
        if own_system != facts.system_identifier:
            raise ActionError(
                f"{self.upstream.node} is another cluster: its system identifier is {facts.system_identifier}, not {own_system}"
            )
        if refusal := why_not_a_descendant(await final_position(self.instance, self.session), self.upstream, facts):
            raise ActionError(refusal)
        self._timeline = facts.timeline
        self._why = f"{self.upstream.node} answers, yet no receiver streams from it (the server's log says why)"
        return facts

    async def _wait(self) -> None:
        polls = 0
        while await self._look_at_receiver() is not Receiver.STREAMS:
            await asyncio.sleep(POLL_S)
            polls += 1
            if polls % NUDGE_POLLS == 0:
                await self._look()
                await self.session.rows("SELECT pg_reload_conf()")

    async def _look_at_receiver(self) -> Receiver:
        rows = await self.session.rows(
            "SELECT r.status, r.sender_host, r.sender_port, r.received_tli, r.flushed_lsn, a.wait_event"
            " FROM pg_stat_wal_receiver AS r JOIN pg_stat_activity AS a USING (pid)"
        )
        if not rows or rows[0][0] != "streaming" or (rows[0][1], rows[0][2]) != (self.upstream.host, self.upstream.port):
            return Receiver.ABSENT
        flushed = 0 if rows[0][4] is None else parse_lsn(str(rows[0][4]))
        moved, self._flushed = 0 < self._flushed < flushed, flushed
        if moved or (rows[0][5] == "WalReceiverMain" and int(rows[0][3] or 0) >= self._timeline):
            return Receiver.STREAMS
        return Receiver.BUSY

    async def verify(self) -> None:
        if not await self.is_done():
            raise ActionError(f"it does not stream from {self.upstream.node}")

    def lateness(self) -> str:
        return self._why


async def drop_own_slots(session: PostgresSession) -> None:
    """Drop the inactive slots that other members used here. Best effort: one that is in use again stays."""
    with contextlib.suppress(psycopg.Error):
        query = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active AND starts_with(slot_name, %s)"
        for row in await session.rows(query, (SLOT_PREFIX,)):
            with contextlib.suppress(psycopg.Error):
                await session.rows("SELECT pg_drop_replication_slot(%s)", (row[0],))
