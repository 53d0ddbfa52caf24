"""Promote and SetSyncNames on real servers: sealed at once, commits that wait from the first one on, a fresh timeline number."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from actions import postgres_files as files
from actions.base import ActionError, ActionTimeout, ActionTooLate, Guard
from actions.postgres import (
    Follow,
    Postmaster,
    Promote,
    Promoted,
    SetSyncNames,
    Start,
    Stop,
    StopReceiving,
    current_postmaster,
    is_sealed,
    newest_timeline,
    parse_lsn,
    processes_of,
    read_history,
)
from actions.postgres_files import known_histories, place_placeholders
from tests.polling import eventually_async, holds_async
from tests.servers.postgres import all_bin_dirs
from tests.servers.postgres_member import Crash, Member, crash_at, kill_tree, member, new_server, standby_of

VERSIONS = sorted(all_bin_dirs())
STEPS = ["set_sync_names", "place_history", "promote", "seal"]


@dataclass
class Pair:
    """A primary and its streaming standby."""

    a: Member
    b: Member


@pytest.fixture(params=VERSIONS)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        yield await make_pair(stack, request.param)


@pytest.fixture
async def one_pair() -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        yield await make_pair(stack, VERSIONS[0])


@pytest.fixture
async def lone() -> AsyncIterator[Member]:
    """A started sealed standby that follows nobody."""
    with new_server(VERSIONS[0]) as server:
        async with member(server, "n1") as one:
            await one.do(Start(one.instance, one.session))
            one.steps.clear()
            yield one


async def make_pair(stack: AsyncExitStack, version: str) -> Pair:
    primary = stack.enter_context(new_server(version))
    primary.start()
    standby = stack.enter_context(standby_of(primary, "b"))
    primary.wait_streaming(1)
    return Pair(await stack.enter_async_context(member(primary, "a")), await stack.enter_async_context(member(standby, "b")))


def promote(each: Member, *, names: tuple[str, ...] | None = None, **more: object) -> Promote:
    return Promote(each.instance, each.session, kill_tree, sync_names=names, **more)  # type: ignore[arg-type]


async def stopped_receiving(each: Member) -> int:
    return (await each.do(StopReceiving(each.instance, each.session, kill_tree))).lsn


def is_writable(each: Member) -> bool:
    return each.server.psql("SELECT pg_is_in_recovery()") == "f"


# ------------------------------------------------------------------ promote


async def test_a_promotion(pair: Pair) -> None:
    pair.a.server.kill()
    position = await stopped_receiving(pair.b)
    pair.b.steps.clear()
    marks: list[tuple[str, float]] = []

    async def note(step: str) -> None:
        marks.append((step, time.perf_counter()))

    action = promote(pair.b, names=("c",))
    promoted = await action.apply(Guard(permit=lambda: None, step=note))
    marks.append(("end", time.perf_counter()))
    await action.verify()
    assert promoted == Promoted(2, 1, promoted.switch_lsn)
    assert promoted.switch_lsn >= position
    assert read_history(pair.b.server.data_dir, 2) == ((1, promoted.switch_lsn),)
    assert is_sealed(pair.b.server.data_dir)
    assert [step for step, _ in marks] == [*STEPS, "end"]
    assert marks[-1][1] - marks[0][1] < 3


async def test_the_very_first_commit_waits(pair: Pair) -> None:
    """A client that was connected all along and fires as soon as it can gets no acknowledgement without the standby that is named."""
    pair.a.server.psql("CREATE TABLE t (i int)")
    written = parse_lsn(pair.a.server.psql("SELECT pg_current_wal_lsn()"))
    await eventually_async(lambda: parse_lsn(pair.b.server.psql("SELECT pg_last_wal_replay_lsn()")) >= written)
    await stopped_receiving(pair.b)
    acknowledged = 0
    client = await psycopg.AsyncConnection.connect(pair.b.server.socket_dsn(), autocommit=True)

    async def fire() -> None:
        nonlocal acknowledged
        while True:
            try:
                await client.execute("INSERT INTO t VALUES (1)")
            except psycopg.errors.ReadOnlySqlTransaction:
                continue
            acknowledged += 1

    firing = asyncio.ensure_future(fire())
    await pair.b.do(promote(pair.b, names=("nobody-here",)))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    await eventually_async(lambda: pair.b.server.psql(waiting) == "1" or firing.done())
    assert acknowledged == 0
    pair.b.server.kill()
    with contextlib.suppress(psycopg.Error):
        await firing
    await client.close()


async def test_the_seal_stands_when_the_first_write_is_taken(pair: Pair) -> None:
    """It was seen writable and unsealed for 5 to 10 ms while only the promotion itself looked after the seal."""
    await stopped_receiving(pair.b)
    running = asyncio.ensure_future(promote(pair.b).apply(pair.b.guard))
    async with await psycopg.AsyncConnection.connect(pair.b.server.socket_dsn(), autocommit=True) as client:
        while True:
            row = await (await client.execute("SELECT pg_is_in_recovery()")).fetchone()
            if row == (False,):
                break
    await eventually_async(lambda: is_sealed(pair.b.server.data_dir), within_s=0.05)
    await running


async def test_a_promotion_that_cannot_be_sealed_is_undone(lone: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "standby.signal")

    monkeypatch.setattr(files, "seal", full)
    with pytest.raises(ActionError, match="No space left"):
        await promote(lone).apply(lone.guard)
    assert processes_of(lone.server.data_dir) == ()


@pytest.mark.parametrize("step", STEPS)
async def test_an_agent_that_dies_at_a_step_is_finished_by_the_next(lone: Member, step: str) -> None:
    guard, noted = crash_at(step)
    with pytest.raises(Crash):
        await promote(lone, names=("c",)).apply(guard)
    assert noted[-1] == step
    await lone.session.drop()
    promoted = await lone.do(promote(lone, names=("c",)))
    assert promoted.timeline == 2
    assert is_writable(lone)
    assert is_sealed(lone.server.data_dir)
    assert lone.server.psql("SHOW synchronous_standby_names") == 'FIRST 1 ("c")'


async def test_promoting_a_primary_again_changes_nothing(lone: Member) -> None:
    first = await lone.do(promote(lone))
    assert await lone.do(promote(lone)) == first


async def test_an_unsealed_primary_is_sealed_by_a_repeat(lone: Member) -> None:
    """As a kill -9 in the instant after the promotion leaves it."""
    first = await lone.do(promote(lone))
    (lone.server.data_dir / "standby.signal").unlink()
    assert not await promote(lone).is_done()
    assert await lone.do(promote(lone)) == first


async def test_without_permission_nothing_is_promoted(lone: Member) -> None:
    def permit() -> None:
        raise ActionTooLate("the lease is over")

    with pytest.raises(ActionTooLate):
        await promote(lone).apply(Guard(permit=permit, step=lone.guard.step))
    await holds_async(lambda: not is_writable(lone), 0.5)


async def test_a_permission_that_ends_during_it_fences(lone: Member) -> None:
    asked = 0

    def permit() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise ActionTooLate("the lease is over")

    with pytest.raises(ActionTooLate):
        await promote(lone).apply(Guard(permit=permit, step=lone.guard.step))
    assert processes_of(lone.server.data_dir) == ()


async def test_only_the_life_that_was_armed_is_promoted(lone: Member) -> None:
    armed = current_postmaster(lone.server.data_dir)
    assert armed is not None
    with pytest.raises(ActionError, match="another life"):
        await promote(lone, expected=Postmaster(armed.pid, armed.start_ticks - 1)).apply(lone.guard)
    lone.server.stop("immediate")
    lone.server.start()
    with pytest.raises(ActionError, match="another life"):
        await promote(lone, expected=armed).apply(lone.guard)
    assert not is_writable(lone)
    await lone.do(promote(lone, expected=current_postmaster(lone.server.data_dir)))


async def test_what_is_down_is_not_promoted(lone: Member) -> None:
    lone.server.kill()
    with pytest.raises(ActionError, match="does not run"):
        await promote(lone).apply(lone.guard)


async def test_a_promotion_that_is_late_is_undone(one_pair: Pair) -> None:
    """Its replay is delayed for an hour and holds the promotion up; nobody would be there to seal it when it came."""
    b = one_pair.b
    b.server.psql("SELECT pg_reload_conf()")
    holder = await psycopg.AsyncConnection.connect(b.server.socket_dsn())
    one_pair.a.server.psql("CREATE TABLE t AS SELECT 1 AS i")
    await eventually_async(lambda: b.server.psql("SELECT count(*) FROM pg_class WHERE relname = 't'") == "1")
    b.server.psql("ALTER SYSTEM SET max_standby_streaming_delay = -1")
    b.server.psql("ALTER SYSTEM SET max_standby_archive_delay = -1")
    b.server.psql("SELECT pg_reload_conf()")
    await eventually_async(lambda: b.server.psql("SHOW max_standby_archive_delay") == "-1")
    await holder.execute("BEGIN")
    await holder.execute("SELECT * FROM t")
    one_pair.a.server.psql("DROP TABLE t")
    written = parse_lsn(one_pair.a.server.psql("SELECT pg_current_wal_lsn()"))
    await eventually_async(lambda: parse_lsn(b.server.psql("SELECT pg_last_wal_receive_lsn()")) >= written)
    one_pair.a.server.kill()
    hasty = b.with_settings(promote_timeout_s=0.7)
    with pytest.raises(ActionTimeout, match="replay of what it had received"):
        await promote(hasty).apply(hasty.guard)
    assert processes_of(b.server.data_dir) == ()
    await hasty.session.drop()
    await holder.close()


async def test_a_number_that_others_used_is_not_taken_and_standbys_follow_over_it(pair: Pair) -> None:
    with standby_of(pair.a.server, "c") as other:
        async with member(other, "c") as c:
            pair.a.server.wait_streaming(2)
            pair.a.server.kill()
            await stopped_receiving(pair.b)
            known = ((2, "x", 2, 1, 1), (3, "y", 4, 2, 1))
            promoted = await pair.b.do(promote(pair.b, known_promotions=known))
            assert (promoted.timeline, promoted.parent_timeline) == (5, 1)
            await c.do(Follow(c.instance, c.session, pair.b.upstream))
            pair.b.server.psql("CREATE TABLE t AS SELECT 1 AS i")
            await eventually_async(lambda: other.psql("SELECT count(*) FROM pg_class WHERE relname = 't'") == "1")
            assert newest_timeline(other.data_dir) == 5
            for each in (pair.b, c):  # both come up again with the numbers that were skipped
                each.server.stop()
                each.server.start()
                assert each.server.psql("SELECT pg_is_in_recovery()") == "t"


async def test_a_start_after_a_promotion_that_broke_off_before_it_began(lone: Member) -> None:
    """Below a placeholder Postgres waits for ever for WAL of that number: a start takes it away."""
    await asyncio.to_thread(place_placeholders, lone.server.data_dir, 3)
    await lone.do(Stop(lone.instance, lone.session, kill_tree))
    assert known_histories(lone.server.data_dir) == (2, 3)
    await lone.do(Start(lone.instance, lone.session))
    assert known_histories(lone.server.data_dir) == ()


# ------------------------------------------------------------------ sync names


async def test_sync_names_are_in_force_when_it_returns(pair: Pair) -> None:
    a = pair.a
    effect, _ = await a.timed(SetSyncNames(a.instance, a.session, ("b",)))
    assert a.server.psql("SELECT sync_state FROM pg_stat_replication WHERE application_name = 'b'") == "sync"
    assert effect.effective_lsn <= parse_lsn(a.server.psql("SELECT pg_current_wal_lsn()"))
    a.server.psql("CREATE TABLE t (i int)")
    pair.b.server.kill()
    client = await psycopg.AsyncConnection.connect(a.server.socket_dsn(), autocommit=True)
    commit = asyncio.ensure_future(client.execute("INSERT INTO t VALUES (1)"))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    await eventually_async(lambda: a.server.psql(waiting) == "1" or commit.done())
    assert not commit.done()
    await a.do(SetSyncNames(a.instance, a.session, ()))
    await asyncio.wait_for(commit, 5)
    await client.close()


async def test_no_commit_slips_through_while_names_change(pair: Pair) -> None:
    """What is acknowledged without the new standby is below effective_lsn: it never has to be feared that it lacks something above."""
    a = pair.a
    a.server.psql("CREATE TABLE t (i int)")
    acknowledged: list[int] = []
    stop = asyncio.Event()

    async def write() -> None:
        """Note, for each commit that was acknowledged, where the WAL was before it."""
        async with await psycopg.AsyncConnection.connect(a.server.socket_dsn(), autocommit=True) as client:
            while not stop.is_set():
                row = await (await client.execute("SELECT pg_current_wal_insert_lsn()")).fetchone()
                await client.execute("INSERT INTO t VALUES (1)")
                acknowledged.append(parse_lsn(str(row[0] if row else "0/0")))

    pair.b.server.signal_all(signal.SIGSTOP)
    writing = asyncio.ensure_future(write())
    await eventually_async(lambda: len(acknowledged) > 5)
    effect = await SetSyncNames(a.instance, a.session, ("b",)).apply(a.guard)
    await holds_async(lambda: True, 0.3)
    assert [lsn for lsn in acknowledged if lsn >= effect.effective_lsn] == []
    stop.set()
    pair.b.server.signal_all(signal.SIGCONT)
    await asyncio.wait_for(writing, 10)


async def test_a_commit_that_was_held_while_names_change_goes_on_at_once(pair: Pair) -> None:
    """Senders let commits go when their standby replies, on an idle server every 10 s: something has to make it reply."""
    a = pair.a
    a.server.psql("CREATE TABLE t (i int)")
    longest_s = 0.0
    stop = asyncio.Event()

    async def write() -> None:
        nonlocal longest_s
        async with await psycopg.AsyncConnection.connect(a.server.socket_dsn(), autocommit=True) as client:
            while not stop.is_set():
                began = time.perf_counter()
                await client.execute("INSERT INTO t VALUES (1)")
                longest_s = max(longest_s, time.perf_counter() - began)

    writing = asyncio.ensure_future(write())
    for names in (("b",), (), ("b",)):
        await SetSyncNames(a.instance, a.session, names).apply(a.guard)
    stop.set()
    await asyncio.wait_for(writing, 5)
    assert longest_s < 2


async def test_a_checkpoint_that_goes_on_for_minutes_holds_no_commit_up(pair: Pair) -> None:
    """After each promotion Postgres spreads a checkpoint over minutes; its checkpointer reads settings between two pages."""
    b = pair.b
    pair.a.server.psql("CREATE TABLE t AS SELECT generate_series(1, 20000) AS i")
    written = parse_lsn(pair.a.server.psql("SELECT pg_current_wal_lsn()"))
    await eventually_async(lambda: parse_lsn(b.server.psql("SELECT pg_last_wal_replay_lsn()")) >= written)
    pair.a.server.kill()
    await b.do(promote(b))
    busy = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'checkpointer' AND wait_event = 'CheckpointWriteDelay'"
    await eventually_async(lambda: b.server.psql(busy) == "1")
    for names in (("c",), ("d",), ()):
        _, took_ms = await b.timed(SetSyncNames(b.instance, b.session, names))
        assert took_ms < 1500
    assert b.server.psql(busy) == "1", "the checkpoint was over too soon to tell anything"


async def test_a_sender_that_has_not_read_the_names_yet_is_waited_for(pair: Pair) -> None:
    """It would release commits by the old, shorter list although its own standby's place in the list is the same."""
    a = pair.a
    await a.do(SetSyncNames(a.instance, a.session, ("b",)))
    sender = int(a.server.psql("SELECT pid FROM pg_stat_replication WHERE application_name = 'b'"))
    os.kill(sender, signal.SIGSTOP)
    hasty = SetSyncNames(a.instance, a.session, ("b", "c"))
    hasty.timeout_s = 0.7
    try:
        with pytest.raises(ActionTimeout):
            await hasty.apply(a.guard)
    finally:
        os.kill(sender, signal.SIGCONT)
    assert a.server.psql("SHOW synchronous_standby_names") == 'FIRST 2 ("b", "c")', "nobody is left waited for"
    await a.do(SetSyncNames(a.instance, a.session, ("b", "c")))


async def test_names_with_any_sign_and_the_empty_list(one_pair: Pair) -> None:
    a = one_pair.a
    await a.do(SetSyncNames(a.instance, a.session, ('we"ird', "b")))
    assert a.server.psql("SHOW synchronous_standby_names") == 'FIRST 2 ("we""ird", "b")'
    await a.do(SetSyncNames(a.instance, a.session, ()))
    assert a.server.psql("SHOW synchronous_standby_names") == ""


async def test_a_standby_has_no_commits_of_its_own(one_pair: Pair) -> None:
    with pytest.raises(ActionError, match="is a standby"):
        await SetSyncNames(one_pair.b.instance, one_pair.b.session, ("a",)).apply(one_pair.b.guard)


async def test_a_setting_that_stands_elsewhere_with_precedence_is_named(one_pair: Pair) -> None:
    a = one_pair.a
    a.server.stop()
    config = a.server.config_file
    a.server.run(
        "pg_ctl",
        "start",
        "-w",
        "-s",
        "-D",
        str(a.server.data_dir),
        "-l",
        str(a.server.log_file),
        "-o",
        f"-c config_file={config} -c synchronous_standby_names=x",
    )
    with pytest.raises(ActionError, match="synchronous_standby_names is set elsewhere"):
        await SetSyncNames(a.instance, a.session, ("b",)).apply(a.guard)
