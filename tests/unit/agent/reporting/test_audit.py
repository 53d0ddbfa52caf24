from __future__ import annotations

import asyncio

import pytest

from agent.reporting.audit import KEPT, MAX_FIELDS, MAX_LISTENERS, MAX_TEXT, MAX_WAITING, Audit, Event, EventKind, TooManyListeners
from tests.unit.agent.reporting.samples import WALL_S, StillClock


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))


@pytest.fixture
def log() -> Lines:
    return Lines()


@pytest.fixture
def audit(log: Lines) -> Audit:
    return Audit(StillClock(), log)


def note(audit: Audit, sentence: str = "it happened") -> Event:
    return audit.note(EventKind.LEASE_TAKEN, "pg-main", 3, sentence)


def test_an_event_is_kept_and_logged(audit: Audit, log: Lines) -> None:
    event = audit.note(EventKind.SERVICE_FENCED, "pg-main", 3, "it ran out", layer="watchdog")
    assert audit.recent() == (event,)
    assert (event.number, event.kind, event.wall_s, event.fields) == (1, EventKind.SERVICE_FENCED, WALL_S, {"layer": "watchdog"})
    assert log.lines == [("service.fenced", {"group": "pg-main", "epoch": 3, "sentence": "it ran out", "fields": {"layer": "watchdog"}})]


def test_names_are_a_noun_and_what_became_of_it() -> None:
    assert all(len(kind.value.split(".")) == 2 and kind.value.islower() for kind in EventKind)


def test_only_the_newest_are_kept(audit: Audit) -> None:
    for _ in range(KEPT + 5):
        note(audit)
    assert [audit.recent()[0].number, audit.recent()[-1].number, len(audit.recent())] == [6, KEPT + 5, KEPT]
    assert [e.number for e in audit.recent(after=KEPT + 3)] == [KEPT + 4, KEPT + 5]


def test_texts_and_fields_are_bounded(audit: Audit) -> None:
    event = audit.note(EventKind.LEASE_LOST, None, None, "x" * 9999, **{f"f{n}": "y" * 9999 for n in range(99)})
    assert len(event.sentence) == MAX_TEXT
    assert len(event.fields) == MAX_FIELDS
    assert {len(str(v)) for v in event.fields.values()} == {MAX_TEXT}


async def test_a_listener_gets_what_comes(audit: Audit) -> None:
    note(audit, "before")
    with audit.listen() as listener:
        assert await listener.next(0.01) is None
        waiting = asyncio.create_task(listener.next(5))
        await asyncio.wait({waiting}, timeout=0)
        note(audit, "after")
        event = await waiting
        assert event is not None
        assert event.sentence == "after"
    assert not audit.listeners


async def test_a_listener_may_ask_for_what_is_kept(audit: Audit) -> None:
    for _ in range(3):
        note(audit)
    with audit.listen(after=1) as listener:
        assert [getattr(await listener.next(0.01), "number", None) for _ in range(3)] == [2, 3, None]


async def test_a_slow_listener_loses_the_oldest_and_harms_nobody(audit: Audit) -> None:
    with audit.listen() as listener:
        for _ in range(MAX_WAITING + 3):
            note(audit)
        first = await listener.next(0.01)
        assert first is not None
        assert (first.number, listener.lost) == (4, 3)


def test_listeners_are_bounded_and_their_places_come_free(audit: Audit) -> None:
    listeners = [audit.listen() for _ in range(MAX_LISTENERS)]
    with pytest.raises(TooManyListeners, match="16 listeners"):
        audit.listen()
    with listeners[0]:
        pass
    audit.listen()
