"""Starting, stopping and fencing one instance. A start is ALWAYS sealed: nothing here can bring a server up that takes writes.

A stop goes through its stages on pidfds of the life that was running when it began: fast, immediate, then the lent `kill_tree`. A fence is
`kill_tree` alone: no SQL, no program, nothing that waits for the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psycopg

from actions.base import ActionError, ActionTimeout, Guard
from actions.postgres_action import KillTree, PostgresAction
from actions.postgres_commands import Finished, run
from actions.postgres_files import (
    give_to_owner_of,
    is_initialised,
    is_sealed,
    remove_placeholders,
    seal,
    write_durably,
    write_role_settings,
)
from actions.postgres_instance import PostgresInstance, Postmaster, Upstream, passfile_content, sync_setting
from actions.postgres_keep import keep_folder, rewind_is_unfinished
from actions.postgres_offline import OfflineFacts, read_offline
from actions.postgres_process import current_postmaster, processes_of, remove_stale_locks, signal_postmaster, until, wait_until_gone
from actions.postgres_session import PostgresSession
from actions.postgres_settings import read_standing

LOG_TAIL_BYTES = 16 * 1024
KILL_BUDGET_S = 5.0


class Start(PostgresAction[Postmaster]):
    """Start it read-only: sealed, following `upstream` (through `slot`, which must exist there) or nobody.

    An instance that runs already and takes no writes is left as it is.

    `sync_names` (None: those that stand stay) hold from the very first moment of the server's life.
    """

    name = "start"

    def __init__(
        self,
        instance: PostgresInstance,
        session: PostgresSession,
        *,
        upstream: Upstream | None = None,
        slot: str = "",
        sync_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(instance, session)
        self.timeout_s = instance.start_timeout_s
        self._settings = standby_settings(instance, upstream, slot, sync_names)

    async def is_done(self) -> bool:
        if current_postmaster(self.instance.data_dir) is None:
            return False
        with contextlib.suppress(ActionError):
            return (await read_standing(self.session)).in_recovery
        return False

    async def _apply(self, guard: Guard) -> Postmaster:
        data_dir = self.instance.data_dir
        if current_postmaster(data_dir) is None:
            await asyncio.to_thread(self._refuse_unfit)
            await guard.step("start")
            await self.session.drop()
            await asyncio.to_thread(self._prepare)
            await self._launch()
        await until(self._answers)
        if not (await read_standing(self.session)).in_recovery:
            raise ActionError("it runs already and takes writes: a start is always read-only")
        postmaster = current_postmaster(data_dir)
        if postmaster is None:
            raise ActionError("it started and ended again at once")
        return postmaster

    async def verify(self) -> None:
        if not await self.is_done():
            raise ActionError("it does not answer as a standby")

    def lateness(self) -> str:
        if current_postmaster(self.instance.data_dir) is None:
            return "it did not come up"
        return f"it goes on recovering ({_last_log_line(self.instance.log_file, 0) or 'no word in its log'})"

    def _refuse_unfit(self) -> None:
        data_dir = self.instance.data_dir
        if rewind_is_unfinished(data_dir):
            raise ActionError(f"a rewind of it was interrupted: only a new base copy mends it ({keep_folder(data_dir)} is there)")
        if not is_initialised(data_dir):
            raise ActionError(f"there is no complete cluster in {data_dir}")
        if left := processes_of(data_dir):
            raise ActionError(f"processes of an earlier life are left ({', '.join(map(str, left))}): fence first")

    def _prepare(self) -> None:
        """Everything durable BEFORE the server can be started: seal, settings, password; then what a killed life left."""
        seal(self.instance.data_dir)
        write_durably(self.instance.passfile, passfile_content(self.instance.replication))
        write_role_settings(self.instance.data_dir, self._settings)
        remove_placeholders(self.instance.data_dir)
        remove_stale_locks(self.instance.data_dir, self.instance.socket_dir, self.instance.port)
        _make_log(self.instance.log_file, self.instance.data_dir)

    async def _launch(self) -> None:
        instance, seen = self.instance, _size(self.instance.log_file)
        options = [] if instance.config_file is None else ["-o", f"-c config_file='{_shell_safe(instance.config_file)}'"]
        wait_s = max(1, round(self.timeout_s))
        arguments = ["start", "-s", "-w", "-t", str(wait_s), "-D", str(instance.data_dir), "-l", str(instance.log_file), *options]
        done = await run(instance, "pg_ctl", *arguments, timeout_s=self.timeout_s)
        if done.code != 0:
            raise self._failed(done, seen)

    def _failed(self, done: Finished, seen: int) -> ActionError:
        last = _last_log_line(self.instance.log_file, seen) or done.last_words
        if current_postmaster(self.instance.data_dir) is not None:
            return ActionTimeout(f"it is not up yet and goes on recovering: {last}")
        return ActionError(f"it does not start: {last}")

    async def _answers(self) -> bool:
        if current_postmaster(self.instance.data_dir) is None:
            last = _last_log_line(self.instance.log_file, 0)
            raise ActionError(f"it ended while it started: {last}")
        with contextlib.suppress(ActionError, psycopg.Error):
            await self.session.rows("SELECT 1")
            return True
        return False


def standby_settings(
    instance: PostgresInstance, upstream: Upstream | None, slot: str = "", sync_names: tuple[str, ...] | None = None
) -> dict[str, str]:
    """The role settings of a standby that follows `upstream` or nobody; without `sync_names`, all but those."""
    receiving = {
        "primary_conninfo": "" if upstream is None else instance.primary_conninfo(upstream),
        "primary_slot_name": slot,
    }
    return receiving if sync_names is None else {**receiving, "synchronous_standby_names": sync_setting(sync_names)}


def _shell_safe(path: Path) -> str:
    """pg_ctl hands its -o to a shell of its own: a path that would mean something there is refused."""
    text = str(path)
    if any(sign in text for sign in "'\"\\$`\n"):
        raise ActionError(f"config_file {text!r} holds a sign that pg_ctl cannot pass on")
    return text


def _make_log(path: Path, data_dir: Path) -> None:
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            give_to_owner_of(data_dir, handle)
        finally:
            os.close(handle)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _last_log_line(path: Path, since: int) -> str:
    """The last line that tells of trouble, else the last at all, of what was written after byte `since`."""
    try:
        with path.open("rb") as file:
            file.seek(max(since, path.stat().st_size - LOG_TAIL_BYTES))
            text = file.read(LOG_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ([line for line in lines if "FATAL:" in line or "PANIC:" in line] or lines or [""])[-1]


# ------------------------------------------------------------------ stopping


@dataclass(frozen=True, slots=True)
class Stopped:
    """How it ended. `clean`: in order, everything flushed to its standbys; then `facts` hold the exact final position."""

    clean: bool
    facts: OfflineFacts


class Stop(PostgresAction[Stopped]):
    """Shut it down: fast within stop_timeout, then immediate, then by force. Afterwards nothing of it is left, in every case."""

    name = "stop"

    def __init__(self, instance: PostgresInstance, session: PostgresSession, kill_tree: KillTree) -> None:
        super().__init__(instance, session)
        self._kill_tree = kill_tree
        self.timeout_s = 2 * instance.stop_timeout_s + KILL_BUDGET_S + 15.0

    async def is_done(self) -> bool:
        return not await asyncio.to_thread(processes_of, self.instance.data_dir)

    async def _apply(self, guard: Guard) -> Stopped:
        await guard.step("stop")
        await self.session.drop()
        postmaster = current_postmaster(self.instance.data_dir)
        for number in (signal.SIGINT, signal.SIGQUIT):
            if postmaster is None or await self._ends_by(postmaster, number):
                break
        if not await self.is_done():
            await kill(self.instance, self._kill_tree, KILL_BUDGET_S)
        facts = await read_offline(self.instance)
        return Stopped(facts.clean, facts)

    async def _ends_by(self, postmaster: Postmaster, number: signal.Signals) -> bool:
        if not signal_postmaster(postmaster, self.instance.data_dir, number):
            return True
        try:
            async with asyncio.timeout(self.instance.stop_timeout_s):
                await wait_until_gone(self.instance.data_dir)
        except TimeoutError:
            return False
        return True

    async def verify(self) -> None:
        if not await self.is_done():
            raise ActionError("processes of it are left")


class Fence(PostgresAction[None]):
    """Kill every process of it and see that none is left."""

    name = "fence"

    def __init__(self, instance: PostgresInstance, session: PostgresSession, kill_tree: KillTree, budget_s: float) -> None:
        super().__init__(instance, session)
        self._kill_tree = kill_tree
        self._budget_s = budget_s
        self.timeout_s = budget_s + 1.0

    async def is_done(self) -> bool:
        return not await asyncio.to_thread(processes_of, self.instance.data_dir)

    async def _apply(self, guard: Guard) -> None:
        del guard  # a fence needs no permission, and notes nothing before it
        await kill(self.instance, self._kill_tree, self._budget_s)
        await self.session.drop()

    async def verify(self) -> None:
        left = await asyncio.to_thread(processes_of, self.instance.data_dir)
        if left:
            raise ActionError(f"processes of it are left: {', '.join(map(str, left))}")


async def kill(instance: PostgresInstance, kill_tree: KillTree, budget_s: float) -> None:
    """Kill the tree. Raises ActionError when something is left after the budget."""
    await asyncio.to_thread(kill_tree, instance.data_dir, instance.owner_uid, budget_s)
    left = await asyncio.to_thread(processes_of, instance.data_dir)
    if left:
        raise ActionError(f"processes survive SIGKILL: {', '.join(map(str, left))}")


class Seal(PostgresAction[None]):
    """Make sure that a restart by anybody comes up read-only. Needs no server."""

    name = "seal"

    def __init__(self, instance: PostgresInstance, session: PostgresSession) -> None:
        super().__init__(instance, session)
        self.timeout_s = max(1.0, instance.query_timeout_s)

    async def is_done(self) -> bool:
        return await asyncio.to_thread(is_sealed, self.instance.data_dir)

    async def _apply(self, guard: Guard) -> None:
        await guard.step("seal")
        await asyncio.to_thread(seal, self.instance.data_dir)

    async def verify(self) -> None:
        if not await self.is_done():
            raise ActionError("standby.signal is not there")
