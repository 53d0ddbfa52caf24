"""A test's Postgres as the actions see it: its settings, its session, a guard that notes the steps.

async with member(server, "n1") as n1:
    await n1.do(Start(n1.instance, n1.session))
"""

from __future__ import annotations

import atexit
import functools
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from actions.base import Guard
from actions.postgres import Login, PostgresAction, PostgresInstance, PostgresSession, Upstream
from agent.watchdog import process
from tests.servers.postgres import OS_USER, PASSWORDS, PostgresServer, all_bin_dirs

ResultT = TypeVar("ResultT")


def kill_tree(data_dir: Path, uid: int, budget_s: float) -> object:
    """The watchdog's own fence, as app.py lends it."""
    return process.kill_tree(str(data_dir), uid, budget_s)


def instance_of(server: PostgresServer, node: str, *, config_inside: bool = False) -> PostgresInstance:
    return PostgresInstance(
        node=node,
        data_dir=server.data_dir,
        socket_dir=server.socket_dir,
        port=server.port,
        log_file=server.log_file,
        config_file=None if config_inside else server.config_file,
        bin_dir=server.bin_dir,
        os_user=server.os_user,
        replication=Login("replicator", PASSWORDS["replicator"]),
        rewind=Login("quorate_rewind", PASSWORDS["quorate_rewind"]),
    )


@dataclass
class Member:
    """One server with everything an action needs."""

    server: PostgresServer
    instance: PostgresInstance
    session: PostgresSession
    steps: list[str] = field(default_factory=list)

    @property
    def upstream(self) -> Upstream:
        return Upstream(self.instance.node, self.server.host, self.server.port)

    @property
    def guard(self) -> Guard:
        return Guard(permit=lambda: None, step=self._note)

    async def _note(self, step: str) -> None:
        self.steps.append(step)

    async def do(self, action: PostgresAction[ResultT]) -> ResultT:
        """Apply and verify."""
        result = await action.apply(self.guard)
        await action.verify()
        assert await action.is_done()
        return result

    async def timed(self, action: PostgresAction[ResultT]) -> tuple[ResultT, float]:
        """The result, and the milliseconds that applying took."""
        began = time.perf_counter()
        result = await action.apply(self.guard)
        return result, (time.perf_counter() - began) * 1000

    def with_settings(self, **changes: object) -> Member:
        """The same server with other settings."""
        instance = replace(self.instance, **changes)  # type: ignore[arg-type]
        return Member(self.server, instance, PostgresSession(instance))


@asynccontextmanager
async def member(server: PostgresServer, node: str, *, config_inside: bool = False) -> AsyncIterator[Member]:
    instance = instance_of(server, node, config_inside=config_inside)
    session = PostgresSession(instance)
    try:
        yield Member(server, instance, session)
    finally:
        await session.drop()


class Crash(BaseException):
    """What a test throws where an agent would be killed."""


def crash_at(step: str) -> tuple[Guard, list[str]]:
    """A guard under which the agent dies right after noting `step`, and the steps that it noted."""
    noted: list[str] = []

    async def note(name: str) -> None:
        noted.append(name)
        if name == step:
            raise Crash(name)

    return Guard(permit=lambda: None, step=note), noted


@functools.cache
def template(version: str) -> Path:
    """The data directory of a cluster that was made once for all tests: copying it is many times faster than initdb."""
    server = PostgresServer(bin_dir=all_bin_dirs()[version])
    atexit.register(server.close)
    server.initdb()
    return server.data_dir


def new_server(version: str, *, config_inside: bool = False, settings: Mapping[str, str] | None = None) -> PostgresServer:
    """A cluster that is not started; the caller closes it."""
    server = PostgresServer(bin_dir=all_bin_dirs()[version], config_inside=config_inside, settings=settings)
    source = template(version)
    shutil.copytree(source, server.data_dir, symlinks=True)
    if OS_USER is not None:
        for path in (server.data_dir, *server.data_dir.rglob("*")):
            shutil.chown(path, OS_USER)
    server.write_config()
    return server


def standby_of(
    primary: PostgresServer, node: str, *, config_inside: bool = False, settings: Mapping[str, str] | None = None
) -> PostgresServer:
    """A started standby; the caller closes it."""
    server = PostgresServer(bin_dir=primary.bin_dir, config_inside=config_inside, settings=settings)
    server.base_backup_from(primary, name=node)
    server.start()
    return server
