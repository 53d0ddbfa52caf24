"""A tree of values to a model, with every problem at its place, and with what can still be used although there are problems. Pure.

Validation is pydantic's strict JSON mode: text is never taken for a number nor `yes` for true. Two gentle exceptions: a plain `12` where
text is wanted is the text that was written, and a plain `0.5` is a number only where a number with a fraction is wanted.

To judge the references of a file that also has mistakes, what is wrong is cut out (`cut` says where) until the rest is valid.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent.configuration.document import Path, Problem, Spot, Tree
from agent.configuration.wording import known_keys, nearest, sentence_of

ModelT = TypeVar("ModelT", bound=BaseModel)

MAX_ROUNDS = 50
_TEXT_WANTED = ("string_type",)
_NUMBER_WANTED = ("float_type",)
_DECIMAL = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Validated(Generic[ModelT]):
    """What became of a tree: the model of what is right in it (None: nothing is), what is wrong, and what was cut out to get there."""

    model: ModelT | None
    problems: tuple[Problem, ...]
    cut: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """The part of the file that is validated: it stands at `base`, its values at `spots`; `also_known` keys may stand beside it."""

    spots: Mapping[Path, Spot]
    base: Path = ()
    also_known: tuple[str, ...] = ()

    def known(self, model: type[BaseModel], path: Path) -> tuple[str, ...]:
        """The keys that may stand where the last one of `path` stands."""
        return known_keys(model, path[:-1]) + (self.also_known if len(path) == 1 else ())


def validate(model: type[ModelT], values: Mapping[str, Tree], section: Section) -> Validated[ModelT]:
    """Validate `values`. Never raises."""
    tree = copy.deepcopy(dict(values))
    problems: tuple[Problem, ...] | None = None
    cut: list[Path] = []
    for _ in range(MAX_ROUNDS):
        try:
            valid = model.model_validate_json(json.dumps(tree), strict=True)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
            if _mend(tree, faults):
                continue
            if problems is None:
                problems = _problems(model, tree, faults, section)
            gone = _cut_out(tree, faults)
            cut += [(*section.base, *path) for path in gone]
            if () in gone:
                break
        else:
            return Validated(valid, problems or (), tuple(cut))
    return Validated(None, problems or (), tuple(cut))


def place_of(tree: Tree, loc: tuple[str | int, ...]) -> Path:
    """Pydantic's `loc` as a path in the tree. Its names of types and validators are no places; a missing key is."""
    path: Path = ()
    for step in loc:
        inside = isinstance(tree, dict) and step in tree
        inside |= isinstance(tree, list) and isinstance(step, int) and step < len(tree)
        if inside:
            tree, path = _at(tree, (step,)), (*path, step)
    return path


def _place(tree: Tree, fault: ErrorDetails) -> Path:
    place = place_of(tree, fault["loc"])
    return (*place, fault["loc"][-1]) if fault["type"] == "missing" else place


def _at(tree: Tree, path: Path) -> Tree:
    for step in path:
        tree = tree[step]  # type: ignore[index]  # place_of found it there
    return tree


def _mend(tree: dict[str, Tree], faults: list[ErrorDetails]) -> bool:
    """Give back as text, or as a number with a fraction, what was written so. Whether anything was."""
    mended = False
    for fault in faults:
        path = place_of(tree, fault["loc"])
        value = _at(tree, path)
        if fault["type"] in _TEXT_WANTED and isinstance(value, (int, bool)):
            _put(tree, path, json.dumps(value))
            mended = True
        elif fault["type"] in _NUMBER_WANTED and isinstance(value, str) and _DECIMAL.fullmatch(value):
            _put(tree, path, float(value))  # type: ignore[arg-type] # only on its way into pydantic
            mended = True
    return mended


def _put(tree: Tree, path: Path, value: Tree) -> None:
    _at(tree, path[:-1])[path[-1]] = value  # type: ignore[index]  # place_of found it there


def _cut_out(tree: dict[str, Tree], faults: list[ErrorDetails]) -> list[Path]:
    """Remove what is at fault: a wrong key; the section that misses a key; the whole list that holds a wrong item."""
    gone: list[Path] = []
    for fault in faults:
        path = _place(tree, fault)
        if fault["type"] == "missing":
            path = path[:-1]
        while path and isinstance(path[-1], int):
            path = path[:-1]
        if path not in gone:
            gone.append(path)
    for path in gone:
        holder = _at(tree, path[:-1]) if path and place_of(tree, path) == path else None
        if isinstance(holder, dict):
            holder.pop(str(path[-1]), None)
    return gone


def _problems(model: type[BaseModel], tree: dict[str, Tree], faults: list[ErrorDetails], section: Section) -> tuple[Problem, ...]:
    """One problem for each place: of a choice between types, the branch that came furthest."""
    furthest: dict[Path, tuple[Path, ErrorDetails]] = {}
    for fault in faults:
        path = _place(tree, fault)
        fork = _fork(tree, fault, path)
        if fork not in furthest or len(path) > len(furthest[fork][0]):
            furthest[fork] = (path, fault)
    suggested = {(path[:-1], _suggested(fault, path, model, section)) for path, fault in furthest.values()}
    result: list[Problem] = []
    for path, fault in furthest.values():
        if fault["type"] == "missing" and (path[:-1], path[-1]) in suggested:
            continue
        whole = (*section.base, *path)
        written = section.spots[whole].written if whole in section.spots else None
        value = None if fault["type"] == "missing" else _at(tree, path)
        result.append(Problem(whole, sentence_of(fault, whole, written, value, section.known(model, path))))
    return tuple(result)


def _fork(tree: Tree, fault: ErrorDetails, path: Path) -> Path:
    """The place where pydantic chose between types on the way to this fault; the fault's own place if it did not."""
    loc = fault["loc"]
    for length in range(1, len(loc)):
        before = place_of(tree, loc[:length])
        if before == place_of(tree, loc[: length + 1]) and fault["type"] != "missing" and loc[length] != "[key]":
            return before
    return path


def _suggested(fault: ErrorDetails, path: Path, model: type[BaseModel], section: Section) -> str:
    """The key that an unknown one is most like: that it is missing need not be said again."""
    if fault["type"] != "extra_forbidden" or not path:
        return ""
    return nearest(str(path[-1]), section.known(model, path)).removeprefix(" (did you mean ").removesuffix("?)")
