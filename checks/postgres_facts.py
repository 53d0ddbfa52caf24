"""What a Postgres says of itself, typed, in one round trip. Postgres 13 and later; as superuser or as a member of pg_monitor.

LSNs are bytes since 0/0. Facts are read by one statement, so that they belong to one moment; what a role may not see is None.
Lag is three facts, never one number: is the link alive and when did the last message come; how many bytes behind; how old is what was
replayed last (which grows on an idle primary, and so proves nothing alone).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import TypeAdapter, ValidationError

from checks.base import Facts
from checks.network import ProbeFailed, Reason
from checks.postgres_client import Connection, ask, bounded_sql

STREAMING = "streaming"
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class ReceiverFacts:
    """A standby's link to its upstream: pg_stat_wal_receiver. There is none while it is not connected."""

    status: str | None
    sender_host: str | None
    sender_port: int | None
    timeline: int | None
    flushed_lsn: int | None
    upstream_lsn: int | None
    """How far the upstream had written, as it last said."""
    last_message_age_s: float | None

    @property
    def is_streaming(self) -> bool:
        return self.status == STREAMING


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """A standby as its primary sees it: pg_stat_replication."""

    application_name: str
    state: str | None
    sync_state: str | None
    sent_lsn: int | None
    flushed_lsn: int | None
    replayed_lsn: int | None
    lag_bytes: int | None
    """From what this server has written to what the other has replayed."""
    last_reply_age_s: float | None
    """By two machines' clocks: for people."""
    pid: int
    """Of the process that serves it, here."""
    reply_time: str | None
    """When the standby sent its last reply, by its own clock."""

    @property
    def is_streaming(self) -> bool:
        return self.state == STREAMING


@dataclass(frozen=True, slots=True)
class ActivityFacts:
    """How busy it is. Read by the deep check only."""

    longest_query_s: float
    """Age of the longest running active query of other clients; 0: none."""
    connections: int
    max_connections: int
    """For ordinary roles: without the reserved ones."""
    receiver_timeout_s: float


@dataclass(frozen=True, slots=True)
class PostgresFacts(Facts):
    """One moment of one server."""

    server_version: int
    system_identifier: str
    in_recovery: bool
    timeline: int
    lsn: int
    """Primary: flushed. Standby: the greater of flushed-received and replayed."""
    received_lsn: int | None
    replayed_lsn: int | None
    replay_age_s: float | None
    """Since the commit that was replayed last was made; None on a primary, or before the first one."""
    receiver: ReceiverFacts | None
    replicas: tuple[ReplicaFacts, ...]
    primary_conninfo: str | None
    """The setting without its password; empty: not set; None: this role may not see it."""
    synchronous_standby_names: str
    default_read_only: bool
    sees_all: bool
    """Whether this role may see replication and the activity of others (pg_monitor)."""
    activity: ActivityFacts | None = None

    @property
    def upstream(self) -> tuple[str, int] | None:
        """Host and port that primary_conninfo names; None: none, or not to be seen."""
        if not self.primary_conninfo:
            return None
        return _place_in(self.primary_conninfo)

    @property
    def behind_bytes(self) -> int | None:
        """A standby's distance from what its upstream last said it had written; None: no link, or a primary."""
        if self.receiver is None or self.receiver.upstream_lsn is None or self.replayed_lsn is None:
            return None
        return max(0, self.receiver.upstream_lsn - self.replayed_lsn)


_BYTES = "({} - '0/0'::pg_lsn)::bigint"
_AGE = "extract(epoch FROM clock_timestamp() - {})::float8"
_LSN = """CASE WHEN server.in_recovery
    THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_flush_lsn() END"""

# in_recovery is read once and every branch hangs on it: a promotion in the middle of the statement cannot mix two roles, because a server
# never goes back into recovery, and the functions of a standby answer on a primary, too.
_FACTS = f"""
SELECT json_build_object(
  'server_version', current_setting('server_version_num')::int,
  'system_identifier', system.system_identifier::text,
  'in_recovery', server.in_recovery,
  'timeline', CASE WHEN server.in_recovery
    THEN greatest(checkpoint.timeline_id, recovery.min_recovery_end_timeline, receiver.received_tli)
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  'lsn', {_BYTES.format(_LSN)},
  'received_lsn', {_BYTES.format("CASE WHEN server.in_recovery THEN pg_last_wal_receive_lsn() END")},
  'replayed_lsn', {_BYTES.format("CASE WHEN server.in_recovery THEN pg_last_wal_replay_lsn() END")},
  'replay_age_s', CASE WHEN server.in_recovery THEN {_AGE.format("pg_last_xact_replay_timestamp()")} END,
  'receiver', CASE WHEN server.in_recovery AND receiver.pid IS NOT NULL THEN json_build_object(
    'status', receiver.status,
    'sender_host', receiver.sender_host,
    'sender_port', receiver.sender_port,
    'timeline', receiver.received_tli,
    'flushed_lsn', {_BYTES.format("receiver.flushed_lsn")},
    'upstream_lsn', {_BYTES.format("receiver.latest_end_lsn")},
    'last_message_age_s', {_AGE.format("receiver.last_msg_receipt_time")}) END,
  'replicas', (
    SELECT coalesce(json_agg(json_build_object(
      'application_name', application_name,
      'state', state,
      'sync_state', sync_state,
      'sent_lsn', {_BYTES.format("sent_lsn")},
      'flushed_lsn', {_BYTES.format("flush_lsn")},
      'replayed_lsn', {_BYTES.format("replay_lsn")},
      'lag_bytes', greatest(0, {_LSN} - replay_lsn)::bigint,
      'last_reply_age_s', {_AGE.format("reply_time")},
      'pid', pid,
      'reply_time', reply_time::text) ORDER BY application_name, pid), '[]'::json)
    FROM pg_stat_replication WHERE state IS DISTINCT FROM 'backup'),
  'primary_conninfo', CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') THEN current_setting('primary_conninfo') END,
  'synchronous_standby_names', current_setting('synchronous_standby_names'),
  'default_read_only', current_setting('default_transaction_read_only') = 'on',
  'sees_all', pg_has_role('pg_read_all_stats', 'USAGE')
)::text
FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) AS server
CROSS JOIN pg_control_system() AS system
CROSS JOIN pg_control_checkpoint() AS checkpoint
CROSS JOIN pg_control_recovery() AS recovery
LEFT JOIN pg_stat_wal_receiver AS receiver ON true
"""  # noqa: S608 (made of this file's constants only)

_ACTIVITY = """
SELECT json_build_object(
  'longest_query_s', greatest(0, coalesce(max(extract(epoch FROM clock_timestamp() - query_start))
    FILTER (WHERE state = 'active' AND pid <> pg_backend_pid()), 0))::float8,
  'connections', count(*),
  'max_connections', current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0),
  'receiver_timeout_s', (SELECT setting::float8 / 1000 FROM pg_settings WHERE name = 'wal_receiver_timeout')
)::text
FROM pg_stat_activity WHERE backend_type = 'client backend'
"""

_FACTS_TYPE = TypeAdapter(PostgresFacts)
_ACTIVITY_TYPE = TypeAdapter(ActivityFacts)


async def read_facts(connection: Connection, timeout_s: float, name: str = "Postgres", *, bounded: bool = False) -> PostgresFacts:
    """The facts that a failover needs, in one round trip on an open connection in autocommit.

    `bounded`: the server, too, ends this question, and the later ones of this connection, after `timeout_s`.
    Raises ProbeFailed, also when `timeout_s` passes; after a deadline or a cancellation the connection is dead and wants to be closed.
    """
    answer = await _ask_in_time(connection, bounded_sql(_FACTS, timeout_s) if bounded else _FACTS, timeout_s, name)
    facts = _parse(_FACTS_TYPE, answer, name)
    return replace(facts, primary_conninfo=None if facts.primary_conninfo is None else without_password(facts.primary_conninfo))


async def read_activity(connection: Connection, timeout_s: float, name: str = "Postgres") -> ActivityFacts:
    """How busy the server is. Raises as `read_facts` does."""
    return _parse(_ACTIVITY_TYPE, await _ask_in_time(connection, _ACTIVITY, timeout_s, name), name)


async def _ask_in_time(connection: Connection, sql: str, timeout_s: float, name: str) -> str:
    try:
        async with asyncio.timeout(timeout_s):
            return str(await ask(connection, sql, name))
    except TimeoutError:
        raise ProbeFailed(Reason.TIMEOUT, f"{name} gave no answer within {timeout_s:g} s") from None


def _parse(adapter: TypeAdapter[F], answer: str, name: str) -> F:
    try:
        return adapter.validate_json(answer)
    except ValidationError:
        raise ProbeFailed(Reason.GARBAGE, f"{name} answered with facts that make no sense") from None


@lru_cache(16)
def _place_in(conninfo: str) -> tuple[str, int]:
    """Read once: a setting is asked for several times a second and hardly ever changes."""
    parameters = conninfo_to_dict(conninfo)
    return str(parameters.get("host") or ""), int(parameters.get("port") or 5432)


@lru_cache(16)
def without_password(conninfo: str) -> str:
    """A connection string without its password; empty when it cannot be read."""
    try:
        parameters = {key: value for key, value in conninfo_to_dict(conninfo).items() if key not in {"password", "sslpassword"}}
    except psycopg.Error:
        return ""
    return make_conninfo("", **parameters)
