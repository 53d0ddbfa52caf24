"""StopReceiving and Follow on real servers: nothing arrives any more when a position is called final, and a follower really streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from actions import postgres_files as files
from actions.base import ActionError, ActionTimeout
from actions.postgres import Follow, Promote, StopReceiving, Upstream, current_postmaster, format_lsn, parse_lsn, read_history
from actions.postgres_instance import slot_name
from tests.polling import eventually_async
from tests.servers.misbehaving import hung
from tests.servers.postgres import PostgresServer, all_bin_dirs, free_port, own
from tests.servers.postgres_member import Member, kill_tree, member, new_server, standby_of

VERSIONS = sorted(all_bin_dirs())
SLOW_RETRY = {"wal_retrieve_retry_interval": "5s"}
"""Postgres' own default: what is fast here does not come from a test's setting."""


@dataclass
class Group:
    """A primary and two standbys of it, streaming."""

    a: Member
    b: Member
    c: Member


@pytest.fixture(params=VERSIONS)
async def group(request: pytest.FixtureRequest) -> AsyncIterator[Group]:
    async with AsyncExitStack() as stack:
        yield await make_group(stack, request.param)


@pytest.fixture
async def one_group() -> AsyncIterator[Group]:
    """Of one version only."""
    async with AsyncExitStack() as stack:
        yield await make_group(stack, VERSIONS[0])


async def make_group(stack: AsyncExitStack, version: str) -> Group:
    primary = stack.enter_context(new_server(version, settings=SLOW_RETRY))
    primary.start()
    standbys = [stack.enter_context(standby_of(primary, node, settings=SLOW_RETRY)) for node in ("b", "c")]
    primary.wait_streaming(2)
    primary.psql("CREATE TABLE t AS SELECT generate_series(1, 100) AS i")
    members = [
        await stack.enter_async_context(member(server, node)) for server, node in zip((primary, *standbys), ("a", "b", "c"), strict=True)
    ]
    for each in members[1:]:
        await eventually_async(lambda each=each: rows(each) == 100)  # type: ignore[misc]
    return Group(*members)


def rows(each: Member) -> int:
    return int(each.server.psql("SELECT count(*) FROM pg_class WHERE relname = 't'")) and int(each.server.psql("SELECT count(*) FROM t"))


def stop_receiving(each: Member) -> StopReceiving:
    return StopReceiving(each.instance, each.session, kill_tree)


def follow(each: Member, upstream: Member) -> Follow:
    return Follow(each.instance, each.session, upstream.upstream)


async def promote(each: Member) -> None:
    await each.do(Promote(each.instance, each.session, kill_tree, sync_names=None))


# ------------------------------------------------------------------ stop receiving


async def test_a_final_position_is_final(group: Group) -> None:
    await group.b.session.rows("SELECT 1")
    position, took_ms = await group.b.timed(stop_receiving(group.b))
    group.a.server.psql("INSERT INTO t SELECT generate_series(1, 1000)")
    group.c.server.psql("SELECT 1")
    await eventually_async(lambda: rows(group.c) == 1100)
    assert rows(group.b) == 100
    assert position.timeline == 1
    assert position == await group.b.do(stop_receiving(group.b))
    assert took_ms < 1000


async def test_what_was_received_counts_while_replay_is_paused(one_group: Group) -> None:
    b = one_group.b
    b.server.psql("SELECT pg_wal_replay_pause()")
    one_group.a.server.psql("INSERT INTO t SELECT generate_series(1, 1000)")
    written = parse_lsn(one_group.a.server.psql("SELECT pg_current_wal_lsn()"))
    await eventually_async(lambda: parse_lsn(b.server.psql("SELECT pg_last_wal_receive_lsn()")) >= written)
    position = await b.do(stop_receiving(b))
    assert position.lsn >= written
    b.server.psql("SELECT pg_wal_replay_resume()")
    await eventually_async(lambda: rows(b) == 1100)


async def test_it_stops_while_replay_is_delayed(one_group: Group) -> None:
    b = one_group.b
    b.server.psql("ALTER SYSTEM SET recovery_min_apply_delay = '1h'")
    b.server.psql("SELECT pg_reload_conf()")
    await eventually_async(lambda: b.server.psql("SHOW recovery_min_apply_delay") == "1h")
    one_group.a.server.psql("INSERT INTO t SELECT generate_series(1, 10)")
    delayed = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'RecoveryApplyDelay'"
    await eventually_async(lambda: b.server.psql(delayed) == "1")
    await b.do(stop_receiving(b))
    assert rows(b) == 100


async def test_a_receiver_that_is_only_connecting_is_stopped_too(one_group: Group) -> None:
    """pg_stat_wal_receiver does not show it; believing that view would call a position final while a receiver is on its way."""
    b = one_group.b
    async with hung() as port:
        hasty = b.with_settings(follow_timeout_s=3.0)
        with pytest.raises(ActionTimeout):
            await Follow(hasty.instance, hasty.session, Upstream("a", "127.0.0.1", port)).apply(hasty.guard)
        connecting = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walreceiver'"
        await eventually_async(lambda: b.server.psql(connecting) == "1")
        assert b.server.psql("SELECT count(*) FROM pg_stat_wal_receiver") == "0"
        await b.do(stop_receiving(b))
        assert b.server.psql(connecting) == "0"
        await hasty.session.drop()


async def test_a_primary_receives_from_nobody(one_group: Group) -> None:
    with pytest.raises(ActionError, match="takes writes"):
        await stop_receiving(one_group.a).apply(one_group.a.guard)


async def test_a_future_that_never_came_does_not_spoil_the_next_history(group: Group) -> None:
    """Postgres makes a timeline whose history it knows its target, even if it never came to its beginning, and then names it as parent."""
    b = group.b
    before = await b.do(stop_receiving(b))
    group.a.server.psql("INSERT INTO t SELECT generate_series(1, 1000)")
    beyond = group.a.server.psql("SELECT pg_current_wal_lsn()")
    history = files.history_path(b.server.data_dir, 2)
    history.write_text(f"1\t{beyond}\tno recovery target specified\n")
    own(history)
    b.server.psql("SELECT pg_reload_conf()")
    await eventually_async(lambda: "new target timeline is 2" in b.server.log())
    life = current_postmaster(b.server.data_dir)
    position = await b.do(stop_receiving(b))
    assert current_postmaster(b.server.data_dir) != life
    assert position == before
    promoted = await b.do(
        Promote(b.instance, b.session, kill_tree, sync_names=None, known_promotions=((2, "a", 2, 1, parse_lsn(beyond)),)),
    )
    assert (promoted.timeline, promoted.parent_timeline) == (3, 1)
    assert before.lsn <= promoted.switch_lsn < parse_lsn(beyond)
    assert read_history(b.server.data_dir, 3) == ((1, promoted.switch_lsn),)


# ------------------------------------------------------------------ follow


async def test_a_standby_follows_a_freshly_promoted_one(group: Group) -> None:
    group.a.server.kill()
    await group.b.do(stop_receiving(group.b))
    await group.c.do(stop_receiving(group.c))
    await promote(group.b)
    _, took_ms = await group.c.timed(follow(group.c, group.b))
    group.b.server.psql("INSERT INTO t VALUES (0)")
    await eventually_async(lambda: rows(group.c) == 101)
    await follow(group.c, group.b).verify()
    assert took_ms < 3000, "the retry interval of 5 s was waited for"
    again, repeated_ms = await group.c.timed(follow(group.c, group.b))
    assert again is None
    assert repeated_ms < 1000


async def test_a_receiver_that_is_busy_writing_streams_all_the_same(one_group: Group) -> None:
    await one_group.b.do(follow(one_group.b, one_group.a))
    ended = asyncio.Event()

    async def write_without_pause() -> None:
        while not ended.is_set():
            await one_group.a.session.rows("INSERT INTO t SELECT generate_series(1, 200) RETURNING 1")

    writing = asyncio.create_task(write_without_pause())
    try:
        for _ in range(300):
            assert await follow(one_group.b, one_group.a).is_done()
    finally:
        ended.set()
        await writing


async def test_an_upstream_that_comes_up_later_is_found_before_the_retry_interval_is_over(one_group: Group) -> None:
    """A failed attempt puts the startup process to sleep for 5 s: it is woken."""
    a, b = one_group.a, one_group.b
    await b.do(stop_receiving(b))
    a.server.stop()
    following = asyncio.ensure_future(follow(b, a).apply(b.guard))
    await eventually_async(lambda: "could not connect to the primary server" in b.server.log().rpartition("parameter")[2])
    a.server.start()
    began = time.perf_counter()
    await following
    assert time.perf_counter() - began < 2.5


async def test_a_follower_makes_its_own_slot_and_drops_those_of_others(one_group: Group) -> None:
    a, b, c = one_group.a, one_group.b, one_group.c
    slots = "SELECT coalesce(string_agg(slot_name, ' ' ORDER BY slot_name), '') FROM pg_replication_slots"
    b.server.psql("SELECT pg_create_physical_replication_slot('quorate_c', true)")
    b.server.psql("SELECT pg_create_physical_replication_slot('users_own', true)")
    await b.do(stop_receiving(b))
    await b.do(follow(b, a))
    await c.do(stop_receiving(c))
    await c.do(follow(c, a))
    assert a.server.psql(slots) == "quorate_b quorate_c"
    assert b.server.psql(slots) == "users_own"
    assert b.server.psql("SELECT slot_name FROM pg_stat_wal_receiver") == "quorate_b"


async def test_without_a_place_for_a_slot_it_follows_all_the_same(one_group: Group) -> None:
    a, b = one_group.a, one_group.b
    for number in range(10):
        a.server.psql(f"SELECT pg_create_physical_replication_slot('other_{number}')")
    await b.do(stop_receiving(b))
    await b.do(follow(b, a))
    assert b.server.psql("SHOW primary_slot_name") == ""


async def test_the_password_stands_in_one_private_file_only(one_group: Group) -> None:
    b = one_group.b
    (b.server.data_dir / "postgresql.auto.conf").write_text("")
    await b.do(stop_receiving(b))
    await b.do(follow(b, one_group.a))
    assert (b.instance.passfile.stat().st_mode & 0o777) == 0o600
    holders = [path.name for path in b.server.data_dir.rglob("*") if path.is_file() and b"replicator-pw" in path.read_bytes()]
    assert holders == ["quorate.pgpass"]
    assert "replicator-pw" not in b.server.log()
    assert "replicator-pw" not in b.server.psql("SHOW primary_conninfo")


async def test_who_went_on_beyond_the_switch_is_told_so_at_once(one_group: Group) -> None:
    a, b, c = one_group.a, one_group.b, one_group.c
    await b.do(stop_receiving(b))
    a.server.psql("INSERT INTO t SELECT generate_series(1, 1000)")
    await eventually_async(lambda: rows(c) == 1100)
    await promote(b)
    began = time.perf_counter()
    with pytest.raises(ActionError, match=r"b left timeline 1 at 0/\w+, this one went on to 0/\w+: it has to rewind"):
        await follow(c, b).apply(c.guard)
    assert time.perf_counter() - began < 2
    assert "follow" not in c.steps


async def test_it_does_not_follow_into_the_past(one_group: Group) -> None:
    a, b, c = one_group.a, one_group.b, one_group.c
    await b.do(stop_receiving(b))
    await promote(b)
    await c.do(stop_receiving(c))
    await c.do(follow(c, b))
    with pytest.raises(ActionError, match="a is on timeline 1, older than the own timeline 2"):
        await follow(c, a).apply(c.guard)


async def test_another_cluster_is_refused(one_group: Group) -> None:
    with PostgresServer(bin_dir=one_group.a.server.bin_dir) as stranger:
        stranger.initdb()
        stranger.start()
        other = Upstream("x", stranger.host, stranger.port)
        with pytest.raises(ActionError, match="x is another cluster"):
            await Follow(one_group.b.instance, one_group.b.session, other).apply(one_group.b.guard)


@pytest.mark.parametrize(
    ("user", "words"),
    [("nobody_at_all", "takes no connection as nobody_at_all"), ("replicator", "did not answer|Connection refused|refused")],
)
async def test_a_follow_that_is_late_says_why(one_group: Group, user: str, words: str) -> None:
    b = one_group.b
    login = type(b.instance.replication)(user, "x" if user != "replicator" else b.instance.replication.password)
    hasty = b.with_settings(follow_timeout_s=1.0, replication=login)
    where = one_group.a.upstream if user != "replicator" else Upstream("a", "127.0.0.1", free_port())
    with pytest.raises(ActionTimeout, match=words):
        await Follow(hasty.instance, hasty.session, where).apply(hasty.guard)
    await hasty.session.drop()


async def test_a_placeholder_of_a_promotion_that_never_was_does_not_keep_it_from_the_true_history(one_group: Group) -> None:
    a, b, c = one_group.a, one_group.b, one_group.c
    await c.do(stop_receiving(c))
    await asyncio.to_thread(files.place_placeholders, c.server.data_dir, 3)
    assert files.known_histories(c.server.data_dir) == (2, 3)
    await b.do(stop_receiving(b))
    await promote(b)
    await c.do(follow(c, b))
    assert files.newest_timeline(c.server.data_dir) == 2
    assert files.known_histories(c.server.data_dir) == (2,)
    assert a.server.pid() is not None


def test_a_slots_name_is_nobody_elses() -> None:
    names = ["a-b", "a_b", "a--b", "a_-b", "x" * 63, "x" * 62 + "y", "x" * 62]
    slots = {slot_name(name) for name in names}
    assert len(slots) == len(names)
    assert all(len(slot) <= 63 and Path(slot).name == slot for slot in slots)
    assert format_lsn(parse_lsn("1A/BEEF")) == "1A/BEEF"
