"""A Postgres as the agent's service: the reader of its facts and the actions that change it, behind the contract of service.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from actions.base import ActionError, Guard
from actions.postgres_files import newest_timeline, read_history
from actions.postgres_instance import Login, PostgresInstance, Upstream
from actions.postgres_lifecycle import Fence, Seal, Start, Stop
from actions.postgres_offline import read_offline
from actions.postgres_promotion import KnownPromotion, Promote, SetSyncNames
from actions.postgres_rejoin import Copy, Rewind
from actions.postgres_replication import Follow, StopReceiving
from actions.postgres_session import PostgresSession
from agent.configuration.engine_section import postgres_of
from agent.configuration.model import Configuration
from agent.configuration.model import Login as LoginSection
from agent.configuration.secrets import read_login
from agent.coordination.lease import Position, Promotion
from agent.decision.command import RejoinMode
from agent.decision.view import Branch, ServiceView
from agent.observation.postgres_reader import Offline, PostgresReader, ReaderTools
from agent.watchdog.process import age_s, kill_tree, members_of
from checks.network import ProbeFailed, Reason
from checks.postgres_client import Connection

SENDER_TIMEOUTS = 2
"""An upstream asks a silent standby for a reply after sync_timeout, and drops it after twice that: never before the set has shrunk for it.

Postgres' own 60 s would leave a dead standby's sender, which holds its slot and its name, in the way of the one that comes back."""
SENDER_TIMEOUT_LEAST_S = 2.0


class PostgresService:
    """One local instance."""

    def __init__(self, instance: PostgresInstance, upstreams: Mapping[str, Upstream], fence_budget_s: float) -> None:
        self._instance = instance
        self._upstreams = upstreams
        self._fence_budget_s = fence_budget_s
        self._session = PostgresSession(instance)
        self._reader_session = PostgresSession(instance)
        """Facts are read on a connection of their own, so that no action stands in their way."""
        addresses = {(upstream.host, upstream.port): name for name, upstream in upstreams.items()}
        tools = ReaderTools(self._connect, self._oldest_s, self._offline, self._newest_timeline, self._history, addresses)
        self._reader = PostgresReader(instance.data_dir, tools)

    @property
    def data_dir(self) -> Path:
        return self._instance.data_dir

    @property
    def owner_uid(self) -> int:
        return self._instance.owner_uid

    # ------------------------------------------------------------------ facts

    async def read(self, timeout_s: float) -> ServiceView:
        return await self._reader.read(timeout_s)

    def main_pid(self) -> int | None:
        return self._reader.main_pid()

    async def _connect(self, timeout_s: float) -> Connection:
        try:
            return await self._reader_session.connection(timeout_s)
        except ActionError as error:
            raise ProbeFailed(Reason.STARTING, str(error)) from None

    def _oldest_s(self) -> float | None:
        ages = []
        for pid in members_of(str(self._instance.data_dir), self.owner_uid):
            with contextlib.suppress(OSError):
                ages.append(age_s(pid))
        return max(ages, default=None)

    def _newest_timeline(self) -> int:
        return newest_timeline(self._instance.data_dir)

    def _history(self, timeline: int) -> tuple[Branch, ...]:
        return tuple(Branch(parent, lsn) for parent, lsn in read_history(self._instance.data_dir, timeline))

    async def _offline(self) -> Offline:
        try:
            facts = await read_offline(self._instance)
        except ActionError:
            return Offline(None, (), None)
        if not facts.initialised:
            return Offline(None, (), None)
        history = await asyncio.to_thread(self._history, facts.timeline)
        return Offline(Position(facts.timeline, facts.at_least_lsn), history, facts.system_identifier)

    # ------------------------------------------------------------------ changes

    async def start(self, guard: Guard) -> None:
        await Start(self._instance, self._session).apply(guard)

    async def stop(self, guard: Guard) -> Position | None:
        stopped = await Stop(self._instance, self._session, kill_service).apply(guard)
        return Position(stopped.facts.timeline, stopped.facts.at_least_lsn) if stopped.clean else None

    async def fence(self, guard: Guard) -> None:
        await Fence(self._instance, self._session, kill_service, self._fence_budget_s).apply(guard)

    async def stop_receiving(self, guard: Guard) -> Position:
        final = await StopReceiving(self._instance, self._session, kill_service).apply(guard)
        return Position(final.timeline, final.lsn)

    async def follow(self, leader: str, guard: Guard) -> None:
        await Follow(self._instance, self._session, self._upstreams[leader]).apply(guard)

    async def rejoin(self, leader: str, mode: RejoinMode, guard: Guard) -> None:
        if mode is RejoinMode.REWIND:
            await Rewind(self._instance, self._session, self._upstreams[leader], kill_service).apply(guard)
        else:
            await Copy(self._instance, self._session, self._upstreams[leader], kill_service).apply(guard)

    async def promote(self, sync_names: tuple[str, ...] | None, known: tuple[Promotion, ...], guard: Guard) -> None:
        promotions = tuple(KnownPromotion(p.epoch, p.node, p.timeline, p.parent_timeline, p.switch_lsn) for p in known)
        action = Promote(self._instance, self._session, kill_service, sync_names=sync_names, known_promotions=promotions)
        promoted = await action.apply(guard)
        # Whatever was acknowledged before this promotion is below its switch point.
        self._reader.effective = (sync_names or (), promoted.switch_lsn)

    async def seal(self, guard: Guard) -> None:
        await Seal(self._instance, self._session).apply(guard)

    async def set_sync_names(self, names: tuple[str, ...], guard: Guard) -> None:
        effect = await SetSyncNames(self._instance, self._session, names).apply(guard)
        self._reader.effective = (names, effect.effective_lsn)

    async def close(self) -> None:
        await self._session.drop()
        await self._reader_session.drop()


def kill_service(data_dir: Path, uid: int, budget_s: float) -> object:
    """The watchdog's own killing, for the agent's fences."""
    return kill_tree(str(data_dir), uid, budget_s)


def postgres_service(configuration: Configuration, group: str, node: str) -> PostgresService:
    """The instance that `node` runs for `group`, as configured."""
    section = configuration.groups[group]
    own = postgres_of(section, node)
    upstreams = {
        name: Upstream(name, configuration.nodes[name].address, postgres_of(section, name).port) for name in section.members if name != node
    }
    instance = PostgresInstance(
        node=node,
        data_dir=own.data_dir,
        socket_dir=own.socket_dir,
        port=own.port,
        log_file=own.data_dir.parent / f"{own.data_dir.name}.quorate.log",
        config_file=own.config_file,
        bin_dir=own.bin_dir,
        os_user=own.os_user,
        database=own.database,
        admin=_login(own.admin),
        replication=_login(own.replication),
        rewind=None if own.rewind is None else _login(own.rewind),
        start_timeout_s=own.start_timeout,
        stop_timeout_s=own.stop_timeout,
        rejoin_timeout_s=own.rejoin_timeout,
        sender_timeout_s=max(SENDER_TIMEOUT_LEAST_S, SENDER_TIMEOUTS * section.sync_timeout),
    )
    return PostgresService(instance, upstreams, section.lease.fence_budget)


def _login(section: LoginSection) -> Login:
    user, password = read_login(section)
    return Login(user, password)
