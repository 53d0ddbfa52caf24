"""Only what needs no server; the rest is in tests/integration/test_check_postgres_kept.py."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from checks.base import RunLog
from checks.network import ProbeFailed, Progress
from checks.postgres_client import Connection, parse_target
from checks.postgres_kept import _SHELVES, KeptConnection
from tests.servers.misbehaving import refused


async def never(_: Connection) -> int:
    raise AssertionError


async def test_a_failed_login_keeps_nothing_and_closing_twice_is_harmless() -> None:
    kept = KeptConnection(knocks=True)
    with refused() as port:
        target = parse_target(f"host=127.0.0.1 port={port} user=quorate", SecretStr("x"))
        with pytest.raises(ProbeFailed, match="refuses connections"):
            await kept.ask(target, Progress(RunLog()), never)
    assert _SHELVES.take(target) is None
    await kept.close()
    await kept.close()
