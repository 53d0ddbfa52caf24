"""Whether a Postgres is alive, serves in its role, and is well.

liveness: takes a connection and answers `SELECT 1`. readiness: is what `role` says. deep: that, and the three facts of lag, no query
older than `slow_after`, connections left. The connection is kept between runs (postgres_kept); because taking connections is what
liveness asks, each of its runs also knocks as a newcomer would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, SecretStr, model_validator

from checks.base import Check, CheckOptions, Level, Result, RunLog, Status
from checks.network import ProbeFailed, Progress, Reason, within
from checks.postgres_client import Connection, Target, ask, bounded_sql, parse_target
from checks.postgres_facts import ActivityFacts, PostgresFacts, ReceiverFacts, read_activity, read_facts
from checks.postgres_kept import KeptConnection
from checks.secret_file import at_most_one, secret_of
from checks.units import Duration, Size

FULL_AT = 0.9
"""Share of the connections in use that counts as degraded."""
LINK_SILENT_AT = 0.75
"""Share of wal_receiver_timeout without a message: a live link speaks at half of it at the latest."""


class Role(StrEnum):
    """What the server should be."""

    ANY = "any"
    PRIMARY = "primary"
    STANDBY = "standby"


def _dsn(value: str) -> str:
    if parse_target(value).password is not None:
        raise ValueError("expected no password here, where it can be read: use password or password_file")
    return value


class PostgresOptions(CheckOptions):
    """Options of `type: postgres`."""

    dsn: Annotated[str, AfterValidator(_dsn)]
    """libpq connection string of one host, or of a socket's folder; without a password."""
    password: SecretStr | None = None
    """Password of the role. Better: password_file."""
    password_file: Path | None = None
    """File whose first line is the password; read at each run, so that it may change."""
    role: Role = Role.ANY
    """What it must be to be ready."""
    max_lag: Size = 16 << 20
    """Bytes that a standby may be behind."""
    slow_after: Duration = 5.0
    """Age from which a running query counts as slow."""

    @model_validator(mode="after")
    def _one_password(self) -> PostgresOptions:
        at_most_one("password", self.password, self.password_file)
        return self


class PostgresCheck(Check[PostgresOptions]):
    """One server, asked at one level."""

    kind: ClassVar[str] = "postgres"
    options_model: ClassVar[type[CheckOptions]] = PostgresOptions
    levels: ClassVar[frozenset[Level]] = frozenset(Level)

    def __init__(self, level: Level, options: PostgresOptions) -> None:
        super().__init__(level, options)
        self._target = parse_target(options.dsn)
        self._kept = KeptConnection(knocks=level is Level.LIVENESS)

    async def probe(self, timeout_s: float, log: RunLog) -> Result:
        progress = Progress(log)
        return await within(self._target.name, timeout_s, progress, self._ask(timeout_s, progress))

    async def close(self) -> None:
        await self._kept.close()

    async def _ask(self, timeout_s: float, progress: Progress) -> Result:
        target = replace(self._target, password=secret_of("password_file", self.options.password, self.options.password_file))
        question = {Level.LIVENESS: _alive, Level.READINESS: self._ready, Level.DEEP: self._well}[self.level]
        return await self._kept.ask(target, progress, lambda connection: question(connection, target, timeout_s, progress))

    async def _ready(self, connection: Connection, target: Target, timeout_s: float, progress: Progress) -> Result:
        progress.enter("asking for its role")
        sql = "SELECT ARRAY[pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on']"
        in_recovery, read_only = await ask(connection, bounded_sql(sql, timeout_s), target.name)
        return self._judge_role(target.name, in_recovery=in_recovery, read_only=read_only)

    def _judge_role(self, name: str, *, in_recovery: bool, read_only: bool) -> Result:
        role = self.options.role
        found = "a standby" if in_recovery else "a primary that is set to read only" if read_only else "a primary"
        fits = role is Role.ANY or (role is Role.STANDBY and in_recovery) or (role is Role.PRIMARY and not in_recovery and not read_only)
        if fits:
            return Result(Status.HEALTHY, f"{name} is {found}")
        return Result(Status.UNHEALTHY, f"{name} is {found}, but should be a {role}")

    async def _well(self, connection: Connection, target: Target, timeout_s: float, progress: Progress) -> Result:
        progress.enter("reading the facts")
        facts = await read_facts(connection, timeout_s, target.name, bounded=True)
        if not facts.sees_all:
            raise ProbeFailed(Reason.LOGIN, f"{target.name} does not show this role its replication and activity: GRANT pg_monitor to it")
        progress.enter("reading the activity")
        activity = await read_activity(connection, timeout_s, target.name)
        role = self._judge_role(target.name, in_recovery=facts.in_recovery, read_only=facts.default_read_only)
        complaints = tuple(self._complaints(facts, activity))
        status = role.status if role.status is Status.UNHEALTHY or not complaints else Status.DEGRADED
        sentence = "; ".join((role.sentence, *(complaints or (_praise(facts),))))
        return Result(status, sentence, facts=replace(facts, activity=activity))

    def _complaints(self, facts: PostgresFacts, activity: ActivityFacts) -> Iterator[str]:
        if facts.in_recovery and facts.primary_conninfo:
            yield from self._link_complaints(facts, activity)
        for replica in facts.replicas:
            if not replica.is_streaming:
                yield f"standby {replica.application_name} does not stream yet (state {replica.state})"
            elif replica.lag_bytes is None or replica.lag_bytes > self.options.max_lag:
                yield f"standby {replica.application_name} is {replica.lag_bytes} bytes behind, more than {self.options.max_lag}"
        if activity.longest_query_s > self.options.slow_after:
            yield f"a query has been running for {activity.longest_query_s:.1f} s, longer than {self.options.slow_after:g} s"
        if activity.connections >= math.floor(activity.max_connections * FULL_AT):
            yield f"{activity.connections} of {activity.max_connections} connections are in use"

    def _link_complaints(self, facts: PostgresFacts, activity: ActivityFacts) -> Iterator[str]:
        receiver = facts.receiver
        if receiver is None or not receiver.is_streaming:
            yield f"it receives nothing from its upstream{_age(facts)}"
            return
        if _is_silent(receiver, activity.receiver_timeout_s):
            yield f"its upstream has not spoken for {receiver.last_message_age_s:.1f} s{_age(facts)}"
        if facts.behind_bytes is not None and facts.behind_bytes > self.options.max_lag:
            yield f"it is {facts.behind_bytes} bytes behind its upstream, more than {self.options.max_lag}{_age(facts)}"


async def _alive(connection: Connection, target: Target, timeout_s: float, progress: Progress) -> Result:
    progress.enter("asking SELECT 1")
    if await ask(connection, bounded_sql("SELECT 1", timeout_s), target.name) != 1:
        raise ProbeFailed(Reason.GARBAGE, f"{target.name} answers SELECT 1 with something else")
    return Result(Status.HEALTHY, f"{target.name} answers")


def _is_silent(receiver: ReceiverFacts, timeout_s: float) -> bool:
    limit_s = LINK_SILENT_AT * (timeout_s or 60.0)
    return receiver.last_message_age_s is not None and receiver.last_message_age_s > limit_s


def _age(facts: PostgresFacts) -> str:
    return "" if facts.replay_age_s is None else f" (its last replayed commit is {facts.replay_age_s:.1f} s old)"


def _praise(facts: PostgresFacts) -> str:
    if facts.in_recovery:
        return "nothing to receive from" if not facts.primary_conninfo else f"{facts.behind_bytes or 0} bytes behind its upstream"
    return f"{len(facts.replicas)} standby(s) streaming"
