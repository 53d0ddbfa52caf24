"""The contract of every check: ask one system one question and answer within a deadline, in one sentence.

A check never raises for what its target does, never hangs, never logs: a hung target, a failed name lookup, a wrong password, a TLS
error and garbage bytes each become a Result with a sentence of their own. Adding a system is one file beside this one: its options
model, its facts and its probe; it is found by its file name (= `type` in the catalogue), or by the entry point `quorate.checks`.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict


class Status(StrEnum):
    """What a check says. UNKNOWN = the check itself could not ask; it is never counted as down."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Level(StrEnum):
    """How deep a check asks: is it alive, does it serve, is it well."""

    LIVENESS = "liveness"
    READINESS = "readiness"
    DEEP = "deep"


@dataclass(frozen=True, slots=True)
class Facts:
    """Base of the typed facts that a kind reads (frozen dataclasses of plain values; units last in names)."""


@dataclass(frozen=True, slots=True)
class Result:
    """One answer. `latency_s` is how long the question took; `sentence` is for a person; `log` the steps of this very run."""

    status: Status
    sentence: str
    latency_s: float = 0.0
    facts: Facts | None = None
    log: tuple[str, ...] = ()


@dataclass(slots=True)
class RunLog:
    """The steps of one run, kept for whoever asks why. Bounded; never holds a secret."""

    limit: int = 50
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        if len(self.lines) < self.limit:
            self.lines.append(line)


class CheckOptions(BaseModel):
    """Base of a kind's options; each kind adds its own fields. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


OptionsT = TypeVar("OptionsT", bound=CheckOptions)


class Check(abc.ABC, Generic[OptionsT]):
    """One configured check of one kind."""

    kind: ClassVar[str]
    """Its name in the catalogue: the name of its file."""
    options_model: ClassVar[type[CheckOptions]]
    levels: ClassVar[frozenset[Level]]

    def __init__(self, level: Level, options: OptionsT) -> None:
        self.level = level
        self.options = options

    @abc.abstractmethod
    async def probe(self, timeout_s: float, log: RunLog) -> Result:
        """Ask once. Returns within about `timeout_s` whatever the target does; a late answer is UNHEALTHY, not an error."""

    async def close(self) -> None:
        """Free connections kept between probes."""


AnyCheck = Check[Any]
