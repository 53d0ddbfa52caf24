"""Scenario files: YAML, one situation or one schedule each. Reading them, and comparing what the core decides with what they expect.

about: one sentence for people: what is the case and what must follow
given: what differs from the healthy base group (building.py has the words)
expect: situation, rules (all that hold, in their order), commands (all, each by name, or name with the fields that matter)
then:               # more steps in time; `given` is laid over what was said before
  - at: 0.3s
    given: …
    expect: …
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from agent.decision.command import Command
from agent.decision.engine import Decision, decide
from agent.decision.memory import Memory
from agent.instant import remaining_s
from tests.scenarios.building import Scene, build, memory
from tests.scenarios.consistency import objections
from tests.scenarios.words import Words, WrongScenario, merge, resolve

CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True, slots=True)
class Step:
    """One moment of a scenario: the whole picture by then, and what must follow."""

    at_s: float
    given: Mapping[str, Any]
    expect: Mapping[str, Any]

    @property
    def scene(self) -> Scene:
        return build(self.given, self.at_s)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One file."""

    name: str
    about: str
    memory: Memory
    steps: tuple[Step, ...]


def load(path: Path) -> Scenario:
    """Read one scenario. Raises `WrongScenario` for words that nobody knows and for pictures that cannot be."""
    words = Words(path.name, yaml.safe_load(path.read_text(encoding="utf-8")))
    about = words.take("about")
    said = memory(resolve(words.take("memory", {}), 0.0))
    steps = tuple(_steps({"given": words.take("given", {}), "expect": words.take("expect")}, words.take("then", [])))
    words.close()
    if not isinstance(about, str) or not about:
        raise WrongScenario(f"{path.name}: says not what it is about")
    for step in steps:
        scene = step.scene
        for sentence in objections(scene.view, scene.now):
            raise WrongScenario(f"{path.name}: cannot be: {sentence}")
    return Scenario(path.stem, about, said, steps)


def _steps(first: Mapping[str, Any], later: list[Mapping[str, Any]]) -> Iterator[Step]:
    so_far: dict[str, Any] = {}
    for raw in [{"at": "0s", **first}, *later]:
        words = Words("a step", raw)
        at_s = float(resolve(words.take("at"), 0.0))
        so_far = merge(so_far, resolve(words.take("given", {}), at_s))
        expect = resolve(words.take("expect"), 0.0)
        words.close()
        if not expect:
            raise WrongScenario("a step that expects nothing proves nothing")
        yield Step(at_s, so_far, expect)


def load_all() -> list[Scenario]:
    return [load(path) for path in sorted(CASES.glob("*.yaml"))]


def play(scenario: Scenario) -> Iterator[tuple[Step, Decision]]:
    """Decide step by step; the memory goes from each to the next."""
    kept = scenario.memory
    for step in scenario.steps:
        scene = step.scene
        decision = decide(kept, scene.view, scene.now)
        kept = decision.memory
        yield step, decision


# ------------------------------------------------------------------ comparing


def differences(step: Step, decision: Decision) -> list[str]:
    """One line for each thing that came out otherwise than expected."""
    words = Words("expect", step.expect)
    found: list[str] = []
    plain = {
        "situation": decision.situation.value,
        "rules": [r.name for r in decision.rules],
        "reason": decision.reason,
        "possible": decision.outlook.possible,
        "heirs": list(decision.outlook.heirs),
        "blocking": list(decision.outlook.blocking),
    }
    for word, actual in plain.items():
        if words.has(word) and words.take(word) != actual:
            found.append(f"{word}: {actual!r} instead of {step.expect[word]!r}")
    if words.has("commands"):
        found += _command_differences(words.take("commands"), decision.commands)
    unwanted = [c for c in words.take("never", []) if c in {type(o).__name__ for o in decision.commands}]
    found += [f"{name} must not be ordered" for name in unwanted]
    within_s = words.take("wakes_within")
    left_s = remaining_s(decision.wake_up, step.scene.now)
    if within_s is not None and left_s > within_s + 1e-6:
        found.append(f"wakes up after {left_s} s instead of within {within_s} s")
    words.close()
    return found


def _command_differences(expected: list[Any], ordered: tuple[Command, ...]) -> Iterator[str]:
    wanted = [(item, {}) if isinstance(item, str) else next(iter(item.items())) for item in expected]
    if [name for name, _ in wanted] != [type(c).__name__ for c in ordered]:
        yield f"commands: {ordered!r} instead of {[name for name, _ in wanted]}"
        return
    for (name, values), command in zip(wanted, ordered, strict=True):
        for path, value in values.items():
            actual = _plain(_field(command, path))
            if actual != value:
                yield f"{name}.{path}: {actual!r} instead of {value!r}"


def _field(value: Any, path: str) -> Any:
    for word in path.split("."):
        value = getattr(value, word)
    return value


def _plain(value: Any) -> Any:
    """As YAML would say it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [_plain(getattr(value, f.name)) for f in dataclasses.fields(value)]
    return value
