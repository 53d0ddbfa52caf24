"""The postgres check and its facts on real servers of every version that is here."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
from pydantic import SecretStr

from checks.base import Level, Result, RunLog, Status
from checks.network import ProbeFailed, Progress, Reason
from checks.postgres import PostgresCheck, PostgresOptions
from checks.postgres_client import Connection, Writable, ask, bounded_sql, connect, is_writable, parse_target
from checks.postgres_facts import PostgresFacts, read_facts
from tests.polling import eventually, eventually_async
from tests.servers.postgres import PASSWORDS, PostgresServer, all_bin_dirs, own

TIMEOUT_S = 5.0
Maker = Callable[[], PostgresServer]


@pytest.fixture(scope="module", params=sorted(all_bin_dirs()) or ["none"])
def pair(request: pytest.FixtureRequest, postgres_bin: Path) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and a standby that streams, of each Postgres on this machine. Tests leave them as they were."""
    bin_dir = all_bin_dirs().get(request.param, postgres_bin)
    with PostgresServer(bin_dir=bin_dir) as primary, PostgresServer(bin_dir=bin_dir) as standby:
        primary.initdb()
        primary.start()
        standby.base_backup_from(primary, name="pg2")
        standby.start()
        primary.wait_streaming()
        yield primary, standby


def dsn(server: PostgresServer, user: str = "quorate", database: str = "postgres", extra: str = "") -> str:
    return f"host=127.0.0.1 port={server.port} user={user} dbname={database} {extra}"


async def probe(server: PostgresServer, level: Level = Level.LIVENESS, timeout_s: float = TIMEOUT_S, **options: object) -> Result:
    """One run; by default as `quorate` over TCP with its password."""
    given = {"dsn": dsn(server), "password": PASSWORDS["quorate"], **options}
    check = PostgresCheck(level, PostgresOptions.model_validate(given))
    try:
        return await check.probe(timeout_s, RunLog())
    finally:
        await check.close()


async def writable(server: PostgresServer, user: str = "quorate", password: str | None = None, timeout_s: float = TIMEOUT_S) -> Writable:
    return await is_writable(parse_target(dsn(server, user), SecretStr(password or PASSWORDS[user])), timeout_s)


@asynccontextmanager
async def connected(conninfo: str) -> AsyncIterator[Connection]:
    async with asyncio.timeout(TIMEOUT_S):
        connection = await connect(parse_target(conninfo), Progress(RunLog()))
    try:
        yield connection
    finally:
        await connection.close()


async def facts_of(server: PostgresServer, user: str = "quorate") -> PostgresFacts:
    async with connected(server.dsn(user)) as connection:
        return await read_facts(connection, TIMEOUT_S)


def write(server: PostgresServer, kilobytes: int = 1) -> None:
    server.psql(f"SELECT pg_logical_emit_message(true, 'test', repeat('x', {kilobytes * 1024}))")


# ------------------------------------------------------------------ facts


@pytest.mark.parametrize("user", ["quorate", "postgres"])
async def test_a_primary_says_what_a_failover_needs(pair: tuple[PostgresServer, PostgresServer], user: str) -> None:
    primary, _ = pair
    write(primary)
    before = int(primary.psql("SELECT pg_current_wal_flush_lsn() - '0/0'"))
    facts = await facts_of(primary, user)
    assert (facts.in_recovery, facts.timeline, facts.receiver, facts.replayed_lsn, facts.primary_conninfo) == (False, 1, None, None, "")
    assert before <= facts.lsn < before + (1 << 20)
    assert facts.system_identifier == primary.psql("SELECT system_identifier FROM pg_control_system()")
    [replica] = facts.replicas
    assert (replica.application_name, replica.is_streaming, replica.sync_state) == ("pg2", True, "async")
    assert facts.sees_all


@pytest.mark.parametrize("user", ["quorate", "postgres"])
async def test_a_standby_says_what_a_failover_needs(pair: tuple[PostgresServer, PostgresServer], user: str) -> None:
    primary, standby = pair
    write(primary)
    target = int(primary.psql("SELECT pg_current_wal_flush_lsn() - '0/0'"))

    async def caught_up() -> PostgresFacts | None:
        facts = await facts_of(standby, user)
        return facts if (facts.replayed_lsn or 0) >= target else None

    facts = await eventually_async(caught_up)
    assert facts is not None
    assert (facts.in_recovery, facts.timeline, facts.replicas) == (True, 1, ())
    assert facts.lsn >= target
    assert facts.receiver is not None
    assert (facts.receiver.is_streaming, facts.receiver.sender_port, facts.receiver.timeline) == (True, primary.port, 1)
    assert facts.upstream == ("127.0.0.1", primary.port)
    assert facts.behind_bytes is not None
    assert facts.replay_age_s is not None
    assert PASSWORDS["replicator"] not in repr(facts)
    assert "application_name=pg2" in (facts.primary_conninfo or "")


async def test_a_role_without_rights_sees_its_facts_as_unknown(pair: tuple[PostgresServer, PostgresServer]) -> None:
    facts = await facts_of(pair[1], "plain")
    assert (facts.sees_all, facts.primary_conninfo, facts.in_recovery) == (False, None, True)


async def test_the_facts_take_one_round_trip(pair: tuple[PostgresServer, PostgresServer], tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with connected(pair[0].socket_dsn()) as connection:
        with trace.open("w+b", buffering=0) as file:
            connection.pgconn.trace(file.fileno())
            await read_facts(connection, TIMEOUT_S)
            connection.pgconn.untrace()
    sent = [line.split("\t")[3] for line in trace.read_text(encoding="utf-8").splitlines() if line.split("\t")[1:2] == ["F"]]
    assert sent == ["Query"]


async def test_a_promotion_shows_its_timeline_before_the_control_file_does(make_postgres: Maker) -> None:
    primary, standby = make_postgres(), make_postgres()
    primary.initdb()
    primary.start()
    standby.base_backup_from(primary)
    standby.start()
    # So many dirty pages make the checkpoint after the promotion slow, and until it ends the control file names the old timeline.
    primary.psql("CREATE TABLE pages AS SELECT generate_series(1, 100000)")
    eventually(lambda: standby.psql("SELECT to_regclass('pages')") == "pages")
    standby.psql("SELECT pg_promote()")
    promoted = await facts_of(standby)
    assert (promoted.in_recovery, promoted.timeline) == (False, 2)


async def test_a_standby_that_was_restarted_without_its_upstream_still_knows_its_whole_position(make_postgres: Maker) -> None:
    primary, standby = make_postgres(), make_postgres()
    primary.initdb()
    primary.start()
    standby.base_backup_from(primary)
    standby.start()
    primary.wait_streaming()
    write(primary, 100)
    primary.stop()
    before = await facts_of(standby)
    standby.stop()
    standby.start()  # now the receive position begins anew, at the start of a segment or not at all
    after = await facts_of(standby)
    assert after.lsn >= before.lsn
    assert (after.received_lsn or 0) < after.lsn
    assert after.receiver is None


# ------------------------------------------------------------------ levels


@pytest.mark.parametrize("level", list(Level))
async def test_a_healthy_pair_is_healthy_at_every_level(pair: tuple[PostgresServer, PostgresServer], level: Level) -> None:
    for server, role in zip(pair, ("primary", "standby"), strict=True):
        result = await probe(server, level, role=role, max_lag="16MiB")
        assert (result.status, result.sentence.split(";")[0].split(" ")[0]) == (Status.HEALTHY, "Postgres"), result


@pytest.mark.parametrize("level", [Level.READINESS, Level.DEEP])
async def test_the_wrong_role_is_unhealthy(pair: tuple[PostgresServer, PostgresServer], level: Level) -> None:
    primary, standby = pair
    assert "is a primary, but should be a standby" in (await probe(primary, level, role="standby")).sentence
    result = await probe(standby, level, role="primary")
    assert result.status is Status.UNHEALTHY
    assert "is a standby, but should be a primary" in result.sentence


async def test_a_role_without_rights_is_enough_for_all_but_deep(pair: tuple[PostgresServer, PostgresServer]) -> None:
    login: dict[str, Any] = {"dsn": dsn(pair[0], "plain"), "password": PASSWORDS["plain"]}
    assert (await probe(pair[0], Level.LIVENESS, **login)).status is Status.HEALTHY
    assert (await probe(pair[0], Level.READINESS, role="primary", **login)).status is Status.HEALTHY
    deep = await probe(pair[0], Level.DEEP, **login)
    assert deep.status is Status.UNKNOWN
    assert "GRANT pg_monitor" in deep.sentence


async def test_a_primary_that_is_set_to_read_only_is_not_ready(postgres: PostgresServer) -> None:
    postgres.psql("ALTER SYSTEM SET default_transaction_read_only = on")
    postgres.psql("SELECT pg_reload_conf()")

    async def told() -> bool:
        result = await probe(postgres, Level.READINESS, role="primary")
        return result.status is Status.UNHEALTHY and "set to read only" in result.sentence

    await eventually_async(told)


async def test_a_slow_query_of_another_is_degraded(pair: tuple[PostgresServer, PostgresServer]) -> None:
    async with connected(pair[0].socket_dsn()) as other:
        sleeping = asyncio.create_task(ask(other, "SELECT 1 FROM pg_sleep(30)", "x"))

        async def told() -> bool:
            result = await probe(pair[0], Level.DEEP, slow_after="100ms")
            return result.status is Status.DEGRADED and "a query has been running for" in result.sentence

        await eventually_async(told)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
    pair[0].psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()")


async def test_lag_is_told_by_the_standby_and_by_its_primary(pair: tuple[PostgresServer, PostgresServer]) -> None:
    primary, standby = pair
    standby.psql("SELECT pg_wal_replay_pause()")
    try:
        write(primary, 200)

        async def told_by_both() -> bool:
            results = [await probe(server, Level.DEEP, max_lag="64kB") for server in pair]
            return all(result.status is Status.DEGRADED and "bytes behind" in result.sentence for result in results)

        await eventually_async(told_by_both)
    finally:
        standby.psql("SELECT pg_wal_replay_resume()")


async def test_a_cut_link_is_degraded_although_nothing_is_known_to_be_missing(make_postgres: Maker) -> None:
    primary, standby = make_postgres(), make_postgres()
    primary.initdb()
    primary.start()
    standby.base_backup_from(primary)
    standby.start()
    primary.wait_streaming()
    primary.kill()

    async def told() -> bool:
        result = await probe(standby, Level.DEEP)
        return result.status is Status.DEGRADED and "receives nothing from its upstream" in result.sentence

    await eventually_async(told)


async def test_a_server_with_few_connections_left_is_degraded_and_with_none_it_is_unhealthy_but_perhaps_writable(
    postgres_bin: Path,
) -> None:
    with PostgresServer(bin_dir=postgres_bin, settings={"max_connections": "13"}) as server, contextlib.ExitStack() as held:
        server.initdb()
        server.start()
        for _ in range(8):
            held.enter_context(psycopg.connect(server.socket_dsn("plain")))
        degraded = await probe(server, Level.DEEP)
        for _ in range(2):
            held.enter_context(psycopg.connect(server.socket_dsn("plain")))
        full, seen = await probe(server), await writable(server)
    assert degraded.status is Status.DEGRADED
    assert "9 of 10 connections are in use" in degraded.sentence
    assert (full.status, full.sentence.endswith("has no connection left")) == (Status.UNHEALTHY, True)
    assert (seen.writable, seen.reason) == (None, Reason.FULL)


# ------------------------------------------------------------------ the target's faults


@pytest.mark.parametrize("whole", [False, True], ids=["the postmaster", "all of it"])
async def test_a_stopped_server_is_unhealthy_at_the_deadline(postgres: PostgresServer, whole: bool) -> None:
    (postgres.signal_all if whole else postgres.signal_postmaster)(signal.SIGSTOP)
    result, seen = await probe(postgres, timeout_s=0.5), await writable(postgres, timeout_s=0.5)
    assert (result.status, result.latency_s < 2.0) == (Status.UNHEALTHY, True)
    assert "gave no answer within 0.5 s" in result.sentence
    assert (seen.writable, seen.reason) == (False, Reason.TIMEOUT)


async def test_facts_on_an_open_connection_to_a_stopped_server_end_in_time(postgres: PostgresServer) -> None:
    async with connected(postgres.socket_dsn()) as connection:
        await read_facts(connection, TIMEOUT_S)
        postgres.signal_all(signal.SIGSTOP)
        began, tasks = time.monotonic(), asyncio.all_tasks()
        with pytest.raises(ProbeFailed) as caught:
            await read_facts(connection, 0.3)
        assert time.monotonic() - began < 2.0
        assert asyncio.all_tasks() == tasks
        assert caught.value.failure.reason is Reason.TIMEOUT
        with pytest.raises(ProbeFailed):
            await read_facts(connection, 0.3)


async def test_a_question_that_is_cancelled_on_a_stopped_server_ends_at_once(postgres: PostgresServer) -> None:
    async with connected(postgres.socket_dsn()) as connection:
        postgres.signal_all(signal.SIGSTOP)
        tasks = asyncio.all_tasks()
        asking = asyncio.create_task(ask(connection, "SELECT 1", "x"))
        await eventually_async(lambda: connection.info.transaction_status is psycopg.pq.TransactionStatus.ACTIVE)
        asking.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert time.monotonic() - began < 2.0
        assert asyncio.all_tasks() == tasks  # psycopg alone would still wait for the server


async def test_a_question_has_a_limit_of_the_servers_own(pair: tuple[PostgresServer, PostgresServer]) -> None:
    async with connected(pair[0].dsn()) as connection:
        with pytest.raises(ProbeFailed, match="did not finish the question in time") as caught:
            await ask(connection, bounded_sql("SELECT 1 FROM pg_sleep(30)", 0.1), "x")
    assert caught.value.failure.reason is Reason.TIMEOUT


async def test_a_server_that_ends_in_the_middle_is_told(postgres: PostgresServer) -> None:
    async with connected(postgres.socket_dsn()) as connection:
        postgres.kill()
        with pytest.raises(ProbeFailed) as caught:
            await read_facts(connection, TIMEOUT_S)
    assert caught.value.failure.reason in {Reason.CLOSED, Reason.STOPPING}  # a backend may still say why it goes
    assert (await probe(postgres)).sentence.endswith("refuses connections")
    assert (await probe(postgres, dsn=postgres.socket_dsn(), password=None)).status is Status.UNHEALTHY


async def test_a_backend_that_is_ended_is_told(pair: tuple[PostgresServer, PostgresServer]) -> None:
    async with connected(pair[0].dsn()) as connection:
        pid = connection.info.backend_pid
        pair[0].psql(f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(ProbeFailed) as caught:
            await read_facts(connection, TIMEOUT_S)
    assert caught.value.failure.reason in {Reason.STOPPING, Reason.CLOSED}


async def test_a_server_that_is_shutting_down_takes_no_writes(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.socket_dsn()):
        postgres.signal_postmaster(signal.SIGTERM)  # smart: waits for that session

        async def told() -> bool:
            return (await probe(postgres)).sentence.endswith("is shutting down")

        await eventually_async(told)
        seen = await writable(postgres)
    assert (seen.writable, seen.reason) == (False, Reason.STOPPING)
    assert (await probe(postgres)).status is Status.UNHEALTHY


async def test_a_standby_that_may_not_answer_yet_is_starting(make_postgres: Maker) -> None:
    primary, standby = make_postgres(), make_postgres()
    primary.initdb()
    primary.start()
    standby.base_backup_from(primary)
    primary.stop()
    for segment in (standby.data_dir / "pg_wal").glob("0*"):
        segment.unlink()  # it never becomes consistent
    standby.start(wait=False)

    async def told() -> bool:
        return (await probe(standby)).sentence.endswith("is starting up and takes no connections yet")

    await eventually_async(told)
    seen = await writable(standby)
    assert (seen.writable, seen.reason) == (False, Reason.STARTING)


# ------------------------------------------------------------------ our faults


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"password": "wrong"}, "wrong or missing password"),
        ({"password": None}, "wrong or missing password"),
        ({"user": "nobody"}, "wrong or missing password"),
        ({"database": "nope"}, 'database "nope" does not exist'),
        ({"extra": "sslmode=require"}, "offers no TLS"),
        ({"extra": "sslmode=verify-full sslrootcert=/no/such/file"}, "TLS"),
        ({"extra": "sslmode=sometimes"}, "TLS"),
    ],
    ids=["wrong password", "no password", "no role", "no database", "no TLS", "no authority", "bad option"],
)
async def test_what_is_our_fault_is_unknown(
    pair: tuple[PostgresServer, PostgresServer], options: dict[str, str | None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    password = options.get("password", PASSWORDS["quorate"])
    conninfo = dsn(pair[0], **{key: str(value) for key, value in options.items() if key != "password"})
    result = await probe(pair[0], dsn=conninfo, password=password)
    assert result.status is Status.UNKNOWN
    assert words in result.sentence
    seen = await is_writable(parse_target(conninfo, None if password is None else SecretStr(password)), TIMEOUT_S)
    assert seen.writable is None
    assert seen.sentence == result.sentence


async def test_a_password_file_is_read_at_each_run(pair: tuple[PostgresServer, PostgresServer], tmp_path: Path) -> None:
    file = tmp_path / "password"
    missing = await probe(pair[0], password=None, password_file=file)
    file.write_text("\n", encoding="utf-8")
    empty = await probe(pair[0], password=None, password_file=file)
    file.write_text(PASSWORDS["quorate"] + "\n", encoding="utf-8")
    right = await probe(pair[0], password=None, password_file=file)
    assert [result.status for result in (missing, empty, right)] == [Status.UNKNOWN, Status.UNKNOWN, Status.HEALTHY]
    assert missing.sentence == f"password_file: {file} cannot be read: No such file or directory"
    assert empty.sentence == f"password_file: {file} is empty"


async def test_a_certificate_of_another_authority_is_our_fault(postgres_bin: Path, tmp_path: Path) -> None:
    ours, other = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(str(tmp_path / "ours.pem"))
    other.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with PostgresServer(
        bin_dir=postgres_bin, settings={"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}
    ) as server:
        server.settings["ssl"] = "off"
        server.initdb()
        issued = ours.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(str(server.data_dir / "server.crt"))
        issued.private_key_pem.write_to_path(str(server.data_dir / "server.key"))
        (server.data_dir / "server.key").chmod(0o600)
        for name in ("server.crt", "server.key"):
            own(server.data_dir / name)
        server.settings["ssl"] = "on"
        server.write_config()
        server.start()
        trusted = await probe(server, dsn=dsn(server, extra=f"sslmode=verify-full sslrootcert={tmp_path / 'ours.pem'}"))
        untrusted = await probe(server, dsn=dsn(server, extra=f"sslmode=verify-full sslrootcert={tmp_path / 'other.pem'}"))
    assert trusted.status is Status.HEALTHY
    assert untrusted.status is Status.UNKNOWN
    assert "is not trusted" in untrusted.sentence


# ------------------------------------------------------------------ for voters


async def test_voters_see_who_takes_writes(pair: tuple[PostgresServer, PostgresServer]) -> None:
    primary, standby = pair
    seen = await writable(primary)
    assert (seen.writable, seen.reason, seen.sentence) == (True, None, f"Postgres at 127.0.0.1:{primary.port} takes writes")
    seen = await writable(standby)
    assert (seen.writable, seen.reason) == (False, Reason.READ_ONLY)


async def test_no_session_is_left_behind(pair: tuple[PostgresServer, PostgresServer]) -> None:
    for level in Level:
        await probe(pair[0], level)
    await writable(pair[0])
    eventually(lambda: pair[0].psql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'quorate'") == "0")


def test_a_killed_server_leaves_nothing(postgres_bin: Path) -> None:
    server = PostgresServer(bin_dir=postgres_bin)
    try:
        server.initdb()
        server.start()
        segment = (server.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()[6].split()[1]
        server.kill()
        assert any(line.split()[1] == segment for line in Path("/proc/sysvipc/shm").read_text(encoding="utf-8").splitlines())
    finally:
        server.close()
    assert not any(line.split()[1] == segment for line in Path("/proc/sysvipc/shm").read_text(encoding="utf-8").splitlines())
    assert not server.directory.exists()
