"""Finds the kinds of checks by name, and imports a kind only when it is asked for: nobody pays for a client library that is not used.

Kinds are the files of this folder that define a Check of their own name, and the entry points of the group `quorate.checks`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from checks.base import AnyCheck, Check

ENTRY_POINTS = "quorate.checks"
_CHECK_CLASS = re.compile(r"^class \w+\(Check\[", re.MULTILINE)


class UnknownKind(LookupError):
    """There is no check of this name. Its text is one sentence with the nearest known name."""


class KindUnavailable(LookupError):
    """The kind exists but cannot be imported here. Its text is one sentence that names what is missing."""


@functools.cache
def known_kinds() -> tuple[str, ...]:
    """The names of all kinds, sorted; found without importing any of them."""
    own = {path.stem for path in Path(__file__).parent.glob("*.py") if _CHECK_CLASS.search(path.read_text(encoding="utf-8"))}
    return tuple(sorted(own | {point.name for point in entry_points(group=ENTRY_POINTS)}))


def load_kind(kind: str) -> type[AnyCheck]:
    """The class of one kind; imports that kind only. Raises UnknownKind or KindUnavailable."""
    if kind not in known_kinds():
        near = difflib.get_close_matches(kind, known_kinds(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnknownKind(f"there is no check of type {kind!r}; known: {', '.join(known_kinds())}{hint}")
    points = [point for point in entry_points(group=ENTRY_POINTS) if point.name == kind]
    return _load_plugin(points[0]) if points else _load_own(kind)


def _load_own(kind: str) -> type[AnyCheck]:
    try:
        module = importlib.import_module(f"checks.{kind}")
    except ImportError as error:
        raise _unavailable(kind, error) from error
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Check) and value.__module__ == module.__name__:
            return value
    raise KindUnavailable(f"checks of type {kind!r} cannot be used: its file defines no check")


def _load_plugin(point: EntryPoint) -> type[AnyCheck]:
    try:
        value = point.load()
    except ImportError as error:
        raise _unavailable(point.name, error) from error
    except Exception as error:
        raise KindUnavailable(f"checks of type {point.name!r} cannot be used: the plugin {point.value} fails: {error}") from error
    if not (isinstance(value, type) and issubclass(value, Check)):
        raise KindUnavailable(f"checks of type {point.name!r} cannot be used: the plugin {point.value} is no check")
    return value


def _unavailable(kind: str, error: ImportError) -> KindUnavailable:
    missing = f"the Python package {error.name.partition('.')[0]} is not installed" if error.name else str(error).partition("\n")[0]
    return KindUnavailable(f"checks of type {kind!r} cannot be used: {missing}")
