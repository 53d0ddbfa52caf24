from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.coordination import intents
from agent.coordination.coordinator import Committed, Entry, Operation, Refused, Verb
from agent.coordination.intents import StoredIntent, decode_intent, decode_stored, encode_intent, finishing, submit
from agent.coordination.lease import LeaseRecord, LeaseState, Terms, encode_record, intent_key, lease_key
from agent.coordination.local import LocalCoordinator
from agent.decision.command import IntentOutcome
from agent.decision.view import Intent, IntentKind
from agent.errors import CoordinationRefused
from agent.instant import Instant

STORED = StoredIntent(IntentKind.SWITCHOVER, "b", 3, "ada", "maintenance of a", 1_700_000_000.5)
SEEN = Instant(1, 2)
CLOCK = SystemClock()


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[LocalCoordinator]:
    coordinator = await LocalCoordinator.open(tmp_path / "store.db", CLOCK)
    yield coordinator
    await coordinator.close()


async def entries(coordinator: LocalCoordinator) -> dict[str, Entry]:
    return dict((await coordinator.read(intent_key("pg", ""), 5)).entries)


async def ask(coordinator: LocalCoordinator, why: str = "") -> str:
    return await submit(coordinator, CLOCK, "pg", IntentKind.PAUSE, None, "ada", why)


async def finish(coordinator: LocalCoordinator, identity: str) -> None:
    entry = (await entries(coordinator))[intent_key("pg", identity)]
    stored = decode_stored(entry.value)
    assert stored is not None
    outcome = await coordinator.transact(finishing("pg", identity, entry.index, stored, IntentOutcome.DONE, "paused"), 5)
    assert isinstance(outcome, Committed)


def test_an_intent_comes_back_as_it_was() -> None:
    assert decode_stored(encode_intent(STORED)) == STORED
    expected = Intent("id", 7, IntentKind.SWITCHOVER, "b", 3, "ada", "maintenance of a", SEEN)
    assert decode_intent("id", 7, encode_intent(STORED), SEEN) == expected


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b"\xff", encode_intent(STORED).replace(b"switchover", b"explode")])
def test_what_cannot_be_read_is_no_intent(value: bytes) -> None:
    assert decode_intent("id", 7, value, SEEN) is None


async def test_a_submitted_intent_is_stored_with_who_why_and_the_epoch_it_speaks_of(coordinator: LocalCoordinator) -> None:
    record = LeaseRecord("pg", "a", "boot", 5, 1, "n", Terms(5, 0.5), LeaseState.HELD, ("a", "b"), 1)
    await coordinator.transact((Operation(Verb.SET, lease_key("pg"), value=encode_record(record)),), 5)
    identity = await submit(coordinator, CLOCK, "pg", IntentKind.SWITCHOVER, "b", "ada", "x" * 1000)
    stored = decode_stored((await entries(coordinator))[intent_key("pg", identity)].value)
    assert stored is not None
    assert (stored.kind, stored.node, stored.epoch, stored.who, stored.why) == (IntentKind.SWITCHOVER, "b", 5, "ada", "x" * 500)
    assert abs(stored.created_wall_s - CLOCK.wall_s()) < 60
    assert stored.outcome is None


@pytest.mark.parametrize("lease", [None, b"no record"])
async def test_without_a_readable_lease_an_intent_speaks_of_epoch_0(coordinator: LocalCoordinator, lease: bytes | None) -> None:
    if lease is not None:
        await coordinator.transact((Operation(Verb.SET, lease_key("pg"), value=lease),), 5)
    identity = await ask(coordinator)
    stored = decode_stored((await entries(coordinator))[intent_key("pg", identity)].value)
    assert stored is not None
    assert stored.epoch == 0


async def test_a_name_that_is_taken_is_refused(coordinator: LocalCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CLOCK, "nonce", lambda: "same")
    await ask(coordinator)
    with pytest.raises(CoordinationRefused, match="was not stored"):
        await ask(coordinator)


async def test_a_finished_intent_is_off_the_list_and_says_how_it_ended(coordinator: LocalCoordinator) -> None:
    identity = await ask(coordinator)
    await finish(coordinator, identity)
    entry = (await entries(coordinator))[intent_key("pg", identity)]
    assert decode_intent(identity, entry.index, entry.value, SEEN) is None
    stored = decode_stored(entry.value)
    assert stored is not None
    assert (stored.outcome, stored.sentence) == (IntentOutcome.DONE, "paused")


async def test_an_intent_is_finished_once(coordinator: LocalCoordinator) -> None:
    identity = await ask(coordinator)
    entry = (await entries(coordinator))[intent_key("pg", identity)]
    await finish(coordinator, identity)
    again = finishing("pg", identity, entry.index, STORED, IntentOutcome.REFUSED, "too late")
    assert isinstance(await coordinator.transact(again, 5), Refused)


async def test_open_intents_are_bounded(coordinator: LocalCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intents, "MAX_OPEN", 3)
    identities = [await ask(coordinator) for _ in range(3)]
    with pytest.raises(CoordinationRefused, match="3 open intents already"):
        await ask(coordinator)
    await finish(coordinator, identities[0])
    await ask(coordinator)


async def test_the_oldest_finished_intents_are_cleared_and_open_ones_never(
    coordinator: LocalCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intents, "KEPT_FINISHED", 2)
    open_one = await ask(coordinator)
    done = []
    for _ in range(4):
        done.append(await ask(coordinator))
        await finish(coordinator, done[-1])
    last = await ask(coordinator)
    left = {key.rpartition("/")[2] for key in await entries(coordinator)}
    assert left == {open_one, *done[-2:], last}


async def test_what_nobody_can_read_is_cleared_too(coordinator: LocalCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intents, "KEPT_FINISHED", 1)
    for name in ("x", "y"):
        await coordinator.transact((Operation(Verb.SET, intent_key("pg", name), value=b"junk"),), 5)
    await ask(coordinator)
    assert intent_key("pg", "x") not in await entries(coordinator)
