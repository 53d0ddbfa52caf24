"""The redis check on real servers: a master and its replica, passwords, TLS, and what can be wrong with each."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from checks.base import Level, Result, RunLog, Status
from checks.redis import RedisCheck, RedisOptions
from checks.redis_facts import RedisFacts, Role
from tests.polling import eventually, eventually_async
from tests.servers.redis import RedisServer, replica_of

PASSWORD = "hunter2"
TIMEOUT_S = 5.0


@pytest.fixture(scope="session")
def binary() -> Path:
    from tests.plugins.left_out import require_part  # noqa: PLC0415 (a plugin must not be imported before pytest loads it)

    return require_part("Redis")


@pytest.fixture(scope="module")
def pair(binary: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and a replica that is up, with a password. Tests leave them as they were."""
    with RedisServer(binary, password=PASSWORD) as master:
        master.start()
        with RedisServer(binary, password=PASSWORD, settings=replica_of(master)) as replica:
            replica.start()
            eventually(lambda: "master_link_status:up" in replica.do("INFO", "replication"))
            eventually(lambda: "state=online" in master.do("INFO", "replication"))
            yield master, replica


@pytest.fixture
def alone(binary: Path) -> Iterator[RedisServer]:
    """A master of this test's own, without a password."""
    with RedisServer(binary, settings={"enable-protected-configs": "yes"}) as server:
        server.start()
        yield server


async def probe(server: RedisServer, level: Level = Level.LIVENESS, timeout_s: float = TIMEOUT_S, **options: object) -> Result:
    """One run, by default with the server's password."""
    given = {"host": "127.0.0.1", "port": server.port, **({"password": server.password} if server.password else {}), **options}
    check = RedisCheck(level, RedisOptions.model_validate({key: value for key, value in given.items() if value is not None}))
    result = await check.probe(timeout_s, RunLog())
    await check.close()
    assert PASSWORD not in repr(result)
    return result


def facts_of(result: Result) -> RedisFacts:
    assert isinstance(result.facts, RedisFacts), result
    return result.facts


# ------------------------------------------------------------------ well


@pytest.mark.parametrize("level", list(Level))
async def test_a_healthy_pair_is_healthy_at_every_level(pair: tuple[RedisServer, RedisServer], level: Level) -> None:
    for server, role in zip(pair, ("master", "replica"), strict=True):
        result = await probe(server, level, role=role, min_replicas=1, write_key="quorate:check")
        assert result.status is Status.HEALTHY, result
        assert result.sentence.startswith(f"Redis at 127.0.0.1:{server.port} ")


async def test_the_facts_of_both_ends_fit(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    upper = facts_of(await probe(master, Level.DEEP))
    lower = facts_of(await probe(replica, Level.DEEP))
    assert (upper.role, lower.role) == (Role.MASTER, Role.REPLICA)
    assert upper.replication_id == lower.replication_id
    [seen] = upper.replicas
    assert (seen.address, seen.is_online) == (f"127.0.0.1:{replica.port}", True)
    assert lower.link is not None
    assert (lower.link.port, lower.link.is_up, lower.link.down_s) == (master.port, True, None)
    assert upper.version.startswith("7.")


async def test_the_own_key_is_written_on_a_master_only_and_does_not_stay(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    master.do("DEL", "own:key")
    assert (await probe(replica, Level.DEEP, write_key="own:key")).status is Status.HEALTHY
    assert master.do("EXISTS", "own:key") == ":0\r\n"
    assert (await probe(master, Level.DEEP, write_key="own:key")).status is Status.HEALTHY
    assert 0 < int(master.do("TTL", "own:key")[1:]) <= 60


async def test_a_url_a_local_socket_and_another_database_are_ways_in(alone: RedisServer) -> None:
    assert (await probe(alone, url=f"redis://127.0.0.1:{alone.port}/3", host=None, port=None)).status is Status.HEALTHY
    local = await probe(alone, Level.DEEP, url=f"unix://{alone.socket}", host=None, port=None)
    assert (local.status, local.sentence.startswith(f"Redis at {alone.socket}")) == (Status.HEALTHY, True)
    assert (await probe(alone, host="localhost")).status is Status.HEALTHY


async def test_no_connection_is_left_behind(alone: RedisServer) -> None:
    for level in Level:
        await probe(alone, level)
    await eventually_async(lambda: alone.do("CLIENT", "LIST", "TYPE", "normal").count(" addr=") == 1)


# ------------------------------------------------------------------ the target's faults


async def test_the_wrong_role_and_too_few_replicas(pair: tuple[RedisServer, RedisServer], alone: RedisServer) -> None:
    result = await probe(pair[0], Level.READINESS, role="replica")
    assert (result.status, result.sentence.endswith("is a master, but should be a replica")) == (Status.UNHEALTHY, True)
    assert (await probe(pair[1], Level.DEEP, role="master")).status is Status.UNHEALTHY
    lonely = await probe(alone, Level.READINESS, min_replicas=2)
    assert (lonely.status, lonely.sentence.endswith("0 replica(s) online, fewer than 2")) == (Status.DEGRADED, True)


async def test_a_replica_without_its_master_says_since_when(binary: Path) -> None:
    with RedisServer(binary) as master, RedisServer(binary, settings=replica_of(master)) as replica:
        replica.start()
        never = await probe(replica, Level.READINESS)
        master.start()
        eventually(lambda: "master_link_status:up" in replica.do("INFO", "replication"))
        master.kill()
        eventually(lambda: "master_link_status:down" in replica.do("INFO", "replication"))
        down = await probe(replica, Level.READINESS, role="replica")
        stale = await probe(replica)
        replica.do("CONFIG", "SET", "replica-serve-stale-data", "no")
        refusing = await probe(replica)
    assert (never.status, f"has never reached its master 127.0.0.1:{master.port}" in never.sentence) == (Status.UNHEALTHY, True)
    assert down.status is Status.UNHEALTHY
    assert f"its link to its master 127.0.0.1:{master.port} has been down for " in down.sentence
    assert stale.status is Status.HEALTHY
    assert (refusing.status, refusing.sentence.endswith("serves nothing: its link to the master is down")) == (Status.DEGRADED, True)


async def test_lag_is_told_by_the_master(binary: Path) -> None:
    with RedisServer(binary) as master, RedisServer(binary, settings=replica_of(master)) as replica:
        master.start()
        replica.start()
        eventually(lambda: "state=online" in master.do("INFO", "replication"))
        replica.freeze()
        for number in range(4):
            master.do("SET", f"k{number}", "x" * 20_000)
        behind = await probe(master, Level.DEEP, max_lag="64kB")
        assert (behind.status, "bytes behind, more than 64000" in behind.sentence) == (Status.DEGRADED, True)

        async def told() -> bool:
            return "has acknowledged nothing for" in (await probe(master, Level.DEEP, silent_after="1s")).sentence

        await eventually_async(told)


async def test_a_full_memory_is_told_unless_keys_make_room(alone: RedisServer) -> None:
    alone.do("CONFIG", "SET", "maxmemory", "1000")
    full = await probe(alone, Level.DEEP)
    refused = await probe(alone, Level.DEEP, write_key="k")
    alone.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    cache = await probe(alone, Level.DEEP)
    assert (full.status, "bytes of memory are in use, and noeviction makes no room" in full.sentence) == (Status.DEGRADED, True)
    assert (refused.status, refused.sentence.endswith("refuses writes: its memory is full")) == (Status.UNHEALTHY, True)
    assert cache.status is Status.HEALTHY


async def test_a_snapshot_that_fails_is_told_and_stops_writes(alone: RedisServer) -> None:
    alone.do("CONFIG", "SET", "save", "3600 1")
    alone.do("SET", "k", "v")
    (alone.directory / "gone").mkdir()
    alone.do("CONFIG", "SET", "dir", str(alone.directory / "gone"))
    (alone.directory / "gone").rmdir()
    alone.said("BGSAVE")
    eventually(lambda: "rdb_last_bgsave_status:err" in alone.do("INFO", "persistence"))
    alive, deep = await probe(alone), await probe(alone, Level.DEEP)
    assert (alive.status, alive.sentence.endswith("refuses writes: it cannot save its data to disk")) == (Status.DEGRADED, True)
    assert deep.status is Status.DEGRADED
    assert "refuses writes: it cannot save its data to disk; its snapshot could not be written to disk" in deep.sentence


async def test_a_server_that_loads_is_not_ready_and_says_so(binary: Path) -> None:
    with RedisServer(binary) as server:
        server.start()
        for number in range(300):
            server.do("SET", f"k{number}", "x" * 10)
        server.do("SAVE")
        server.kill()
        server.settings |= {"key-load-delay": "10000", "loading-process-events-interval-bytes": "1024"}
        server.start()
        assert server.said("PING", "") != "+PONG\r\n"
        liveness, readiness = await probe(server), await probe(server, Level.READINESS)
    for result in (liveness, readiness):
        assert (result.status, "is loading its data and serves nothing yet" in result.sentence) == (Status.UNHEALTHY, True)


async def test_a_server_with_no_connection_left_says_so(binary: Path) -> None:
    with RedisServer(binary, settings={"maxclients": "1"}) as server:
        server.start()
        with socket.create_connection(("127.0.0.1", server.port)) as holder:
            holder.sendall(b"PING\r\n")
            assert holder.recv(100).startswith(b"+PONG")
            result = await probe(server)
    assert (result.status, result.sentence.endswith("has no connection left")) == (Status.UNHEALTHY, True)


async def test_a_frozen_server_is_unhealthy_at_the_deadline(alone: RedisServer) -> None:
    alone.freeze()
    for level in Level:
        result = await probe(alone, level, 0.3)
        assert (result.status, "gave no answer within 0.3 s" in result.sentence) == (Status.UNHEALTHY, True)


async def test_a_slow_answer_is_told(alone: RedisServer) -> None:
    result = await probe(alone, Level.DEEP, slow_after="0.001ms")
    assert (result.status, "PING took " in result.sentence) == (Status.DEGRADED, True)


# ------------------------------------------------------------------ our faults


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"password": None}, "demands a password"),
        ({"password": "wrong"}, "refuses the login: wrong user or password"),
        ({"user": "nobody"}, "refuses the login: wrong user or password"),
        ({"db": 99}, "has no database of this number"),
    ],
    ids=["no password", "wrong password", "no user", "no database"],
)
async def test_what_is_our_fault_is_unknown(pair: tuple[RedisServer, RedisServer], options: dict[str, object], words: str) -> None:
    result = await probe(pair[0], Level.READINESS, **options)
    assert result.status is Status.UNKNOWN, result
    assert words in result.sentence


async def test_tls_where_there_is_none_is_named_at_the_deadline(alone: RedisServer) -> None:
    result = await probe(alone, timeout_s=0.3, tls=True, verify=False)
    assert (result.status, "gave no answer within 0.3 s (connecting over TLS to" in result.sentence) == (Status.UNHEALTHY, True)


async def test_a_password_where_there_is_none_is_our_fault(alone: RedisServer) -> None:
    result = await probe(alone, password=PASSWORD)
    assert (result.status, "it has no password, but one is configured here" in result.sentence) == (Status.UNKNOWN, True)


async def test_a_user_without_rights_is_our_fault(alone: RedisServer) -> None:
    alone.do("ACL", "SETUSER", "watcher", "on", f">{PASSWORD}", "+ping")
    login = {"user": "watcher", "password": PASSWORD}
    assert (await probe(alone, **login)).status is Status.HEALTHY
    result = await probe(alone, Level.READINESS, **login)
    assert (result.status, "does not let this user ask" in result.sentence) == (Status.UNKNOWN, True)
    alone.do("ACL", "SETUSER", "watcher", "+info", "+set", "~quorate:*")
    assert (await probe(alone, Level.DEEP, write_key="quorate:check", **login)).status is Status.HEALTHY
    assert (await probe(alone, Level.DEEP, write_key="other", **login)).status is Status.UNKNOWN


async def test_a_password_file_is_read_at_each_run(pair: tuple[RedisServer, RedisServer], tmp_path: Path) -> None:
    file = tmp_path / "password"
    check = RedisCheck(Level.LIVENESS, RedisOptions(host="127.0.0.1", port=pair[0].port, password_file=file))
    missing = await check.probe(TIMEOUT_S, RunLog())
    file.write_text(f"{PASSWORD}\n", encoding="utf-8")
    right = await check.probe(TIMEOUT_S, RunLog())
    assert (missing.status, missing.sentence) == (Status.UNKNOWN, f"password_file: {file} cannot be read: No such file or directory")
    assert right.status is Status.HEALTHY


# ------------------------------------------------------------------ TLS


def certificates(folder: Path, **given: object) -> dict[str, str]:
    """Settings of a server with a certificate of a fresh authority, whose file is `ca.pem`."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = ca.issue_cert("127.0.0.1", **given)  # type: ignore[arg-type]
    issued.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    issued.private_key_pem.write_to_path(str(folder / "server.key"))
    ours = ca.issue_cert("quorate@example.test")
    ours.private_key_and_cert_chain_pem.write_to_path(str(folder / "client.pem"))
    return {
        "tls-ca-cert-file": str(folder / "ca.pem"),
        "tls-cert-file": str(folder / "server.pem"),
        "tls-key-file": str(folder / "server.key"),
        "tls-auth-clients": "no",
    }


async def test_a_trusted_certificate_is_well_and_another_is_our_fault(binary: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    certificates(other)
    with RedisServer(binary, tls=True, password=PASSWORD, settings=certificates(tmp_path)) as server:
        server.start()
        well = await probe(server, Level.DEEP, tls=True, ca=tmp_path / "ca.pem")
        by_url = await probe(server, url=f"rediss://127.0.0.1:{server.port}", host=None, port=None, ca=tmp_path / "ca.pem")
        untrusted = await probe(server, tls=True, ca=other / "ca.pem")
        unverified = await probe(server, tls=True, verify=False)
        plain = await probe(server)
        unreadable = await probe(server, tls=True, ca=tmp_path / "none.pem")
    assert [result.status for result in (well, by_url, unverified)] == [Status.HEALTHY] * 3
    assert (untrusted.status, "is not accepted" in untrusted.sentence) == (Status.UNKNOWN, True)
    assert (unreadable.status, "cannot be read" in unreadable.sentence) == (Status.UNKNOWN, True)
    assert plain.status is Status.UNHEALTHY


async def test_an_expired_certificate_is_the_targets_fault(binary: Path, tmp_path: Path) -> None:
    past = {"not_before": datetime.now(UTC) - timedelta(days=9), "not_after": datetime.now(UTC) - timedelta(days=1)}
    with RedisServer(binary, tls=True, settings=certificates(tmp_path, **past)) as server:
        server.start()
        result = await probe(server, tls=True, ca=tmp_path / "ca.pem")
    assert (result.status, result.sentence.endswith("has expired")) == (Status.UNHEALTHY, True)


async def test_a_server_that_asks_for_a_certificate_gets_ours(binary: Path, tmp_path: Path) -> None:
    with RedisServer(binary, tls=True, settings=certificates(tmp_path) | {"tls-auth-clients": "yes"}) as server:
        server.start()
        with_it = await probe(server, tls=True, ca=tmp_path / "ca.pem", cert=tmp_path / "client.pem")
        began = time.monotonic()
        without = await probe(server, tls=True, ca=tmp_path / "ca.pem")
    assert with_it.status is Status.HEALTHY
    assert time.monotonic() - began < TIMEOUT_S
    assert ("certificate required" in without.sentence) or ("does it ask for a certificate?" in without.sentence), without
