"""What happened: every decision and step is an event. The newest are kept in memory, each is a log line, whoever listens gets them.

Everything is bounded: the ring, the listeners, what waits for a slow listener (it loses the oldest and is told how many). Noting an event
never waits and never fails: the agent's hands must not depend on who watches them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from agent.clock import Clock
from agent.errors import QuorateError

KEPT = 1000
"""Events that stay in memory."""
MAX_LISTENERS = 16
MAX_WAITING = 200
"""Events that wait for one slow listener."""
MAX_FIELDS = 16
MAX_TEXT = 500

Scalar = str | int | float | bool | None


class EventKind(StrEnum):
    """The names of all events: a noun and what became of it."""

    AGENT_STARTED = "agent.started"
    AGENT_STOPPED = "agent.stopped"
    CHECK_CHANGED = "check.changed"
    COORDINATION_LOST = "coordination.lost"
    COORDINATION_FOUND = "coordination.found"
    SITUATION_CHANGED = "situation.changed"
    LEASE_TAKEN = "lease.taken"
    LEASE_VACATED = "lease.vacated"
    LEASE_LOST = "lease.lost"
    SERVICE_DIED = "service.died"
    SERVICE_FENCED = "service.fenced"
    SERVICE_PROMOTED = "service.promoted"
    SERVICE_STOPPED = "service.stopped"
    SERVICE_STARTED = "service.started"
    ROUTE_CHANGED = "route.changed"
    HOOKS_RUN = "hooks.run"
    MEMBER_FOLLOWED = "member.followed"
    MEMBER_REJOINED = "member.rejoined"
    VOTE_CAST = "vote.cast"
    VOTE_WITHDRAWN = "vote.withdrawn"
    COMMAND_FAILED = "command.failed"
    WATCHDOG_LOST = "watchdog.lost"
    WATCHDOG_FOUND = "watchdog.found"
    INTENT_SUBMITTED = "intent.submitted"
    INTENT_FINISHED = "intent.finished"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `number` grows by one with each event of one life of the agent; `wall_s` is for people."""

    number: int
    kind: EventKind
    group: str | None
    epoch: int | None
    sentence: str
    wall_s: float
    fields: Mapping[str, Scalar] = field(default_factory=dict)


class EventLog(Protocol):
    """Where the log lines go: a structlog logger, seen from here."""

    def info(self, event: str, **fields: object) -> object:
        """Write one line."""
        ...


class TooManyListeners(QuorateError):
    """No more listeners are taken."""


class Listener:
    """What waits for one listener. Use it as a context manager, so that it ends with whoever listens."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._waiting: deque[Event] = deque(maxlen=MAX_WAITING)
        self._arrived = asyncio.Event()
        self.lost = 0
        """Events that were dropped because this listener was slow."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._audit.listeners.discard(self)

    def put(self, event: Event) -> None:
        """Queue an event, over the oldest when too many wait."""
        self.lost += len(self._waiting) == MAX_WAITING
        self._waiting.append(event)
        self._arrived.set()

    async def next(self, timeout_s: float) -> Event | None:
        """The next event in order; None when none came in time."""
        if not self._waiting:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        return self._waiting.popleft()


class Audit:
    """The agent's events. One event loop only."""

    def __init__(self, clock: Clock, log: EventLog) -> None:
        self._clock = clock
        self._log = log
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._number = 0
        self.life = clock.nonce()
        """Names this life of the agent: numbers of another one mean nothing here."""
        self.listeners: set[Listener] = set()

    def note(self, kind: EventKind, group: str | None, epoch: int | None, sentence: str, **fields: Scalar) -> Event:
        """Something happened now: keep it, log it, tell who listens. Too many fields and too long texts are cut."""
        self._number += 1
        kept = {name: _cut(value) for name, value in list(fields.items())[:MAX_FIELDS]}
        event = Event(self._number, kind, group, epoch, sentence[:MAX_TEXT], self._clock.wall_s(), kept)
        self._kept.append(event)
        for listener in self.listeners:
            listener.put(event)
        named: dict[str, object] = {"group": group, "epoch": epoch, "sentence": event.sentence, "fields": kept or None}
        self._log.info(kind.value, **{name: value for name, value in named.items() if value is not None})
        return event

    def recent(self, after: int = 0) -> tuple[Event, ...]:
        """The events that are still kept, oldest first; only those with a number above `after`."""
        return tuple(event for event in self._kept if event.number > after)

    def listen(self, after: int | None = None) -> Listener:
        """From now on; with `after`, first what is kept above that number. Raises TooManyListeners."""
        if len(self.listeners) >= MAX_LISTENERS:
            raise TooManyListeners(f"{MAX_LISTENERS} listeners are there already")
        listener = Listener(self)
        for event in () if after is None else self.recent(after)[-MAX_WAITING:]:
            listener.put(event)
        self.listeners.add(listener)
        return listener


def _cut(value: Scalar) -> Scalar:
    return value[:MAX_TEXT] if isinstance(value, str) else value
