"""quorate.yaml of a lab: the scenario's group over the lab's hosts. Pure: what comes out is a tree for YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from tests.lab.scenario import GROUP, Scenario

API_PORT = 8480
CONSUL_PORT = 8500
INTERFACE = "eth0"

Tree = dict[str, JsonValue]


def configuration(
    scenario: Scenario, addresses: Mapping[str, str], own: str, places: Mapping[str, Path], postgres: Tree, members: Mapping[str, Tree]
) -> Tree:
    """The file as host `own` has it: it differs only in the order of Consul's addresses, the own server first.

    `places`: state, secrets. `postgres`: the engine's section; `members`: each member's own keys.
    """
    others = [name for name in addresses if name != own]
    urls: list[JsonValue] = [f"http://{addresses[name]}:{CONSUL_PORT}" for name in (own, *others)]
    secrets = places["secrets"]
    return {
        "state_dir": str(places["state"]),
        "coordination": {"consul": {"url": urls}},
        "api": {"tokens_file": str(secrets / "tokens.yaml"), "peer_key_file": str(secrets / "peer")},
        "nodes": {name: {"address": address, "api": f"{address}:{API_PORT}"} for name, address in addresses.items()},
        "groups": {GROUP: _group(scenario, secrets, postgres, members)},
    }


def _group(scenario: Scenario, secrets: Path, postgres: Tree, members: Mapping[str, Tree]) -> Tree:
    given = dict(scenario.group)
    vip = given.pop("vip", None)

    def login(role: str) -> Tree:
        return {"user": role, "password_file": str(secrets / role)}

    base: Tree = {
        "engine": "postgres",
        "members": {name: {"priority": priority, **members[name]} for name, priority in priorities(scenario).items()},
        "witnesses": list(scenario.witnesses),
        "postgres": {
            "admin": {"user": "postgres"},
            "monitor": login("quorate"),
            "replication": login("replicator"),
            "rewind": login("quorate_rewind"),
            **postgres,
        },
    }
    if vip is not None:
        base["follows_leader"] = [{"vip": {"address": vip, "interface": INTERFACE}}]
    return merged(base, given)


def priorities(scenario: Scenario) -> dict[str, int]:
    """Who is to lead first has the highest; the others follow in the file's order."""
    first = scenario.start.leader or scenario.members[0]
    order: Sequence[str] = (first, *(name for name in scenario.members if name != first))
    return {name: 100 - 10 * place for place, name in enumerate(order)}


def merged(base: Tree, over: Mapping[str, JsonValue]) -> Tree:
    """`over` wins, key by key, at any depth."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result
