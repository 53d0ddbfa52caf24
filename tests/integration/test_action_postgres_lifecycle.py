"""Start, Stop, Fence and Seal on real servers: nothing but a promotion ever makes one writable, whatever was killed before."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from actions.base import ActionError, ActionTimeout
from actions.postgres import ControlState, Fence, Promote, Seal, Start, Stop, current_postmaster, is_sealed, processes_of, read_offline
from actions.postgres_keep import begin_keeping, end_keeping
from tests.polling import eventually_async
from tests.servers.postgres import OS_USER, PostgresServer, all_bin_dirs
from tests.servers.postgres_member import Member, kill_tree, member, new_server, standby_of

VERSIONS = sorted(all_bin_dirs())


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A cluster of each version, not started."""
    with new_server(request.param) as made:
        yield made


@pytest.fixture
async def node(server: PostgresServer) -> AsyncIterator[Member]:
    async with member(server, "n1") as one:
        yield one


@pytest.fixture
async def one() -> AsyncIterator[Member]:
    """A cluster of one version only, not started."""
    with new_server(VERSIONS[0]) as made:
        async with member(made, "n1") as each:
            yield each


def in_recovery(server: PostgresServer) -> bool:
    return server.psql("SELECT pg_is_in_recovery()") == "t"


async def promoted(node: Member) -> None:
    await node.do(Start(node.instance, node.session))
    await node.do(Promote(node.instance, node.session, kill_tree, sync_names=None))


# ------------------------------------------------------------------ start


async def test_a_start_is_read_only_and_keeps_foreign_settings(node: Member) -> None:
    auto = node.server.data_dir / "postgresql.auto.conf"
    auto.write_text("# a comment\nwork_mem = '5MB'\nprimary_conninfo = 'host=old'\nPrimary_ConnInfo = 'host=older'\n")
    postmaster = await node.do(Start(node.instance, node.session, sync_names=("n2",)))
    assert in_recovery(node.server)
    assert is_sealed(node.server.data_dir)
    assert node.server.psql("SHOW work_mem") == "5MB"
    assert node.server.psql("SHOW primary_conninfo") == ""
    assert node.server.psql("SHOW synchronous_standby_names") == 'FIRST 1 ("n2")'
    assert "# a comment" in auto.read_text()
    assert postmaster == current_postmaster(node.server.data_dir)
    assert (node.server.data_dir / "standby.signal").stat().st_uid == node.server.data_dir.stat().st_uid


async def test_a_start_outlives_its_starter(one: Member) -> None:
    postmaster = await one.do(Start(one.instance, one.session))
    assert os.getsid(postmaster.pid) != os.getsid(0)
    assert os.getpgid(postmaster.pid) != os.getpgid(0)


async def test_a_second_start_changes_nothing(one: Member) -> None:
    first = await one.do(Start(one.instance, one.session))
    assert await one.do(Start(one.instance, one.session)) == first
    assert one.steps == ["start"]


async def test_a_running_primary_is_not_called_started(one: Member) -> None:
    await promoted(one)
    with pytest.raises(ActionError, match="takes writes"):
        await Start(one.instance, one.session).apply(one.guard)


async def test_a_start_after_sigkill(node: Member) -> None:
    await promoted(node)
    node.server.psql("CREATE TABLE t AS SELECT 1 AS i")
    node.server.kill()
    assert (node.server.data_dir / "postmaster.pid").exists()
    await node.do(Start(node.instance, node.session))
    assert in_recovery(node.server)
    assert node.server.psql("SELECT i FROM t") == "1"


async def test_a_lock_file_that_names_a_stranger_does_not_block(one: Member) -> None:
    await promoted(one)
    one.server.kill()
    lock = one.server.data_dir / "postmaster.pid"
    account = {} if OS_USER is None else {"user": OS_USER}
    stranger = subprocess.Popen(["/bin/sleep", "60"], cwd="/", **account)  # noqa: ASYNC220
    try:
        lock.write_text(f"{stranger.pid}\n" + lock.read_text().split("\n", 1)[1])
        await one.do(Start(one.instance, one.session))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_failed_start_says_the_servers_own_words(one: Member) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", one.server.port))
        taken.listen()
        with pytest.raises(ActionError, match=r"it does not start: .*could not create any TCP/IP sockets"):
            await Start(one.instance, one.session).apply(one.guard)


async def test_half_a_cluster_is_not_started(one: Member) -> None:
    begin_keeping(one.server.data_dir)
    with pytest.raises(ActionError, match="only a new base copy mends it"):
        await Start(one.instance, one.session).apply(one.guard)
    assert (await read_offline(one.instance)).state is ControlState.ABSENT
    end_keeping(one.server.data_dir)
    (one.server.data_dir / "global" / "pg_control").unlink()
    with pytest.raises(ActionError, match="no complete cluster"):
        await Start(one.instance, one.session).apply(one.guard)


async def test_a_link_in_place_of_a_file_is_not_followed(one: Member, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    auto = one.server.data_dir / "postgresql.auto.conf"
    auto.unlink()
    auto.symlink_to(victim)
    with pytest.raises(ActionError):
        await Start(one.instance, one.session).apply(one.guard)
    assert victim.read_text() == "untouched"


# ------------------------------------------------------------------ the seal (holes.md A8)


async def test_a_sealed_primary_started_by_hand_takes_no_writes(node: Member) -> None:
    await promoted(node)
    node.server.kill()
    node.server.start()
    with pytest.raises(RuntimeError, match="read-only transaction"):
        node.server.psql("CREATE TABLE t (i int)")
    assert in_recovery(node.server)


async def test_a_sealed_primary_whose_backend_is_killed_comes_back_read_only(node: Member) -> None:
    await promoted(node)
    backend = (await node.session.connection(2)).info.backend_pid
    os.kill(backend, signal.SIGKILL)

    def answers_again() -> bool:
        try:
            return in_recovery(node.server)
        except RuntimeError:
            return False

    await eventually_async(answers_again)


async def test_seal(one: Member) -> None:
    one.server.start()
    assert not is_sealed(one.server.data_dir)
    await one.do(Seal(one.instance, one.session))
    one.server.stop()
    one.server.start()
    assert in_recovery(one.server)


# ------------------------------------------------------------------ stop and fence


async def test_a_clean_stop_names_the_position_that_a_standby_has_replayed(node: Member) -> None:
    node.server.start()
    with standby_of(node.server, "n2") as standby:
        node.server.wait_streaming(1)
        stopped = await node.do(Stop(node.instance, node.session, kill_tree))
        replayed = int(standby.psql("SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn"))
    assert stopped.clean
    assert stopped.facts.state is ControlState.SHUT_DOWN
    assert stopped.facts.timeline == 1
    assert stopped.facts.at_least_lsn == replayed > stopped.facts.checkpoint_lsn


async def test_a_stop_that_hangs_is_ended_by_force(one: Member) -> None:
    await promoted(one)
    hasty = one.with_settings(stop_timeout_s=0.3)
    one.server.signal_postmaster(signal.SIGSTOP)
    stopped = await hasty.do(Stop(hasty.instance, hasty.session, kill_tree))
    assert not stopped.clean
    assert processes_of(one.server.data_dir) == ()


async def test_a_stop_of_what_is_down_reads_where_it_ended(one: Member) -> None:
    stopped = await one.do(Stop(one.instance, one.session, kill_tree))
    assert stopped.clean


async def test_a_fence_leaves_nothing_even_of_a_frozen_server(node: Member) -> None:
    await promoted(node)
    node.server.signal_all(signal.SIGSTOP)
    fence = Fence(node.instance, node.session, kill_tree, budget_s=0.5)
    _, took_ms = await node.timed(fence)
    await fence.verify()
    assert await fence.is_done()
    assert took_ms < 500


async def test_a_fence_that_leaves_something_says_so(one: Member) -> None:
    await promoted(one)
    with pytest.raises(ActionError, match="survive"):
        await Fence(one.instance, one.session, lambda *_: None, budget_s=0.1).apply(one.guard)


# ------------------------------------------------------------------ the session


async def test_a_frozen_server_does_not_hold_a_question_beyond_its_deadline(one: Member) -> None:
    await promoted(one)
    await one.session.rows("SELECT 1")
    one.server.signal_all(signal.SIGSTOP)
    began = time.perf_counter()
    with pytest.raises(ActionTimeout):
        await one.session.rows("SELECT 1", timeout_s=0.2)
    with pytest.raises(ActionTimeout):
        await one.session.rows("SELECT 1", timeout_s=0.2)
    assert time.perf_counter() - began < 1.0
    one.server.signal_all(signal.SIGCONT)
    assert (await one.session.rows("SELECT 1"))[0][0] == 1


async def test_a_session_survives_a_restart_of_its_server(one: Member) -> None:
    await one.do(Start(one.instance, one.session))
    await one.session.rows("SELECT 1")
    one.server.stop("immediate")
    one.server.start()
    assert (await one.session.rows("SELECT 1"))[0][0] == 1


async def test_nobody_there_is_one_clear_sentence(one: Member) -> None:
    with pytest.raises(ActionError, match=r"takes no connection: .*No such file"):
        await one.session.rows("SELECT 1")
