from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from checks.base import Level
from checks.postgres import PostgresCheck, PostgresOptions, Role
from checks.postgres_facts import ActivityFacts, PostgresFacts, ReceiverFacts, ReplicaFacts

MIB = 1 << 20
CALM = ActivityFacts(longest_query_s=0.0, connections=1, max_connections=100, receiver_timeout_s=60.0)
LINK = ReceiverFacts("streaming", "192.0.2.1", 5432, 1, 100 * MIB, 100 * MIB, 1.0)
REPLICA = ReplicaFacts("pg2", "streaming", "async", 100 * MIB, 100 * MIB, 100 * MIB, 0, 0.1, 100, "12:00")


def facts(
    *, in_recovery: bool, receiver: ReceiverFacts | None = None, replicas: tuple[ReplicaFacts, ...] = (), replayed: int = 100 * MIB
) -> PostgresFacts:
    return PostgresFacts(
        server_version=150018,
        system_identifier="1",
        in_recovery=in_recovery,
        timeline=1,
        lsn=100 * MIB,
        received_lsn=None,
        replayed_lsn=replayed if in_recovery else None,
        replay_age_s=7.0 if in_recovery else None,
        receiver=receiver,
        replicas=replicas,
        primary_conninfo="host=192.0.2.1" if in_recovery else "",
        synchronous_standby_names="",
        default_read_only=False,
        sees_all=True,
    )


def complaints(seen: PostgresFacts, activity: ActivityFacts = CALM) -> str:
    check = PostgresCheck(Level.DEEP, PostgresOptions(dsn="host=192.0.2.1"))
    return "; ".join(check._complaints(seen, activity))


def test_a_standby_that_streams_and_has_replayed_is_well() -> None:
    assert complaints(facts(in_recovery=True, receiver=LINK)) == ""


def test_a_cut_link_is_told_although_no_byte_is_known_to_be_missing() -> None:
    assert complaints(facts(in_recovery=True)) == "it receives nothing from its upstream (its last replayed commit is 7.0 s old)"


def test_a_silent_link_is_told() -> None:
    silent = ReceiverFacts("streaming", "192.0.2.1", 5432, 1, 100 * MIB, 100 * MIB, 46.0)
    assert "has not spoken for 46.0 s" in complaints(facts(in_recovery=True, receiver=silent))


def test_an_old_last_commit_alone_is_no_lag() -> None:
    assert complaints(facts(in_recovery=True, receiver=LINK)) == ""


def test_too_many_bytes_behind_is_told_by_the_standby_and_by_the_primary() -> None:
    assert "bytes behind its upstream" in complaints(facts(in_recovery=True, receiver=LINK, replayed=80 * MIB))
    behind = ReplicaFacts("pg2", "streaming", "async", 0, 0, 0, 17 * MIB, 0.1, 100, "12:00")
    assert "standby pg2 is 17825792 bytes behind" in complaints(facts(in_recovery=False, replicas=(REPLICA, behind)))


def test_a_standby_that_catches_up_is_told() -> None:
    assert "pg2 does not stream yet" in complaints(
        facts(in_recovery=False, replicas=(ReplicaFacts("pg2", "catchup", "async", 0, 0, 0, 0, 0.1, 100, "12:00"),))
    )


def test_a_slow_query_and_a_full_server_are_told() -> None:
    busy = ActivityFacts(longest_query_s=5.1, connections=90, max_connections=100, receiver_timeout_s=60.0)
    assert (
        complaints(facts(in_recovery=False), busy)
        == "a query has been running for 5.1 s, longer than 5 s; 90 of 100 connections are in use"
    )


@pytest.mark.parametrize(
    "dsn", ["host", "host=a,b", "host=a port=0", "host=a port=http", "host=a,b port=1,2", "nonsense='", "host=a port=1,2"]
)
def test_a_connection_string_that_names_no_one_host_is_refused(dsn: str) -> None:
    with pytest.raises(ValidationError, match="expected"):
        PostgresOptions(dsn=dsn)


@pytest.mark.parametrize("dsn", ["host=a password=secret", "postgresql://me:secret@a/db"])
def test_a_password_in_the_connection_string_is_refused_and_not_repeated(dsn: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PostgresOptions(dsn=dsn)
    [problem] = caught.value.errors(include_input=False)
    assert "password_file" in problem["msg"]
    assert "secret" not in problem["msg"]


def test_two_passwords_are_refused() -> None:
    with pytest.raises(ValidationError, match="not both"):
        PostgresOptions.model_validate({"dsn": "host=a", "password": "x", "password_file": Path("/x")})


def test_options_have_units_and_a_role() -> None:
    options = PostgresOptions.model_validate({"dsn": "host=a", "max_lag": "1MiB", "slow_after": "500ms", "role": "standby"})
    assert (options.max_lag, options.slow_after, options.role) == (MIB, 0.5, Role.STANDBY)
