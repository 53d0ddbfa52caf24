from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

from checks.base import RunLog
from checks.network import ProbeFailed, Progress, Reason
from checks.postgres_client import Writable, connect, explain_text, is_writable, parse_target
from tests.servers.misbehaving import answering

PREFIX = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PREFIX + "FATAL:  the database system is starting up", Reason.STARTING),
        (PREFIX + "FATAL:  the database system is in recovery mode", Reason.STARTING),
        (PREFIX + "FATAL:  the database system is not yet accepting connections\nDETAIL:  Consistent …", Reason.STARTING),
        (PREFIX + "FATAL:  the database system is not accepting connections\nDETAIL:  Hot standby mode is disabled.", Reason.STARTING),
        (PREFIX + "FATAL:  the database system is shutting down", Reason.STOPPING),
        (PREFIX + "FATAL:  sorry, too many clients already", Reason.FULL),
        (PREFIX + "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", Reason.FULL),
        (PREFIX + 'FATAL:  password authentication failed for user "quorate"', Reason.LOGIN),
        (PREFIX + "fe_sendauth: no password supplied", Reason.LOGIN),
        (PREFIX + 'FATAL:  no pg_hba.conf entry for host "127.0.0.1", user "x", database "y", no encryption', Reason.LOGIN),
        (PREFIX + 'FATAL:  role "x" does not exist', Reason.LOGIN),
        (PREFIX + 'FATAL:  role "x" is not permitted to log in', Reason.LOGIN),
        (PREFIX + 'FATAL:  database "y" does not exist', Reason.NO_DATABASE),
        (PREFIX + 'FATAL:  database "y" is not currently accepting connections', Reason.NO_DATABASE),
        (PREFIX + 'FATAL:  permission denied for database "y"', Reason.NO_DATABASE),
        (PREFIX + "server does not support SSL, but SSL was required", Reason.TLS),
        (PREFIX + "SSL error: certificate verify failed", Reason.TLS),
        (PREFIX + 'root certificate file "/x" does not exist', Reason.TLS),
        (PREFIX + "SSL SYSCALL error: EOF detected", Reason.CLOSED),
        (PREFIX + "server closed the connection unexpectedly", Reason.CLOSED),
        (PREFIX + "received invalid response to SSL negotiation: G", Reason.GARBAGE),
        (PREFIX + "expected authentication request from server, but received H", Reason.GARBAGE),
        (PREFIX + "Connection refused\n\tIs the server running on that host?", Reason.REFUSED),
        ('connection failed: connection to server on socket "/x/.s.PGSQL.1" failed: No such file or directory', Reason.REFUSED),
        ('connection failed: connection to server on socket "/x/.s.PGSQL.1" failed: Permission denied', Reason.LOCAL),
        (PREFIX + "No route to host", Reason.UNREACHABLE),
        (PREFIX + "Network is unreachable", Reason.LOCAL),
        (PREFIX + "Connection timed out", Reason.TIMEOUT),
        ('connection failed: connection to server at "ssl-certificate-db", port 1 failed: Connection refused', Reason.REFUSED),
    ],
)
def test_libpqs_words_have_a_reason(text: str, reason: Reason) -> None:
    failure = explain_text(text, "x")
    assert failure is not None
    assert failure.reason is reason


def test_words_in_another_language_are_not_guessed_at() -> None:
    assert explain_text(PREFIX + "FATAL:  das Datenbanksystem startet", "x") is None


def error_response(code: bytes, words: bytes) -> bytes:
    body = b"SFATAL\0C" + code + b"\0M" + words + b"\0\0"
    return b"E" + (len(body) + 4).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        (b"57P03", "das Datenbanksystem startet", (False, Reason.STARTING)),
        (b"53300", "tut mir leid, schon zu viele Verbindungen", (None, Reason.FULL)),
        (b"28P01", "Passwort-Authentifizierung fehlgeschlagen", (None, Reason.LOGIN)),
        (b"XX000", "unbekannt", (None, Reason.LOGIN)),
    ],
)
async def test_a_server_that_speaks_another_language_is_understood_by_its_code(code: bytes, words: str, expected: object) -> None:
    async with answering(error_response(code, words.encode()), after_bytes=8) as port:
        seen = await is_writable(parse_target(f"host=127.0.0.1 port={port} user=u sslmode=disable"), 2.0)
    assert (seen.writable, seen.reason) == expected


async def test_an_old_style_error_text_is_garbage() -> None:
    async with answering(b"EHLO, this is no Postgres\n\0", after_bytes=8) as port:
        seen = await is_writable(parse_target(f"host=127.0.0.1 port={port} user=u sslmode=disable"), 2.0)
    assert (seen.writable, seen.reason) == (False, Reason.GARBAGE)


def test_a_target_never_shows_its_password() -> None:
    target = parse_target("host=127.0.0.1 port=1 password=hunter2 connect_timeout=9")
    assert target.password == SecretStr("hunter2")
    assert "hunter2" not in repr(target)
    assert "connect_timeout" not in target.conninfo


def test_a_socket_is_named_by_its_folder() -> None:
    target = parse_target("host=/run/postgresql port=5433")
    assert target.is_socket
    assert target.name == "Postgres at /run/postgresql (port 5433)"


async def test_a_name_with_several_addresses_is_tried_at_the_next_one_when_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_: str) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr("checks.postgres_client.RESOLVER.resolve", resolve)
    async with answering(b"X" * 100) as port:
        log = RunLog()
        with pytest.raises(ProbeFailed) as caught:
            async with asyncio.timeout(5):
                await connect(parse_target(f"host=db.example.test port={port} user=u"), Progress(log))
    assert caught.value.failure.reason is Reason.GARBAGE
    assert [line for line in log.lines if "127.0.0.1" in line]


def test_an_answer_for_voters_is_a_plain_value() -> None:
    assert Writable(None, Reason.LOGIN, "x") == Writable(None, Reason.LOGIN, "x")
