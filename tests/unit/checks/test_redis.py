from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from checks.base import Level, Status
from checks.redis import RedisCheck, RedisOptions
from checks.redis_facts import LinkFacts, MemoryFacts, RedisFacts, ReplicaFacts, Role

LINK = LinkFacts("192.0.2.1", 6379, is_up=True, down_s=None, is_syncing=False, silent_s=1.0, unapplied_bytes=0)
REPLICA = ReplicaFacts("192.0.2.2:6379", "online", 100, 0, 1.0)
MASTER = RedisFacts("7", Role.MASTER, "id", 100, False, None, None, (REPLICA,), MemoryFacts(1, 0, "noeviction"), ())  # noqa: FBT003
OTHER = replace(MASTER, role=Role.REPLICA, link=LINK, replicas=())


def check(**options: object) -> RedisCheck:
    return RedisCheck(Level.DEEP, RedisOptions.model_validate({"host": "192.0.2.1", **options}))


def judged(facts: RedisFacts, **options: object) -> tuple[Status, str]:
    result = check(**options)._judge(facts)
    return result.status, result.sentence.removeprefix("Redis at 192.0.2.1:6379 ")


def complaints(facts: RedisFacts, latency_s: float = 0.001, **options: object) -> str:
    return "; ".join(check(**options)._complaints(facts, latency_s))


def test_roles() -> None:
    assert judged(MASTER) == (Status.HEALTHY, "is a master")
    assert judged(OTHER, role="replica") == (Status.HEALTHY, "is a replica")
    assert judged(OTHER, role="master") == (Status.UNHEALTHY, "is a replica, but should be a master")


def test_loading_goes_before_all() -> None:
    words = "is loading its data and serves nothing yet (about 9 s left)"
    assert judged(replace(MASTER, is_loading=True, loading_left_s=9.0), role="replica") == (Status.UNHEALTHY, words)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (replace(LINK, is_up=False, down_s=7.0), "is a replica, but its link to its master 192.0.2.1:6379 has been down for 7 s"),
        (replace(LINK, is_up=False), "is a replica, but it has never reached its master 192.0.2.1:6379"),
        (replace(LINK, is_up=False, is_syncing=True), "is a replica, but it is still taking a whole copy of its master 192.0.2.1:6379"),
    ],
)
def test_a_replica_without_its_link_is_not_ready(link: LinkFacts, words: str) -> None:
    assert judged(replace(OTHER, link=link)) == (Status.UNHEALTHY, words)


def test_too_few_replicas_degrade_a_master_only() -> None:
    copying = replace(REPLICA, state="send_bulk")
    assert judged(MASTER, min_replicas=1)[0] is Status.HEALTHY
    assert judged(replace(MASTER, replicas=(copying,)), min_replicas=1) == (
        Status.DEGRADED,
        "is a master with 0 replica(s) online, fewer than 1",
    )
    assert judged(OTHER, min_replicas=1)[0] is Status.HEALTHY


def test_lag_and_silence() -> None:
    assert complaints(MASTER) == complaints(OTHER) == ""
    assert "does not replicate yet (state send_bulk)" in complaints(replace(MASTER, replicas=(replace(REPLICA, state="send_bulk"),)))
    assert "is 65 bytes behind, more than 64" in complaints(replace(MASTER, replicas=(replace(REPLICA, lag_bytes=65),)), max_lag="64B")
    assert "has acknowledged nothing for 16 s" in complaints(replace(MASTER, replicas=(replace(REPLICA, silent_s=16.0),)))
    assert "its master has said nothing for 16 s" in complaints(replace(OTHER, link=replace(LINK, silent_s=16.0)))
    assert "has not applied the last 65 bytes" in complaints(replace(OTHER, link=replace(LINK, unapplied_bytes=65)), max_lag="64B")


def test_memory_disk_and_latency() -> None:
    assert "noeviction makes no room" in complaints(replace(MASTER, memory=MemoryFacts(91, 100, "noeviction")))
    assert complaints(replace(MASTER, memory=MemoryFacts(90, 100, "noeviction"))) == ""
    assert complaints(replace(MASTER, memory=MemoryFacts(100, 100, "allkeys-lru"))) == ""
    assert complaints(replace(MASTER, failed_saves=("its snapshot",))) == "its snapshot could not be written to disk"
    assert complaints(MASTER, latency_s=0.6) == "PING took 600 ms, longer than 500 ms"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "expected either url or host"),
        ({"url": "redis://h", "host": "h"}, "expected either url or host"),
        ({"url": "redis://h", "port": 1}, "within url"),
        ({"url": "redis://h", "tls": True}, "within url"),
        ({"url": "http://h"}, "such as redis://"),
        ({"host": "h", "password": "a", "password_file": "/b"}, "password or password_file, not both"),
        ({"host": "h", "user": "a"}, "expected password or password_file with user"),
        ({"host": "h", "key": "/k"}, "expected cert with key"),
        ({"host": "h", "port": 0}, "greater than or equal to 1"),
        ({"host": "h", "role": "slave"}, "replica"),
        ({"host": "h", "max_lag": 5}, "a size with its unit"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RedisOptions.model_validate(options)
