"""What one part of the file says of another: names that must exist, values that must fit together. Pure judgement over the model.

Each function looks at one thing and yields its problems; none changes anything. A problem that `rests_on` places which are themselves at
fault is dropped by the loader: nobody is told that a section is missing because it held a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address

from agent.configuration.check_kinds import judge_options
from agent.configuration.document import Document, Path, Problem
from agent.configuration.engine_section import merged_section, postgres_of
from agent.configuration.failsafe import judge_failsafe
from agent.configuration.followers import judge_followers
from agent.configuration.model import Configuration, Consul, Group, Node, Postgres
from agent.configuration.units import format_duration
from agent.configuration.wording import nearest, not_yet
from agent.decision.view import Durability, FenceLayer

__all__ = ["judge", "postgres_of"]

SHORTEST_TTL_S = 0.5
SHORTEST_FENCE_BUDGET_S = 0.1


@dataclass(frozen=True, slots=True)
class Names:
    """All names that the file gives, also to things that have a mistake inside: a reference to such a thing is no mistake."""

    nodes: tuple[str, ...]
    checks: tuple[str, ...]


def judge(configuration: Configuration, document: Document) -> list[Problem]:
    """All problems between the parts of the file. `document` gives what was written, for names and for quoting."""
    names = Names(_keys(document, "nodes"), _keys(document, "checks"))
    return [
        *_coordination(configuration),
        *_api_addresses(configuration),
        *_checks(configuration, names, document),
        *_requires(configuration, names),
        *(problem for name, group in configuration.groups.items() for problem in _group(name, group, names, configuration.nodes)),
        *_engines(configuration, document),
        *judge_followers(configuration),
        *judge_failsafe(configuration),
    ]


def _keys(document: Document, section: str) -> tuple[str, ...]:
    given = document.values.get(section)
    return tuple(given) if isinstance(given, dict) else ()


# ------------------------------------------------------------------ coordination and nodes


def _coordination(configuration: Configuration) -> Iterator[Problem]:
    given = configuration.coordination
    if given.consul is not None and given.local is not None:
        yield Problem(("coordination",), "consul and local exclude each other; give exactly one of them")
    elif given.consul is not None:
        yield from _consul(("coordination", "consul"), given.consul)
    elif given.local is None:
        sentence = "says no coordinator; expected consul: {url: http://127.0.0.1:8500} or, on one host, local: {path: ...}"
        yield Problem(("coordination",), sentence)


def _consul(base: Path, consul: Consul) -> Iterator[Problem]:
    if not consul.urls:
        yield Problem((*base, "url"), "names no address; delete the key for http://127.0.0.1:8500")
        return
    for place, url in enumerate(consul.urls):
        if url in consul.urls[:place]:
            yield Problem((*base, "url", place), "this address is given twice")
        elif url.split(":")[0] != consul.urls[0].split(":")[0]:
            yield Problem((*base, "url", place), "expected http for all addresses or https for all: the token goes to each of them")
    if consul.token is not None and consul.token_file is not None:
        yield Problem((*base, "token"), "token and token_file exclude each other")
    if (consul.cert is None) != (consul.key is None):
        given, missing = ("cert", "key") if consul.key is None else ("key", "cert")
        yield Problem((*base, given), f"needs {missing}, too", ((*base, missing),))
    if all(url.startswith("http:") for url in consul.urls):
        for name in ("ca_file", "cert", "key"):
            if getattr(consul, name) is not None:
                yield Problem((*base, name), "is of no use without https", ((*base, "url"),))


def _api_addresses(configuration: Configuration) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for name, node in configuration.nodes.items():
        other = first.setdefault(node.api.lower(), name)
        if other != name:
            sentence = f"the agent of {other} listens on the same address; each agent needs its own"
            yield Problem(("nodes", name, "api"), sentence, (("nodes", name, "api"), ("nodes", other, "api")))


def _node_names(path: Path, given: tuple[str, ...], names: Names) -> Iterator[Problem]:
    """Problems of a list of nodes: unknown ones and repeated ones."""
    for place, name in enumerate(given):
        if name not in names.nodes:
            yield Problem((*path, place), f"unknown node {name}{nearest(name, names.nodes)}")
        elif name in given[:place]:
            yield Problem((*path, place), f"node {name} is given twice")


# ------------------------------------------------------------------ checks


def _checks(configuration: Configuration, names: Names, document: Document) -> Iterator[Problem]:
    for name, entry in configuration.checks.items():
        yield from judge_options(name, entry, document.spots)[1]
        if entry.on is not None:
            yield from _node_names(("checks", name, "on"), entry.on, names)
            if not entry.on:
                yield Problem(("checks", name, "on"), "names no node; delete the key for all nodes")


def _requires(configuration: Configuration, names: Names) -> Iterator[Problem]:
    required = {name: entry.requires for name, entry in configuration.checks.items()}
    for name, wanted in required.items():
        for place, other in enumerate(wanted):
            if other not in names.checks:
                yield Problem(("checks", name, "requires", place), f"unknown check {other}{nearest(other, names.checks)}")
    for ring in _rings(required):
        first = ring[0]
        place = required[first].index(ring[1])
        yield Problem(("checks", first, "requires", place), f"checks require each other in a ring: {' -> '.join(ring)}")


def _rings(required: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Each ring once, as the names on the way round, the first again at the end. Depth first, without recursion."""
    done: set[str] = set()
    for start in required:
        way: list[str] = []
        rest: list[Iterator[str]] = [iter((start,))]
        while rest:
            name = next(rest[-1], None)
            if name is None:
                rest.pop()
                done.update(way[-1:])
                way = way[:-1]
            elif name in way:
                yield (*way[way.index(name) :], name)
            elif name not in done and name in required:
                way.append(name)
                rest.append(iter(required[name]))


# ------------------------------------------------------------------ groups


def _group(name: str, group: Group, names: Names, nodes: Mapping[str, Node]) -> Iterator[Problem]:
    base: Path = ("groups", name)
    for member in group.members:
        if member not in names.nodes:
            yield Problem((*base, "members", member), f"unknown node {member}{nearest(member, names.nodes)}")
    yield from _node_names((*base, "witnesses"), group.witnesses, names)
    for place, witness in enumerate(group.witnesses):
        if witness in group.members:
            yield Problem((*base, "witnesses", place), f"{witness} is a member already, and members observe, too; delete it here")
    if all(member.nofailover or member.priority == 0 for member in group.members.values()):
        yield Problem((*base, "members"), "no member may become leader: each has nofailover or priority 0")
    if group.durability is Durability.QUORUM:
        yield Problem((*base, "durability"), not_yet("quorum", ("async", "sync")))
    yield from _fences(base, group, nodes)
    yield from _limits(base, group)


def _fences(base: Path, group: Group, nodes: Mapping[str, Node]) -> Iterator[Problem]:
    if group.fence == "auto":
        return
    for place, layer in enumerate(group.fence):
        if layer in group.fence[:place]:
            yield Problem((*base, "fence", place), f"{layer} is given twice")
    if FenceLayer.KERNEL in group.fence:
        for name in sorted({*group.members, *group.witnesses} & nodes.keys()):
            if not _is_number(nodes[name].address):
                sentence = "expected a number, not a name: the fence `kernel` lets the group's nodes in by their addresses, and asks nobody"
                yield Problem(("nodes", name, "address"), sentence)


def _is_number(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def _limits(base: Path, group: Group) -> Iterator[Problem]:
    """The relations of the time limits; they judge values of the same section, so a mistake in one of them voids the judgement."""
    lease, at = group.lease, (*base, "lease")
    ttl = format_duration(lease.ttl)
    if lease.ttl < SHORTEST_TTL_S:
        yield Problem((*at, "ttl"), f"expected at least {format_duration(SHORTEST_TTL_S)}, not {ttl}", (at,))
    if lease.renew * 2 >= lease.ttl:
        half = format_duration(lease.ttl / 2)
        sentence = f"expected less than half of ttl ({half}), not {format_duration(lease.renew)}: one lost renewal must not end the lease"
        yield Problem((*at, "renew"), sentence, (at,))
    if lease.fence_budget < SHORTEST_FENCE_BUDGET_S:
        shortest = format_duration(SHORTEST_FENCE_BUDGET_S)
        yield Problem((*at, "fence_budget"), f"expected at least {shortest}, not {format_duration(lease.fence_budget)}", (at,))
    if lease.renew > group.quorum.patience:
        sentence = f"expected at least one renewal ({format_duration(lease.renew)}), not {format_duration(group.quorum.patience)}"
        yield Problem((*base, "quorum", "patience"), sentence, (at, (*base, "quorum")))
    if group.cooldown < lease.ttl:
        sentence = f"expected at least ttl ({ttl}), not {format_duration(group.cooldown)}: takeovers would follow one another"
        yield Problem((*base, "cooldown"), sentence, (at, (*base, "cooldown")))


# ------------------------------------------------------------------ engines' sections


def _engines(configuration: Configuration, document: Document) -> Iterator[Problem]:
    """Problems of each member's whole section, and of two members that would get in each other's way."""
    instances: list[tuple[Path, str, Postgres]] = []
    for name, group in configuration.groups.items():
        if group.postgres is None and ("groups", name, "postgres") in document.spots:
            continue  # it is there, but at fault, and that is told already
        if group.postgres is None and not any(member.others for member in group.members.values()):
            yield Problem(("groups", name, "postgres"), "this section is missing: it says how to reach and control engine postgres")
            continue
        told: dict[Problem, list[str]] = {}
        for node in group.members:
            merged = merged_section(group, node, name, document.spots)
            for problem in merged.problems:
                told.setdefault(problem, []).append(node)
            if merged.model is not None and not merged.problems and node in configuration.nodes:
                instances.append((("groups", name, "members", node), node, merged.model))
        for problem, nodes in told.items():
            partly = len(nodes) < len(group.members) and problem.path[2:3] == ("postgres",)
            yield replace(problem, sentence=f"{problem.sentence} (for {', '.join(nodes)})") if partly else problem
    yield from _collisions(configuration, instances)


def _collisions(configuration: Configuration, instances: list[tuple[Path, str, Postgres]]) -> Iterator[Problem]:
    """Two members with one address and port, or, with the local coordinator (one host), with one data directory."""
    by_address: dict[tuple[str, int], str] = {}
    by_data_dir: dict[str, str] = {}
    for path, node, postgres in instances:
        rests_on = (path[:2], ("nodes",))
        other = by_address.setdefault((configuration.nodes[node].address.lower(), postgres.port), f"{path[1]}'s {node}")
        if other != f"{path[1]}'s {node}":
            yield Problem((*path, "port"), f"the same address and port as {other}; each instance needs its own", rests_on)
        other = by_data_dir.setdefault(str(postgres.data_dir), f"{path[1]}'s {node}")
        if other != f"{path[1]}'s {node}" and configuration.coordination.local is not None:
            yield Problem((*path, "data_dir"), f"the same directory as {other}; on one host each instance needs its own", rests_on)
