from collections.abc import Callable

import pytest

from agent.configuration.loader import parse
from agent.configuration.model import Configuration
from agent.configuration.references import postgres_of
from agent.errors import ConfigurationError

Problems = Callable[[str], tuple[str, ...]]


def test_a_members_keys_stand_over_the_groups_key_by_key(base: str) -> None:
    text = base.replace("{socket_dir: /run/postgresql}", "{socket_dir: /run/postgresql, port: 5, stop_timeout: 9s, monitor: {user: eye}}")
    group = parse(text.replace("{port: 5433, data_dir: /srv/pg1}", "{data_dir: /srv/pg1}"), "f", {}).groups["pg-main"]
    first, second = postgres_of(group, "pg1"), postgres_of(group, "pg2")
    assert (first.port, second.port) == (5, 5434)
    assert (str(first.data_dir), str(second.data_dir)) == ("/srv/pg1", "/srv/pg2")
    assert first.stop_timeout == second.stop_timeout == 9.0
    assert first.monitor.user == "eye"


def test_members_may_bring_all_keys_themselves(base: str) -> None:
    text = base.replace("    postgres: {socket_dir: /run/postgresql}\n", "").replace("data_dir:", "socket_dir: /run/x, data_dir:")
    assert str(postgres_of(parse(text, "f", {}).groups["pg-main"], "pg2").socket_dir) == "/run/x"


def test_a_node_that_is_no_member_has_no_section(configuration: Configuration) -> None:
    with pytest.raises(ConfigurationError, match=r"pg9: is no member of this group; its members are pg1, pg2"):
        postgres_of(configuration.groups["pg-main"], "pg9")


def test_what_two_instances_may_share_depends_on_their_addresses(base: str, problems: Problems) -> None:
    assert problems(base.replace("8482}", "8482, address: 192.0.2.2}").replace("5434", "5433")) == ()
    assert len(problems(base.replace("5434", "5433"))) == 1


def test_a_group_may_use_a_node_of_another_group(base: str, problems: Problems) -> None:
    second = (
        base[base.index("  pg-main:") :]
        .replace("pg-main", "pg-other")
        .replace("5433", "6433")
        .replace("5434", "6434")
        .replace("/srv/", "/srv/o")
    )
    assert problems(base + second) == ()
    assert len(problems(base + second.replace("6433", "5433"))) == 1


def test_a_diamond_of_checks_is_no_ring(base: str, problems: Problems) -> None:
    def check(requires: str) -> str:
        return f"{{type: tcp, address: 127.0.0.1:1, requires: [{requires}]}}"

    diamond = f"checks:\n  a: {check('b, c')}\n  b: {check('d')}\n  c: {check('d')}\n  d: {check('')}\n"
    assert problems(base + diamond) == ()
    ring = diamond.replace(f"d: {check('')}", f"d: {check('a')}")
    assert [line for line in problems(base + ring) if "ring" in line] != []


def test_the_shortest_lease_that_is_promised_to_work(base: str, problems: Problems) -> None:
    group = "engine: postgres\n    lease: {{ttl: {}, renew: {}, fence_budget: {}}}"
    assert problems(base.replace("engine: postgres", group.format("500ms", "200ms", "100ms"))) == ()
    for wrong in (("499ms", "200ms", "100ms"), ("500ms", "250ms", "100ms"), ("500ms", "200ms", "99ms")):
        assert len(problems(base.replace("engine: postgres", group.format(*wrong)))) == 1, wrong


def test_the_kernel_may_be_demanded_where_addresses_are_numbers(base: str, problems: Problems) -> None:
    """With a name: the example kernel_fence_by_name."""
    assert problems(base.replace("engine: postgres", "engine: postgres\n    fence: [seal, kernel, watchdog]")) == ()


def test_no_fence_at_all_may_be_wanted(base: str, problems: Problems) -> None:
    assert problems(base.replace("engine: postgres", "engine: postgres\n    fence: []")) == ()
