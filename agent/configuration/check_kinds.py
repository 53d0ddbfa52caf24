"""What the configuration needs to know of the kinds of checks: their names, and the options that one entry of the catalogue holds.

The only part of the configuration that loads a kind's module, and with it its client library: only for kinds that the file names.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import cast

from agent.configuration.document import Path, Problem, Spot, Tree
from agent.configuration.model import CheckEntry
from agent.configuration.validation import Section, validate
from agent.configuration.wording import nearest
from agent.errors import ConfigurationError
from checks.base import AnyCheck, CheckOptions, Level
from checks.loading import KindUnavailable, known_kinds, load_kind

loaded_kind = functools.cache(load_kind)
"""Each kind is looked for among the installed packages once, not once for each of its checks."""


def options_of(entry: CheckEntry) -> CheckOptions:
    """The options of a check, as its kind's own model. Raises ConfigurationError; not for a check of a loaded configuration."""
    options, problems = judge_options("", entry, {})
    if options is None or problems:
        raise ConfigurationError(tuple(f"{entry.type}: {problem.sentence}" for problem in problems))
    return options


def judge_options(name: str, entry: CheckEntry, spots: Mapping[Path, Spot]) -> tuple[CheckOptions | None, list[Problem]]:
    """The options of the check called `name`, and what is wrong with its type, its level and them."""
    base: Path = ("checks", name)
    if entry.type not in known_kinds():
        kinds = ", ".join(known_kinds())
        return None, [Problem((*base, "type"), f"unknown type {entry.type}{nearest(entry.type, known_kinds())}; known: {kinds}")]
    try:
        kind = loaded_kind(entry.type)
    except KindUnavailable as error:
        return None, [Problem((*base, "type"), " ".join(str(error).split()))]
    judged = validate(kind.options_model, cast("dict[str, Tree]", entry.others), Section(spots, base, tuple(CheckEntry.model_fields)))
    return judged.model, [*_level(base, entry, kind), *judged.problems]


def _level(base: Path, entry: CheckEntry, kind: type[AnyCheck]) -> list[Problem]:
    if entry.level in kind.levels:
        return []
    levels = " or ".join(level.value for level in Level if level in kind.levels)
    return [
        Problem(
            (*base, "level"),
            f"checks of type {entry.type} have no level {entry.level}; expected {levels}",
            ((*base, "level"), (*base, "type")),
        )
    ]
