from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.configuration.loader import parse
from agent.errors import ConfigurationError
from agent.observation.postgres_probe import PostgresProbe

TEXT = """\
coordination: {{local: {{path: /var/lib/q.sqlite}}}}
nodes:
  pg1: {{api: 127.0.0.1:8481}}
  pg2: {{api: 127.0.0.1:8482, address: "::1"}}
groups:
  pg-main:
    engine: postgres
    members:
      pg1: {{port: {port}, data_dir: /srv/pg1}}
      pg2: {{port: 5434, data_dir: /srv/pg2}}
    postgres:
      socket_dir: /run/postgresql
      database: app
      monitor: {{user: watcher, password_file: {file}}}
"""


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Takes connections and says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    yield listener
    listener.close()


def probe_of(tmp_path: Path, port: int) -> PostgresProbe:
    file = tmp_path / "password"
    file.write_text("pw'\\ with = all\n")
    return PostgresProbe(parse(TEXT.format(port=port, file=file), "f", {}), "pg-main")


def test_each_member_is_asked_where_the_nodes_reach_it(tmp_path: Path) -> None:
    targets = probe_of(tmp_path, 5433)._targets
    assert {name: (target.host, target.port) for name, target in targets.items()} == {"pg1": ("127.0.0.1", 5433), "pg2": ("::1", 5434)}
    password = targets["pg1"].password
    assert password is not None
    assert password.get_secret_value() == "pw'\\ with = all"
    assert "user=watcher" in targets["pg1"].conninfo
    assert "dbname=app" in targets["pg1"].conninfo
    assert "pw" not in targets["pg1"].conninfo


async def test_a_port_that_refuses_takes_no_writes(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    writable, sentence = await probe_of(tmp_path, port).ask("pg1", 5.0)
    assert (writable, sentence) == (False, f"Postgres at 127.0.0.1:{port} refuses connections")


async def test_a_silent_one_ends_in_time(tmp_path: Path, silent: socket.socket) -> None:
    async with asyncio.timeout(5):
        writable, sentence = await probe_of(tmp_path, silent.getsockname()[1]).ask("pg1", 0.1)
    assert writable is False
    assert sentence


async def test_of_a_member_that_this_file_does_not_name_nobody_can_tell(tmp_path: Path) -> None:
    """The lease names its holder; this node's file may be older than the group."""
    writable, sentence = await probe_of(tmp_path, 5433).ask("pg9", 1.0)
    assert (writable, sentence) == (None, "pg9 is no member of group pg-main in this node's configuration")


def test_a_password_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    text = TEXT.format(port=5433, file=tmp_path / "none")
    with pytest.raises(ConfigurationError) as caught:
        PostgresProbe(parse(text, "f", {}), "pg-main")
    assert caught.value.problems == (f"{tmp_path}/none: cannot be read: No such file or directory",)
