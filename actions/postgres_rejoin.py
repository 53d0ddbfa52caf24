"""Bringing a diverged member back: by pg_rewind, or by a new base copy. Never writable at any moment, never a half that could be started.

A rewind needs a cluster that was shut down in order, and pg_rewind's own way there, a single-user server, takes writes. So a crashed member
is started sealed, following nobody, until it has replayed to its end, and is stopped again; that also keeps every slot, hence the WAL that
pg_rewind has to read. A copy is made whole in a folder of its own; only then the old files go, the control file first, and the new ones
come, the control file's folder last: all by renames within one file system, so that the data directory itself (a mount point, its owner,
its mode) stays, and an interrupted swap is gone on with.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

import psycopg

from actions import postgres_files as files
from actions import postgres_keep as keep
from actions.base import ActionError, Guard
from actions.postgres_action import KillTree, PostgresAction
from actions.postgres_commands import KEPT_BYTES, run
from actions.postgres_instance import Login, PostgresInstance, Upstream
from actions.postgres_lifecycle import Start, Stop, standby_settings
from actions.postgres_offline import read_offline
from actions.postgres_process import current_postmaster, end_leftovers
from actions.postgres_replication import Follow, StopReceiving, UpstreamFacts, ask_upstream
from actions.postgres_session import PostgresSession, fetch, upstream_connection, within, words_of
from actions.postgres_settings import replay_is_at_the_end
from actions.program import Tail

POINT_OF_NO_RETURN = b"need to copy"
"""pg_rewind says so right before it begins to write."""
CHECKPOINT_POLL_S = 0.2
SPARE_BYTES = 256 << 20
COMPLETE = "quorate-copy-complete"
MOVING = "quorate-copy-moving"
INNER_STAGING = "quorate-copy"


class _Rejoin(PostgresAction[None]):
    """What both ways share: the way to a stopped server, and the way back to a streaming standby."""

    def __init__(self, instance: PostgresInstance, session: PostgresSession, upstream: Upstream, kill_tree: KillTree) -> None:
        super().__init__(instance, session)
        self.upstream = upstream
        self.timeout_s = instance.rejoin_timeout_s
        self._kill_tree = kill_tree

    async def is_done(self) -> bool:
        if current_postmaster(self.instance.data_dir) is None:
            return False
        try:
            return await Follow(self.instance, self.session, self.upstream).is_done()
        except (ActionError, psycopg.Error):
            return False

    async def verify(self) -> None:
        if not await self.is_done():
            raise ActionError(f"it does not stream from {self.upstream.node}")

    async def _come_back(self, facts: UpstreamFacts, guard: Guard) -> None:
        """Start as a standby of the upstream and stream. The start needs the upstream: it is not consistent without its WAL."""
        await guard.step("start")
        await Start(self.instance, self.session, upstream=self.upstream, slot=facts.slot).apply(guard)
        await guard.step("follow")
        await Follow(self.instance, self.session, self.upstream).apply(guard)

    async def _stop(self, guard: Guard) -> None:
        await Stop(self.instance, self.session, self._kill_tree).apply(guard)


class Rewind(_Rejoin):
    """Take back what this member wrote beyond the upstream's history, and follow it."""

    name = "rewind"

    @property
    def _login(self) -> Login:
        return self.instance.rewind or self.instance.admin

    async def _apply(self, guard: Guard) -> None:
        instance = self.instance
        if keep.rewind_is_unfinished(instance.data_dir):
            raise ActionError("an earlier rewind of it was interrupted: only a new base copy mends it")
        await guard.step("recover")
        await self._shut_down_in_order(guard)
        facts = await ask_upstream(instance, self.upstream)
        await self._wait_for_checkpoint(facts)
        await guard.step("rewind")
        await asyncio.to_thread(keep.begin_keeping, instance.data_dir)
        await self._rewind()
        await guard.step("settings")
        await asyncio.to_thread(self._finish, facts)
        await self._come_back(facts, guard)

    async def _shut_down_in_order(self, guard: Guard) -> None:
        """Replay everything that is here, sealed, following nobody; then stop. A cluster that was stopped in order is left as it is."""
        instance = self.instance
        running = current_postmaster(instance.data_dir) is not None
        if not running and (await read_offline(instance)).clean:
            return
        await Start(instance, self.session).apply(guard)
        await StopReceiving(instance, self.session, self._kill_tree).apply(guard)
        await replay_is_at_the_end(self.session)
        stopped = await Stop(instance, self.session, self._kill_tree).apply(guard)
        if not stopped.clean:
            raise ActionError(f"it could not be stopped in order: {stopped.facts.state}")

    async def _wait_for_checkpoint(self, facts: UpstreamFacts) -> None:
        """Until the upstream's last checkpoint is on its new timeline: before 16, pg_rewind believes that one and does nothing."""
        try:
            async with upstream_connection(self.instance, self.upstream, self._login, self.instance.follow_timeout_s) as source:
                if source.info.server_version >= 160000:
                    return
                with contextlib.suppress(psycopg.errors.InsufficientPrivilege):  # then the one after every promotion is waited for
                    await within(source, fetch(source, "CHECKPOINT"), self.timeout_s)
                query = "SELECT timeline_id FROM pg_control_checkpoint()"
                while int((await within(source, fetch(source, query), self.timeout_s))[0][0]) < facts.timeline:  # noqa: ASYNC110 (no event)
                    await asyncio.sleep(CHECKPOINT_POLL_S)
        except psycopg.Error as error:
            raise ActionError(f"{self.upstream.node} does not say on which timeline its last checkpoint is: {words_of(error)}") from None

    async def _rewind(self) -> None:
        instance, data_dir, said = self.instance, self.instance.data_dir, Tail(KEPT_BYTES)
        source = f"--source-server={instance.remote_conninfo(self.upstream, self._login, instance.database)}"
        arguments = ["-D", str(data_dir), source, "--no-ensure-shutdown", "--progress"]
        try:
            done = await run(instance, "pg_rewind", *arguments, timeout_s=self.timeout_s, login=self._login, said=said)
            if done.code != 0:
                raise ActionError(f"pg_rewind failed: {done.last_words}")
        except BaseException:
            if POINT_OF_NO_RETURN not in said.content:
                keep.end_keeping(data_dir)  # nothing was written: it is as it was
            raise

    def _finish(self, facts: UpstreamFacts) -> None:
        data_dir = self.instance.data_dir
        files.seal(data_dir)
        keep.restore_kept(data_dir)
        files.write_role_settings(data_dir, standby_settings(self.instance, self.upstream, facts.slot))
        keep.end_keeping(data_dir)


# ------------------------------------------------------------------ copying


class Copy(_Rejoin):
    """Replace everything here by a new base copy of the upstream, and follow it."""

    name = "copy"

    async def _apply(self, guard: Guard) -> None:
        instance = self.instance
        for program in ("pg_rewind", "pg_basebackup"):
            await end_leftovers(program, instance.data_dir)
            await end_leftovers(program, staging_folder(instance.data_dir))
        await guard.step("stop")
        await self._stop(guard)
        facts = await ask_upstream(instance, self.upstream)
        if not await asyncio.to_thread(swap_is_unfinished, instance.data_dir):
            await guard.step("fetch")
            await self._fetch()
            await asyncio.to_thread(self._complete, facts)
        await guard.step("swap")
        await asyncio.to_thread(swap, instance.data_dir)
        await self._come_back(facts, guard)

    async def _fetch(self) -> None:
        instance = self.instance
        needed = await self._size_bytes()
        staging = await asyncio.to_thread(make_staging, instance.data_dir, instance.owner_uid)
        free = shutil.disk_usage(staging).free
        if free < needed + SPARE_BYTES:
            room = f"{free >> 20} MiB are free, {(needed + SPARE_BYTES) >> 20} MiB are needed"
            raise ActionError(f"no room for a base copy in {staging.parent}: {room}")
        source = instance.remote_conninfo(self.upstream, instance.replication, None)
        arguments = ["-D", str(staging), "-d", source, "-w", "-X", "stream", "-c", "fast", "-R"]
        done = await run(instance, "pg_basebackup", *arguments, timeout_s=self.timeout_s, login=instance.replication)
        if done.code != 0 and "replication slot" in done.said:
            await asyncio.to_thread(make_staging, instance.data_dir, instance.owner_uid)
            done = await run(instance, "pg_basebackup", *arguments, "--no-slot", timeout_s=self.timeout_s, login=instance.replication)
        if done.code != 0:
            raise ActionError(f"pg_basebackup failed: {done.last_words}")

    async def _size_bytes(self) -> int:
        """What the upstream's databases take; 0 when nobody may ask."""
        login = self.instance.rewind or self.instance.replication
        try:
            async with upstream_connection(self.instance, self.upstream, login, self.instance.query_timeout_s) as source:
                query = "SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database"
                return int((await within(source, fetch(source, query), self.instance.follow_timeout_s))[0][0])
        except (ActionError, psycopg.Error):
            return 0

    def _complete(self, facts: UpstreamFacts) -> None:
        """Make the copy this member's own: sealed, with its configuration and role settings; then mark it complete."""
        staging = staging_folder(self.instance.data_dir)
        files.seal(staging)
        kept = keep.keep_folder(self.instance.data_dir)
        keep.copy_own_files(kept if kept.is_dir() else self.instance.data_dir, staging)
        files.write_role_settings(staging, standby_settings(self.instance, self.upstream, facts.slot))
        files.write_durably(staging / COMPLETE, b"")


def staging_folder(data_dir: Path) -> Path:
    """Where a copy is made: beside the data directory, or in it where that is a mount point, or nothing may be made beside it."""
    parent = data_dir.parent
    same_disk = not data_dir.exists() or data_dir.stat().st_dev == parent.stat().st_dev
    if same_disk and not data_dir.is_mount() and os.access(parent, os.W_OK):
        return data_dir.with_name(f"{data_dir.name}.{INNER_STAGING}")
    return data_dir / INNER_STAGING


def make_staging(data_dir: Path, owner_uid: int) -> Path:
    """An empty folder for the copy, private to the server's user."""
    staging = staging_folder(data_dir)
    if staging.exists():
        shutil.rmtree(staging)
    if not data_dir.exists():
        data_dir.mkdir(mode=0o700)
        os.chown(data_dir, owner_uid, -1)
    keep.make_private_folder(staging, data_dir.stat())
    return staging


def swap_is_unfinished(data_dir: Path) -> bool:
    """Whether a complete copy waits and the old cluster is already gone, so that the swap has to be gone on with."""
    return (staging_folder(data_dir) / COMPLETE).is_file() and not files.is_initialised(data_dir)


def swap(data_dir: Path) -> None:
    """Replace the old files by the complete copy's. Interrupted anywhere, nothing here can be started, and a repeat finishes."""
    staging = staging_folder(data_dir)
    if not (staging / COMPLETE).is_file():
        raise ActionError(f"there is no complete copy in {staging}: nothing is removed")
    if not (staging / MOVING).exists():
        _remove_old(data_dir, staging)
        files.write_durably(staging / MOVING, b"")
    waiting = {entry.name for entry in staging.iterdir()} - {COMPLETE, MOVING, "global"}
    for name in sorted(waiting):
        (staging / name).rename(data_dir / name)
    files.fsync_folder(data_dir)
    (staging / "global").rename(data_dir / "global")
    files.fsync_folder(data_dir)
    keep.end_keeping(data_dir)
    shutil.rmtree(staging)


def _remove_old(data_dir: Path, staging: Path) -> None:
    """Everything but the copy, and what belongs to the file system; the control file first, durably."""
    (data_dir / "global" / "pg_control").unlink(missing_ok=True)
    if (data_dir / "global").is_dir():
        files.fsync_folder(data_dir / "global")
    for entry in data_dir.iterdir():
        if entry == staging or entry.name == "lost+found":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    files.fsync_folder(data_dir)
