from __future__ import annotations

from dataclasses import replace

from agent.coordination.coordinator import Entry, Snapshot
from agent.coordination.intents import StoredIntent, encode_intent
from agent.coordination.lease import (
    Position,
    encode_record,
    formation_key,
    history_key,
    intent_key,
    lease_key,
    member_key,
    receipt_key,
    vote_key,
)
from agent.coordination.reading import GroupReading, Sightings, read_group
from agent.coordination.values import MemberValue, VoteValue, WordValue, encode
from agent.decision.command import IntentOutcome
from agent.decision.view import Branch, IntentKind, ServiceState
from agent.instant import Instant, observer_elapsed_s
from tests.unit.agent.stage import SPEC, first_record

GROUP = SPEC.name
NOW = Instant(5000 * 10**9, 4000 * 10**9)
GAP_S = 3.0
MEMBER = MemberValue(1, "life-2", ServiceState.STANDBY, Position(1, 7), upstream="pg1", receiving=True, problem="p", paused_epoch=2)
INTENT = StoredIntent(IntentKind.SWITCHOVER, "pg2", 1, "ann", "a test", 0.0)


def read(entries: dict[str, Entry], before: Sightings, now: Instant = NOW, index: int = 50) -> tuple[GroupReading, Sightings]:
    return read_group(GROUP, Snapshot(index, entries), before, now, GAP_S)


def lease(sequence: int = 1, index: int = 9) -> dict[str, Entry]:
    return {lease_key(GROUP): Entry(encode_record(first_record(sequence=sequence)), index, "s1")}


def beat(number: int, index: int) -> dict[str, Entry]:
    return {member_key(GROUP, "pg2"): Entry(encode(replace(MEMBER, beat=number)), index)}


# ---------------------------------------------------------------------------------------------------- the lease


def test_no_key_an_unreadable_one_and_a_record_are_three_things() -> None:
    absent, _ = read({}, Sightings())
    unreadable, seen = read({lease_key(GROUP): Entry(b"{}", 9)}, Sightings())
    record, _ = read(lease(), Sightings())
    assert (absent.lease.exists, absent.lease.record, absent.lease.sight) == (False, None, None)
    assert (unreadable.lease.exists, unreadable.lease.record, unreadable.lease.sight, seen.sight) == (True, None, None, None)
    assert (record.lease.exists, record.lease.record) == (True, first_record())
    assert record.lease.entry == lease()[lease_key(GROUP)]
    assert record.index == 50


def test_the_lease_stands_still_from_the_first_sight_on() -> None:
    _, first = read(lease(), Sightings())
    later, second = read(lease(), first, NOW.after(2.9))
    assert later.lease.sight == second.sight
    assert second.sight is not None
    assert second.sight.since == NOW


def test_a_change_begins_a_new_sight() -> None:
    _, first = read(lease(), Sightings())
    _, second = read(lease(sequence=2, index=11), first, NOW.after(1))
    assert second.sight is not None
    assert second.sight.since == NOW.after(1)


def test_after_a_gap_time_starts_anew_only_if_the_holder_wrote() -> None:
    _, first = read(lease(), Sightings())
    _, released = read(lease(index=11), first, NOW.after(GAP_S + 0.1))
    assert released.sight is not None
    assert released.sight.since == NOW
    again = {lease_key(GROUP): Entry(encode_record(first_record(sequence=1, nonce="another")), 11, "s1")}
    _, second = read(again, first, NOW.after(GAP_S + 0.1))
    assert second.sight is not None
    assert second.sight.since == NOW.after(GAP_S + 0.1)


def test_an_unreadable_record_ends_the_sight() -> None:
    _, first = read(lease(), Sightings())
    _, second = read({lease_key(GROUP): Entry(b"?", 10)}, first, NOW.after(1))
    _, third = read(lease(index=11), second, NOW.after(2))
    assert third.sight is not None
    assert third.sight.since == NOW.after(2)


# ---------------------------------------------------------------------------------------------------- members


def test_a_heartbeat_that_a_new_agent_finds_may_be_of_yesterday() -> None:
    reading, seen = read(beat(1, 3), Sightings())
    assert observer_elapsed_s(reading.members["pg2"].moved, NOW) == 3600
    reading, seen = read(beat(1, 3), seen, NOW.after(1))
    assert observer_elapsed_s(reading.members["pg2"].moved, NOW) == 3600
    reading, _ = read(beat(2, 4), seen, NOW.after(2))
    assert reading.members["pg2"].moved == NOW.after(2)


def test_a_heartbeat_that_appears_later_has_just_moved() -> None:
    _, seen = read({}, Sightings())
    reading, _ = read(beat(1, 3), seen, NOW.after(1))
    assert reading.members["pg2"].moved == NOW.after(1)


def test_a_heartbeat_stands_still_from_when_it_was_last_seen_to_move() -> None:
    _, seen = read({}, Sightings())
    for second, index in ((1, 3), (2, 4), (3, 4), (4, 4)):
        reading, seen = read(beat(index, index), seen, NOW.after(second))
    assert reading.members["pg2"].moved == NOW.after(2)


def test_members_say_what_they_published() -> None:
    published = replace(MEMBER, history=(Branch(1, 3),), stopped_for_epoch=4, system_identifier="7")
    reading, _ = read({member_key(GROUP, "pg2"): Entry(encode(published), 3), member_key(GROUP, "pg3"): Entry(b"junk", 3)}, Sightings())
    assert list(reading.members) == ["pg2"]
    member = reading.members["pg2"]
    for name in ("incarnation", "state", "position", "upstream", "receiving", "problem", "paused_epoch", "history", "stopped_for_epoch"):
        assert getattr(member, name) == getattr(published, name), name
    assert (member.name, member.system_identifier) == ("pg2", "7")


# ---------------------------------------------------------------------------------------------------- votes, words, intents


def test_votes_and_words_carry_the_index_that_a_transaction_checks() -> None:
    entries = {
        vote_key(GROUP, "edge1"): Entry(encode(VoteValue(2, down=True, evidence="silent")), 21),
        vote_key(GROUP, "pg2"): Entry(b"{}", 22),
        formation_key(GROUP, "pg2"): Entry(encode(WordValue("life-2", Position(1, 5), "7", (Branch(1, 2),))), 23),
        formation_key(GROUP, "pg3"): Entry(b"[]", 24),
    }
    reading, _ = read(entries, Sightings())
    assert {n: (v.voter, v.index, v.epoch, v.down, v.evidence) for n, v in reading.votes.items()} == {
        "edge1": ("edge1", 21, 2, True, "silent")
    }
    assert {n: (w.node, w.index, w.position, w.system_identifier, w.history) for n, w in reading.words.items()} == {
        "pg2": ("pg2", 23, Position(1, 5), "7", (Branch(1, 2),))
    }


def test_an_intent_is_as_old_as_when_it_was_first_seen() -> None:
    entries = {intent_key(GROUP, "i1"): Entry(encode_intent(INTENT), 30)}
    _, seen = read(entries, Sightings())
    reading, seen = read(entries, seen, NOW.after(2))
    (intent,) = reading.intents
    assert (intent.identity, intent.index, intent.kind, intent.node, intent.epoch) == ("i1", 30, IntentKind.SWITCHOVER, "pg2", 1)
    assert (intent.who, intent.why, intent.seen) == ("ann", "a test", NOW)
    _, seen = read({}, seen, NOW.after(3))
    reading, _ = read(entries, seen, NOW.after(4))
    assert reading.intents[0].seen == NOW.after(4)


def test_finished_and_unreadable_intents_are_none() -> None:
    entries = {
        intent_key(GROUP, "done"): Entry(encode_intent(replace(INTENT, outcome=IntentOutcome.DONE)), 31),
        intent_key(GROUP, "junk"): Entry(b"!", 32),
    }
    assert read(entries, Sightings())[0].intents == ()


def test_other_keys_are_no_part_of_it() -> None:
    entries = {receipt_key(GROUP, "pg2"): Entry(b"x", 1), history_key(GROUP, 1): Entry(b"x", 1), lease_key("other"): Entry(b"x", 1)}
    reading, _ = read(entries, Sightings())
    assert (reading.lease.exists, reading.members, reading.votes, reading.words, reading.intents) == (False, {}, {}, {}, ())
