"""Connections that postgres checks keep between their runs, and what is noticed all the same."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import psycopg
import pytest

from checks import postgres_kept
from checks.base import Level, Result, RunLog, Status
from checks.postgres import PostgresCheck, PostgresOptions
from tests.polling import eventually
from tests.servers.postgres import PASSWORDS, PostgresServer

TIMEOUT_S = 5.0
OURS = "FROM pg_stat_activity WHERE usename = 'quorate'"


def check_of(server: PostgresServer, level: Level = Level.READINESS, **options: object) -> PostgresCheck:
    given = {"dsn": f"host=127.0.0.1 port={server.port} user=quorate dbname=postgres", "password": PASSWORDS["quorate"], **options}
    return PostgresCheck(level, PostgresOptions.model_validate(given))


async def run(check: PostgresCheck, timeout_s: float = TIMEOUT_S) -> Result:
    return await check.probe(timeout_s, RunLog())


def sessions(server: PostgresServer) -> list[str]:
    """The process ids of our sessions."""
    return server.psql(f"SELECT coalesce(string_agg(pid::text, ' ' ORDER BY pid), '') {OURS}").split()


@pytest.mark.parametrize("level", list(Level))
async def test_a_run_reuses_the_session_of_the_run_before(postgres: PostgresServer, level: Level) -> None:
    check = check_of(postgres, level)
    seen = set()
    for _ in range(4):
        assert (await run(check)).status is Status.HEALTHY
        eventually(lambda: len(sessions(postgres)) == 1)  # a newcomer that only knocked is gone in a moment
        seen |= set(sessions(postgres))
    assert len(seen) == 1
    await check.close()
    eventually(lambda: sessions(postgres) == [])


async def test_after_some_runs_it_logs_in_anew(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_kept, "RENEW_AFTER_RUNS", 2)
    check = check_of(postgres)
    check._kept._runs = 2
    results = [await run(check) for _ in range(4)]
    await check.close()
    assert [any("connecting" in line for line in result.log) for result in results] == [True, False, False, True]


async def test_checks_of_one_server_share_and_the_last_one_closes(postgres: PostgresServer) -> None:
    checks = [check_of(postgres, level) for level in Level for _ in range(5)]
    for check in checks:
        await run(check)
    eventually(lambda: 1 <= len(sessions(postgres)) <= postgres_kept.IDLE_LIMIT)
    for check in checks[1:]:
        await check.close()
    assert len(sessions(postgres)) >= 1
    await checks[0].close()
    eventually(lambda: sessions(postgres) == [])


async def test_a_restart_between_two_runs_is_no_failure(postgres: PostgresServer) -> None:
    check = check_of(postgres)
    await run(check)
    postgres.stop()
    postgres.start()
    result = await run(check)
    assert result.status is Status.HEALTHY
    assert any("the kept connection is broken" in line for line in result.log)
    await check.close()


async def test_a_server_that_is_gone_is_told_by_the_run_that_finds_it(postgres: PostgresServer) -> None:
    checks = [check_of(postgres, level) for level in Level]
    for check in checks:
        await run(check)
    postgres.kill()
    for check in checks:
        result = await run(check)
        assert (result.status, result.sentence.endswith("refuses connections")) == (Status.UNHEALTHY, True), result
        await check.close()


async def test_liveness_sees_at_once_that_newcomers_hang(postgres: PostgresServer) -> None:
    alive, ready = check_of(postgres, Level.LIVENESS), check_of(postgres)
    await run(alive)
    await run(ready)
    postgres.signal_postmaster(signal.SIGSTOP)  # the sessions that are there go on
    result = await run(alive, 0.5)
    assert (result.status, "gave no answer within 0.5 s (knocking)" in result.sentence) == (Status.UNHEALTHY, True)
    assert (await run(alive, 0.5)).status is Status.UNHEALTHY
    await alive.close()
    await ready.close()


async def test_liveness_sees_at_once_that_newcomers_are_refused_and_does_not_make_room_for_itself(postgres_bin: Path) -> None:
    settings = {"max_connections": "13", "superuser_reserved_connections": "0"}
    with PostgresServer(bin_dir=postgres_bin, settings=settings) as server, contextlib.ExitStack() as held:
        server.initdb()
        server.start()
        alive, ready = check_of(server, Level.LIVENESS), check_of(server)
        await run(ready)
        assert (await run(alive)).status is Status.HEALTHY
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                held.enter_context(psycopg.connect(server.socket_dsn("plain")))
        full = await run(alive)
        assert (full.status, full.sentence.endswith("has no connection left")) == (Status.UNHEALTHY, True)
        held.close()
        assert (await run(alive)).status is Status.HEALTHY
        await alive.close()
        await ready.close()


async def test_another_password_is_another_login(postgres: PostgresServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORDS["quorate"], encoding="utf-8")
    check = check_of(postgres, password=None, password_file=file)
    assert (await run(check)).status is Status.HEALTHY
    file.write_text("wrong", encoding="utf-8")
    assert (await run(check)).status is Status.UNKNOWN
    eventually(lambda: sessions(postgres) == [])
    await check.close()


async def test_a_run_that_is_late_keeps_nothing(postgres: PostgresServer) -> None:
    check = check_of(postgres)
    await run(check)
    postgres.signal_all(signal.SIGSTOP)
    late = await run(check, 0.3)
    postgres.signal_all(signal.SIGCONT)
    assert (late.status, "no answer within 0.3 s" in late.sentence) == (Status.UNHEALTHY, True)
    eventually(lambda: sessions(postgres) == [])
    result = await run(check)
    assert any("connecting" in line for line in result.log)
    await check.close()


async def test_a_knock_leaves_no_word_in_the_servers_log(postgres: PostgresServer) -> None:
    check = check_of(postgres, Level.LIVENESS)
    await run(check)
    before = postgres.log_file.read_text(encoding="utf-8")
    for _ in range(5):
        await run(check)
    await check.close()
    assert postgres.log_file.read_text(encoding="utf-8") == before
