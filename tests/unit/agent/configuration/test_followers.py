from __future__ import annotations

import pytest

from agent.configuration.followers import commands_of, hook_roles, judge_followers, vips_of
from agent.configuration.model import Configuration, Group, Hook
from agent.decision.command import HookRole

UP, DOWN = ("/usr/local/bin/up",), ("/usr/local/bin/down", "now")


def group(*followers: dict[str, object]) -> Group:
    return Group.model_validate({"engine": "postgres", "members": {"pg1": {}}, "follows_leader": followers})


def judged(*followers: dict[str, object]) -> list[str]:
    whole = Configuration.model_validate(
        {
            "coordination": {"local": {"path": "/x"}},
            "nodes": {"pg1": {"address": "192.0.2.11", "api": "[2001:db8::11]:8480"}, "pg2": {"address": "named.example.test"}},
        }
    ).model_copy(update={"groups": {"pg-main": group(*followers)}})
    return [problem.sentence for problem in judge_followers(whole)]


def test_what_the_agent_makes_of_it() -> None:
    both = group({"vip": {"address": "192.0.2.100/24"}}, {"hook": {"on_elected": UP}}, {"vip": {"address": "2001:DB8::64/64"}})
    assert [vip.address for vip in vips_of(both)] == ["192.0.2.100/24", "2001:db8::64/64"]
    assert hook_roles(both) == {HookRole.ELECTED}
    assert hook_roles(group()) == frozenset()
    assert commands_of(Hook(on_elected=UP, on_defeated=DOWN)) == ((HookRole.ELECTED, UP), (HookRole.DEFEATED, DOWN))


@pytest.mark.parametrize("address", ["192.0.2.100/24", "192.0.2.100/32", "192.0.2.0/31", "192.0.2.255/32", "2001:db8::64/64", "fe80::1/64"])
def test_addresses_that_a_host_can_have(address: str) -> None:
    assert judged({"vip": {"address": address}}) == []


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("192.0.2.11/24", "192.0.2.11 is the own address of node pg1"),
        ("2001:db8::11/64", "2001:db8::11 is the own address of node pg1"),
        ("2001:db8::/64", "2001:db8:: is the network itself, no address in it"),
        ("0.0.0.0/8", "0.0.0.0 is no address that a host of a network can have"),
    ],
)
def test_addresses_that_it_cannot(address: str, sentence: str) -> None:
    assert sentence in judged({"vip": {"address": address}})


def test_one_address_twice_in_a_group_and_too_many() -> None:
    one: dict[str, object] = {"vip": {"address": "192.0.2.100/24"}}
    assert len(judged(one, one)) == 2
    assert "at most 16" in judged(*({"vip": {"address": f"192.0.2.{n}/24"}} for n in range(100, 117)))[0]
