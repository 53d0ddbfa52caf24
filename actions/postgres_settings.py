"""Changing the role settings of a running server, and PROOF that a change was taken where it matters.

pg_reload_conf() only asks; each process reads the configuration when it comes round to it. A checkpointer in the middle of an fsync may
take seconds, and until then commits do not wait for a standby; a startup process that has not looked yet may start one more receiver for
the old upstream, which pg_stat_wal_receiver does not even show while it connects. So: the process gets a SIGHUP of our own (pending when
the call returns), and is then seen asleep in the wait of its main loop, before and after the question where it waits. It cannot sleep there
with a signal not yet handled.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from actions.base import ActionError
from actions.postgres_files import ROLE_SETTINGS, read_role_settings
from actions.postgres_instance import PostgresInstance, parse_lsn
from actions.postgres_process import POLL_S, nap, signal_member, until
from actions.postgres_session import PostgresSession, words_of

STARTUP_IDLE = "RecoveryRetrieveRetryInterval"
"""The startup process has replayed all there is, no receiver runs for it, and it waits before it looks again."""
CHECKPOINTER_IDLE = ("CheckpointerMain", "CheckpointWriteDelay")
"""Idle, or pausing between two pages of a checkpoint that is spread over minutes: it reads the settings before it sleeps in either."""
GRACE_POLLS = 20
"""About 0.1 s: a startup process that is not busy ends its receiver within 5 ms."""


async def change_settings(instance: PostgresInstance, session: PostgresSession, settings: Mapping[str, str]) -> None:
    """Make these role settings durable by ALTER SYSTEM and have every process asked to take them. Skips what stands already."""
    assert set(settings) <= set(ROLE_SETTINGS), f"not quorate's to set: {settings.keys()}"
    standing = await asyncio.to_thread(read_role_settings, instance.data_dir)
    for name, value in settings.items():
        if standing[name] != value:
            await session.rows(SQL("ALTER SYSTEM SET {} = {}").format(Identifier(name), Literal(value)))
    await session.rows("SELECT pg_reload_conf()")
    for name, value in settings.items():
        await _until_seen(session, name, value)


async def _until_seen(session: PostgresSession, name: str, value: str) -> None:
    """The postmaster has read it: our own session has. A setting that stays different is set elsewhere, with precedence."""
    for _ in range(1000):
        rows = await session.rows("SELECT current_setting(%s)", (name,))
        if rows[0][0] == value:
            return
        await asyncio.sleep(POLL_S / 5)
    raise ActionError(f"{name} is set elsewhere (command line, or ALTER ROLE or DATABASE): quorate's value does not come through")


async def checkpointer_has_taken(instance: PostgresInstance, session: PostgresSession) -> None:
    """Return when the checkpointer has read the configuration after this call: from then on commits know whether they have to wait."""
    pid = (await _where(session, "checkpointer"))[0]
    signal_member(pid, instance.data_dir, signal.SIGHUP)
    await until(lambda: _sleeps_in(session, "checkpointer", *CHECKPOINTER_IDLE))


async def startup_has_taken(instance: PostgresInstance, session: PostgresSession) -> None:
    """Return when the startup process has read the configuration after this call and no receiver is left.

    Proof is that it was seen asleep where a SIGHUP wakes it; or, replaying a backlog, that it went on by two records; or, paused, that it
    woke twice: it looks before each. A receiver that outlives GRACE_POLLS (the startup process is busy elsewhere) is ended by us.
    """
    startup, _ = await _where(session, "startup")
    signal_member(startup, instance.data_dir, signal.SIGHUP)
    replayed, turns, naps = await _replayed(session), 0, nap(startup) or 0
    for polls in itertools.count():
        asleep = await _sleeps_in(session, "startup", STARTUP_IDLE, "RecoveryApplyDelay")
        now = await _replayed(session)
        turns, replayed = turns + (now > replayed), now
        woke_twice = await _sleeps_in(session, "startup", "RecoveryPause") and (nap(startup) or 0) >= naps + 2
        receiver, _ = await _where(session, "walreceiver")
        if receiver == 0 and (asleep or turns >= 2 or woke_twice):
            return
        if receiver and polls >= GRACE_POLLS:
            signal_member(receiver, instance.data_dir, signal.SIGTERM)
        await asyncio.sleep(POLL_S)


async def replay_is_at_the_end(session: PostgresSession) -> None:
    """Return when everything that is here has been replayed. Call it only with no upstream set."""
    await until(lambda: _sleeps_in(session, "startup", STARTUP_IDLE))


async def _where(session: PostgresSession, kind: str) -> tuple[int, str]:
    """Pid and wait event of one of the server's own processes; (0, "") when there is none."""
    rows = await session.rows("SELECT pid, wait_event FROM pg_stat_activity WHERE backend_type = %s", (kind,))
    return (int(rows[0][0]), str(rows[0][1] or "")) if rows else (0, "")


async def _sleeps_in(session: PostgresSession, kind: str, *events: str) -> bool:
    pid, _ = await _where(session, kind)
    before = nap(pid)
    again, seen = await _where(session, kind)
    return before is not None and again == pid and seen in events and nap(pid) == before


async def _replayed(session: PostgresSession) -> int:
    rows = await session.rows("SELECT pg_last_wal_replay_lsn()")
    return 0 if not rows or rows[0][0] is None else parse_lsn(str(rows[0][0]))


@dataclass(frozen=True, slots=True)
class Standing:
    """What a server that answers is right now."""

    in_recovery: bool
    received_lsn: int
    replayed_lsn: int
    """Both 0 on a primary."""

    @property
    def position_lsn(self) -> int:
        return max(self.received_lsn, self.replayed_lsn)


async def read_standing(session: PostgresSession) -> Standing:
    """Ask whether it is in recovery and how far it has come. Raises ActionError."""
    try:
        rows = await session.rows(
            "SELECT r.recovering, CASE WHEN r.recovering THEN pg_last_wal_receive_lsn() END,"
            " CASE WHEN r.recovering THEN pg_last_wal_replay_lsn() END"
            " FROM (SELECT pg_is_in_recovery() AS recovering OFFSET 0) AS r"
        )
    except psycopg.Error as error:
        raise ActionError(f"Postgres does not say what it is: {words_of(error)}") from None
    recovering, received, replayed = rows[0]
    return Standing(bool(recovering), *(0 if lsn is None else parse_lsn(str(lsn)) for lsn in (received, replayed)))
