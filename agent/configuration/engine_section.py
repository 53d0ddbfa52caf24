"""The engine's section of a group with each member's own keys over it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from agent.configuration.document import Path, Spot, Tree
from agent.configuration.model import Group, Member, Postgres
from agent.configuration.validation import Section, Validated, validate
from agent.errors import ConfigurationError


def postgres_of(group: Group, node: str) -> Postgres:
    """How to reach and control the instance of member `node`: the group's section, key by key overridden by the member's own keys.

    Raises ConfigurationError when `node` is no member; the sections of a loaded configuration are right.
    """
    if node not in group.members:
        raise ConfigurationError((f"{node}: is no member of this group; its members are {', '.join(sorted(group.members))}",))
    merged = merged_section(group, node, "", {})
    if merged.model is None or merged.problems:
        raise ConfigurationError(tuple(f"{node}: {problem.sentence}" for problem in merged.problems))
    return merged.model


def merged_section(group: Group, node: str, name: str, spots: Mapping[Path, Spot]) -> Validated[Postgres]:
    """The member's whole section, and its problems at the place where the key at fault was written: with the member or for the group."""
    whole = cast("dict[str, Tree]", group.postgres.others if group.postgres else {})
    own = cast("dict[str, Tree]", group.members[node].others)
    at_group, at_member = ("groups", name, "postgres"), ("groups", name, "members", node)
    written = {("merged", *path[length:]): spot for length, base in ((3, at_group), (4, at_member)) for path, spot in _below(spots, base)}
    also_known = tuple(Member.model_fields)
    merged = validate(Postgres, {**whole, **own}, Section(written, ("merged",), also_known))

    def origin(path: Path) -> Path:
        key = path[1] if len(path) > 1 else ""
        return (*(at_member if key in own or (not whole and own) else at_group), *path[1:])

    problems = tuple(replace(problem, path=origin(problem.path)) for problem in merged.problems)
    return replace(merged, problems=problems, cut=tuple(origin(path) for path in merged.cut))


def _below(spots: Mapping[Path, Spot], base: Path) -> list[tuple[Path, Spot]]:
    return [(path, spot) for path, spot in spots.items() if path[: len(base)] == base]
