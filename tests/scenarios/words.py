"""The words of a scenario: moments and lengths of time, and mappings of which every word has to be understood by somebody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")
_MOMENT = re.compile(r"(?:in (?P<ahead>.+))|(?:(?P<back>.+) ago)")


class WrongScenario(ValueError):
    """The scenario says something that nobody understands."""


class Moment(float):
    """Seconds since the start of the scenario."""


def resolve(raw: Any, at_s: float) -> Any:
    """Turn every `… ago`, `in …` and duration in a tree into numbers, as seen from the second `at_s`."""
    if isinstance(raw, Mapping):
        return {key: resolve(value, at_s) for key, value in raw.items()}
    if isinstance(raw, list):
        return [resolve(value, at_s) for value in raw]
    if not isinstance(raw, str):
        return raw
    moment = _MOMENT.fullmatch(raw)
    if moment is not None and (length := _seconds(moment["ahead"] or moment["back"])) is not None:
        return Moment(at_s + length if moment["ahead"] else at_s - length)
    length = _seconds(raw)
    return raw if length is None else length


def _seconds(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    return None if match is None else float(match[1]) / (1000 if match[2] == "ms" else 1)


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


class Words:
    """One mapping of a scenario. Every word in it has to be taken by somebody."""

    def __init__(self, place: str, raw: Any) -> None:
        if not isinstance(raw, Mapping):
            raise WrongScenario(f"{place}: expected words and values, found {raw!r}")
        self.place = place
        self._left = dict(raw)

    def take(self, word: str, default: Any = None) -> Any:
        return self._left.pop(word, default)

    def has(self, word: str) -> bool:
        return word in self._left

    def close(self) -> None:
        if self._left:
            raise WrongScenario(f"{self.place}: nobody knows {', '.join(map(repr, self._left))}")
