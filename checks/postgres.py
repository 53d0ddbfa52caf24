"""Whether a Postgres is alive, serves in its role, and is well.

liveness: takes a connection and answers `SELECT 1`. readiness: is what `role` says. deep: that, and the three facts of lag, no query
older than `slow_after`, connections left. Every run uses a connection of its own, because taking connections is what is asked.
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
from checks.postgres_client import Connection, Target, ask, bounded_sql, connect, parse_target
from checks.postgres_facts import ActivityFacts, PostgresFacts, ReceiverFacts, read_activity, read_facts
from checks.units import Duration, Size

FULL_AT = 0.9
"""Share of the connections in use that counts as degraded."""
LINK_SILENT_AT = 0.75
"""Share of wal_receiver_timeout without a message: a live link speaks at half of it at the latest."""
PASSWORD_LIMIT_BYTES = 4096


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
        if self.password is not None and self.password_file is not None:
            raise ValueError("expected password or password_file, not both")
        return self


class PostgresCheck(Check[PostgresOptions]):
    """One server, asked at one level."""

    kind: ClassVar[str] = "postgres"
    options_model: ClassVar[type[CheckOptions]] = PostgresOptions
    levels: ClassVar[frozenset[Level]] = frozenset(Level)

    async def probe(self, timeout_s: float, log: RunLog) -> Result:
        progress = Progress(log)
        target = parse_target(self.options.dsn, self.options.password)
        return await within(target.name, timeout_s, progress, self._ask(target, timeout_s, progress))

    async def _ask(self, target: Target, timeout_s: float, progress: Progress) -> Result:
        if self.options.password_file is not None:
            target = replace(target, password=_read_password(self.options.password_file))
        connection = await connect(target, progress)
        try:
            if self.level is Level.LIVENESS:
                return await _alive(connection, target, timeout_s, progress)
            if self.level is Level.READINESS:
                return await self._ready(connection, target, timeout_s, progress)
            return await self._well(connection, target, timeout_s, progress)
        finally:
            await connection.close()

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
        progress.enter("setting the server's own limit")
        await ask(connection, bounded_sql("SELECT 1", timeout_s), target.name)
        progress.enter("reading the facts")
        facts = await read_facts(connection, timeout_s, target.name)
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


def _read_password(path: Path) -> SecretStr:
    """The first line of the file. ProbeFailed says why it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            password = file.readline(PASSWORD_LIMIT_BYTES).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "it is no text"
        raise ProbeFailed(Reason.LOCAL, f"password_file: {path} cannot be read: {words}") from None
    if not password:
        raise ProbeFailed(Reason.LOCAL, f"password_file: {path} is empty")
    return SecretStr(password)
