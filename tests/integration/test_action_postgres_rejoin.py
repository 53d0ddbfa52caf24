"""Rewind and Copy on real servers: a diverged member streams again, never writable, and interrupted anywhere nothing starts wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from actions import postgres_keep as keep
from actions import postgres_rejoin as rejoin
from actions.base import ActionError
from actions.postgres import (
    ControlState,
    Copy,
    Login,
    PostgresSession,
    Promote,
    Rewind,
    Start,
    StopReceiving,
    Upstream,
    is_sealed,
    newest_timeline,
    read_offline,
)
from tests.polling import eventually_async
from tests.servers.postgres import PASSWORDS, all_bin_dirs, free_port
from tests.servers.postgres_member import Crash, Member, crash_at, kill_tree, member, new_server, standby_of

VERSIONS = sorted(all_bin_dirs())
Make = Callable[..., Rewind | Copy]


@dataclass
class Split:
    """`old` was killed with rows that `new`, promoted since, never had."""

    old: Member
    new: Member


@pytest.fixture(params=VERSIONS)
async def split(request: pytest.FixtureRequest) -> AsyncIterator[Split]:
    async with AsyncExitStack() as stack:
        yield await make_split(stack, request.param)


@pytest.fixture
async def one_split() -> AsyncIterator[Split]:
    async with AsyncExitStack() as stack:
        yield await make_split(stack, VERSIONS[0])


async def make_split(stack: AsyncExitStack, version: str, *, config_inside: bool = False) -> Split:
    primary = stack.enter_context(new_server(version, config_inside=config_inside))
    old = await stack.enter_async_context(member(primary, "old", config_inside=config_inside))
    await old.do(Start(old.instance, old.session))
    await old.do(Promote(old.instance, old.session, kill_tree, sync_names=None))
    primary.psql("CREATE TABLE t AS SELECT generate_series(1, 100) AS i")
    standby = stack.enter_context(standby_of(primary, "new", config_inside=config_inside))
    primary.wait_streaming(1)
    new = await stack.enter_async_context(member(standby, "new", config_inside=config_inside))
    await new.do(StopReceiving(new.instance, new.session, kill_tree))
    primary.psql("ALTER SYSTEM SET work_mem = '5MB'")
    primary.psql("INSERT INTO t SELECT generate_series(1, 5000)")
    primary.kill()
    await new.do(Promote(new.instance, new.session, kill_tree, sync_names=None))
    standby.psql("INSERT INTO t VALUES (0)")
    old.steps.clear()
    return Split(old, new)


def rewind(split: Split, **changes: object) -> Rewind:
    instance = replace(split.old.instance, **changes)  # type: ignore[arg-type]
    return Rewind(instance, PostgresSession(instance) if changes else split.old.session, split.new.upstream, kill_tree)


def copy(split: Split) -> Copy:
    return Copy(split.old.instance, split.old.session, split.new.upstream, kill_tree)


def never_writable(each: Member) -> None:
    """Since its last start by an action nobody could write: recovery never ended."""
    log = each.server.log()
    assert "database system is ready to accept connections" not in log.split("starting PostgreSQL")[-1]


async def has_come_back(split: Split) -> None:
    split.new.server.psql("INSERT INTO t VALUES (1)")
    await eventually_async(lambda: split.old.server.psql("SELECT count(*) FROM t") == "102")
    assert split.old.server.psql("SELECT pg_is_in_recovery()") == "t"
    assert is_sealed(split.old.server.data_dir)
    assert newest_timeline(split.old.server.data_dir) == newest_timeline(split.new.server.data_dir)
    assert split.old.server.psql("SHOW work_mem") == "5MB", "its own settings were replaced by the source's"
    assert split.old.server.psql("SHOW synchronous_standby_names") == ""
    assert split.old.server.psql("SHOW port") == str(split.old.server.port)
    assert not keep.rewind_is_unfinished(split.old.server.data_dir)
    never_writable(split.old)


# ------------------------------------------------------------------ rewind


async def test_a_killed_primary_with_rows_of_its_own_is_rewound(split: Split, record_property: Callable[[str, object], None]) -> None:
    _, took_ms = await split.old.timed(rewind(split))
    await rewind(split).verify()
    await has_come_back(split)
    record_property("rewind_ms", round(took_ms))
    assert await rewind(split).is_done()


async def test_a_rewind_keeps_the_own_configuration_inside_the_data_directory() -> None:
    async with AsyncExitStack() as stack:
        split = await make_split(stack, VERSIONS[0], config_inside=True)
        await split.old.do(rewind(split))
        await has_come_back(split)


async def test_a_standby_that_was_ahead_of_the_switch_is_rewound() -> None:
    async with AsyncExitStack() as stack:
        primary = stack.enter_context(new_server(VERSIONS[0]))
        primary.start()
        servers = [stack.enter_context(standby_of(primary, node)) for node in ("new", "old")]
        primary.psql("CREATE TABLE t AS SELECT generate_series(1, 100) AS i")
        primary.wait_streaming(2)
        new, old = [await stack.enter_async_context(member(server, node)) for server, node in zip(servers, ("new", "old"), strict=True)]
        await eventually_async(lambda: new.server.psql("SELECT count(*) FROM pg_class WHERE relname = 't'") == "1")
        await new.do(StopReceiving(new.instance, new.session, kill_tree))
        primary.psql("INSERT INTO t SELECT generate_series(1, 5000)")
        await eventually_async(lambda: old.server.psql("SELECT count(*) FROM t") == "5100")
        primary.kill()
        await new.do(Promote(new.instance, new.session, kill_tree, sync_names=None))
        new.server.psql("INSERT INTO t VALUES (0)")
        old.server.psql("ALTER SYSTEM SET work_mem = '5MB'")
        split = Split(old, new)
        await old.do(rewind(split))
        await has_come_back(split)


async def test_a_rewind_that_failed_before_it_wrote_leaves_everything_as_it_was(one_split: Split) -> None:
    wrong = Login("quorate_rewind", "wrong")
    with pytest.raises(ActionError, match=r"takes no connection as quorate_rewind: .*password authentication failed"):
        await rewind(one_split, rewind=wrong).apply(one_split.old.guard)
    plain = Login("plain", PASSWORDS["plain"])
    with pytest.raises(ActionError, match=r"pg_rewind failed: .*permission denied"):
        await rewind(one_split, rewind=plain).apply(one_split.old.guard)
    assert not keep.rewind_is_unfinished(one_split.old.server.data_dir)
    await one_split.old.do(rewind(one_split))
    await has_come_back(one_split)


@pytest.mark.parametrize("step", ["recover", "start", "stop_receiving", "stop", "rewind", "settings", "follow"])
async def test_an_agent_that_dies_in_a_rewind_leaves_what_the_next_one_mends(one_split: Split, step: str) -> None:
    guard, noted = crash_at(step)
    with pytest.raises(Crash):
        await rewind(one_split).apply(guard)
    assert noted[-1] == step
    await one_split.old.session.drop()
    if keep.rewind_is_unfinished(one_split.old.server.data_dir):
        assert (await read_offline(one_split.old.instance)).state is ControlState.ABSENT
        with pytest.raises(ActionError, match="only a new base copy"):
            await rewind(one_split).apply(one_split.old.guard)
        with pytest.raises(ActionError, match="only a new base copy"):
            await Start(one_split.old.instance, one_split.old.session).apply(one_split.old.guard)
        await one_split.old.do(copy(one_split))
    else:
        await one_split.old.do(rewind(one_split))
    await has_come_back(one_split)


# ------------------------------------------------------------------ copy


async def test_a_copy_replaces_everything(split: Split, record_property: Callable[[str, object], None]) -> None:
    mode, owner = split.old.server.data_dir.stat().st_mode, split.old.server.data_dir.stat().st_uid
    (split.old.server.data_dir / "left-behind").write_text("x")
    _, took_ms = await split.old.timed(copy(split))
    await copy(split).verify()
    await has_come_back(split)
    record_property("copy_ms", round(took_ms))
    assert (split.old.server.data_dir.stat().st_mode, split.old.server.data_dir.stat().st_uid) == (mode, owner)
    assert not (split.old.server.data_dir / "left-behind").exists()
    assert [path.name for path in split.old.server.directory.iterdir() if "quorate" in path.name] == []


@pytest.mark.parametrize("step", ["stop", "fetch", "swap", "start", "follow"])
async def test_an_agent_that_dies_in_a_copy_is_finished_by_the_next(one_split: Split, step: str) -> None:
    guard, noted = crash_at(step)
    with pytest.raises(Crash):
        await copy(one_split).apply(guard)
    assert noted[-1] == step
    await one_split.old.session.drop()
    await one_split.old.do(copy(one_split))
    await has_come_back(one_split)


@pytest.mark.parametrize("inside", [False, True])
async def test_a_swap_that_breaks_off_anywhere_cannot_be_started_and_is_gone_on_with(
    one_split: Split, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    """Every rename and removal of the swap is once the last thing that the agent did. `inside`: as in a mount point of its own."""
    data_dir = one_split.old.server.data_dir
    if inside:
        monkeypatch.setattr(rejoin, "staging_folder", lambda folder: folder / rejoin.INNER_STAGING)
    guard, _ = crash_at("swap")
    with pytest.raises(Crash):
        await copy(one_split).apply(guard)
    for after in range(0, 60, 7):
        for name in ("unlink", "rename"):
            if (rejoin.staging_folder(data_dir) / "global").exists():
                breaks_off(monkeypatch, name, after, lambda: rejoin.swap(data_dir))
            if (rejoin.staging_folder(data_dir) / "global").exists():
                assert rejoin.swap_is_unfinished(data_dir) or after == 0
                await cannot_start(one_split.old)
    await one_split.old.do(copy(one_split))
    await has_come_back(one_split)


async def cannot_start(old: Member) -> None:
    if not (old.server.data_dir / "global" / "pg_control").exists():
        with pytest.raises(ActionError, match="no complete cluster"):
            await Start(old.instance, old.session).apply(old.guard)


async def test_without_a_complete_copy_nothing_is_removed(one_split: Split) -> None:
    with pytest.raises(ActionError, match="nothing is removed"):
        rejoin.swap(one_split.old.server.data_dir)
    assert (one_split.old.server.data_dir / "global" / "pg_control").exists()


def breaks_off(monkeypatch: pytest.MonkeyPatch, name: str, after: int, work: Callable[[], None]) -> None:
    """Run `work`, which dies at its `after`-th call of this method of Path."""
    true, left = getattr(Path, name), after

    def counted(self: Path, *arguments: object, **more: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash(name)
        return true(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, name, counted)
        try:
            work()
        except Crash:
            return


async def test_a_new_member_without_any_data_is_copied(one_split: Split) -> None:
    with new_server(VERSIONS[0]) as server:
        rejoin.shutil.rmtree(server.data_dir)
        async with member(server, "fresh") as fresh:
            assert (await read_offline(fresh.instance)).state is ControlState.ABSENT
            await fresh.do(Copy(fresh.instance, fresh.session, one_split.new.upstream, kill_tree))
            assert server.psql("SELECT count(*) FROM t") == "101"
            assert server.data_dir.stat().st_uid == server.directory.stat().st_uid


async def test_an_upstream_that_is_away_costs_nothing_of_the_old_data(one_split: Split) -> None:
    before = sorted(path.name for path in one_split.old.server.data_dir.iterdir() if "postmaster" not in path.name)
    away = Copy(one_split.old.instance, one_split.old.session, Upstream("new", "127.0.0.1", free_port()), kill_tree)
    with pytest.raises(ActionError, match=r"new at 127.0.0.1"):
        await away.apply(one_split.old.guard)
    assert sorted(path.name for path in one_split.old.server.data_dir.iterdir() if "postmaster" not in path.name) == before


async def test_a_leftover_copy_of_a_killed_agent_is_ended_first(one_split: Split) -> None:
    """Its pg_basebackup goes on without it; two of them in one folder would mix."""
    old = one_split.old
    running = asyncio.ensure_future(copy(one_split).apply(old.guard))
    await eventually_async(lambda: "fetch" in old.steps)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await old.session.drop()
    await old.do(copy(one_split))
    await has_come_back(one_split)


async def test_no_room_is_said_before_anything_is_fetched(one_split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejoin, "SPARE_BYTES", 1 << 60)
    with pytest.raises(ActionError, match=r"no room for a base copy in .*: \d+ MiB are free, \d+ MiB are needed"):
        await copy(one_split).apply(one_split.old.guard)
    assert (one_split.old.server.data_dir / "global" / "pg_control").exists()
