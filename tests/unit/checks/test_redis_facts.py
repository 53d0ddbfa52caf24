from __future__ import annotations

import pytest

from checks.redis_facts import LinkFacts, MemoryFacts, ReplicaFacts, Role, parse_info

MASTER = """# Server
redis_version:7.0.15
# Persistence
loading:0
rdb_last_bgsave_status:ok
aof_last_write_status:err
# Memory
used_memory:1000
maxmemory:2000
maxmemory_policy:noeviction
# Replication
role:master
connected_slaves:2
slave0:ip=192.0.2.2,port=6379,state=online,offset=90,lag=1
slave1:ip=2001:db8::1,port=6380,state=wait_bgsave,offset=0,lag=0
master_replid:abc
master_repl_offset:100
"""
REPLICA = """role:slave
used_memory:1
master_host:192.0.2.1
master_port:6379
master_link_status:{status}
master_last_io_seconds_ago:{io}
master_sync_in_progress:0
slave_read_repl_offset:120
slave_repl_offset:100
{more}
connected_slaves:0
"""


def test_a_master_and_its_replicas() -> None:
    facts = parse_info(MASTER)
    assert (facts.version, facts.role, facts.offset_bytes, facts.link) == ("7.0.15", Role.MASTER, 100, None)
    assert facts.replicas == (
        ReplicaFacts("192.0.2.2:6379", "online", 90, 10, 1.0),
        ReplicaFacts("[2001:db8::1]:6380", "wait_bgsave", 0, 100, 0.0),
    )
    assert [replica.is_online for replica in facts.replicas] == [True, False]
    assert facts.failed_saves == ("its append-only file",)
    assert facts.memory == MemoryFacts(1000, 2000, "noeviction")


def test_a_replica_and_its_link() -> None:
    up = parse_info(REPLICA.format(status="up", io="3", more=""))
    assert (up.role, up.offset_bytes) == (Role.REPLICA, 100)
    assert up.link == LinkFacts("192.0.2.1", 6379, is_up=True, down_s=None, is_syncing=False, silent_s=3.0, unapplied_bytes=20)
    down = parse_info(REPLICA.format(status="down", io="-1", more="master_link_down_since_seconds:7")).link
    assert down is not None
    assert (down.is_up, down.down_s, down.silent_s) == (False, 7.0, None)
    never = parse_info(REPLICA.format(status="down", io="-1", more="master_link_down_since_seconds:-1")).link
    assert never is not None
    assert never.down_s is None


def test_loading_has_its_time_left() -> None:
    facts = parse_info(MASTER.replace("loading:0", "loading:1\nloading_eta_seconds:9"))
    assert (facts.is_loading, facts.loading_left_s) == (True, 9.0)


@pytest.mark.parametrize(("policy", "evicts"), [("allkeys-lru", True), ("volatile-lru", False), ("noeviction", False)])
def test_only_a_cache_of_all_keys_makes_room(policy: str, evicts: bool) -> None:
    assert MemoryFacts(1, 1, policy).evicts is evicts


@pytest.mark.parametrize("text", ["", "role:master", "role:sentinel\n", MASTER.replace("offset=90", "offset=x"), "a:b:c\nrole"])
def test_what_is_no_info_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        parse_info(text)
