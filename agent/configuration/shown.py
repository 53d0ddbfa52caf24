"""The configuration as it is in force: every default filled in, every member's section whole, no secret. For `config show`; pure."""

from __future__ import annotations

from typing import cast

from pydantic import BaseModel

import checks.units
from agent.configuration.check_kinds import options_of
from agent.configuration.document import Tree
from agent.configuration.model import CheckEntry, Configuration, Defaults, Group
from agent.configuration.references import postgres_of
from agent.configuration.secrets import masked
from agent.configuration.units import format_duration, format_size
from checks.base import CheckOptions

Shown = dict[str, Tree]


def shown(configuration: Configuration) -> Shown:
    """A tree of plain values with the file's own keys. Each member shows its whole engine section, so the group's own is left out."""
    tree = _dump(configuration)
    tree["checks"] = {name: _check(entry, configuration.defaults) for name, entry in configuration.checks.items()}
    tree["groups"] = {name: _group(group) for name, group in configuration.groups.items()}
    return cast("Shown", masked(tree))


def _check(entry: CheckEntry, defaults: Defaults) -> Shown:
    own = {key: value for key, value in _dump(entry).items() if key not in entry.others}
    return {"type": entry.type, "level": entry.level.value, **_dump(defaults), **own, **_options(options_of(entry))}


def _options(options: CheckOptions) -> Shown:
    """A kind's options; its durations and sizes, which are plain numbers to it, with their units again."""
    tree = _dump(options)
    for name, field in type(options).model_fields.items():
        parsers = {getattr(part, "func", None) for part in field.metadata}
        value = tree.get(name)
        if checks.units.parse_duration_s in parsers and isinstance(value, (int, float)):
            tree[name] = format_duration(value)
        elif checks.units.parse_size_bytes in parsers and isinstance(value, int):
            tree[name] = format_size(value)
    return tree


def _group(group: Group) -> Shown:
    members: Shown = {
        name: {"priority": member.priority, "nofailover": member.nofailover, **_dump(postgres_of(group, name))}
        for name, member in group.members.items()
    }
    return {**{key: value for key, value in _dump(group).items() if key != "postgres"}, "members": members}


def _dump(model: BaseModel) -> Shown:
    return cast("Shown", model.model_dump(mode="json", exclude_none=True))
