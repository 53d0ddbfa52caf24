from __future__ import annotations

from dataclasses import fields, replace

import pytest

from agent.configuration.peer_keys import PeerKeys
from agent.coordination import peer_auth
from agent.coordination.peer_auth import MAX_NONCES, STAMP_S, Answered, Asked, Door, Verdict, signed_with
from agent.watchdog.protocol import MOST_GROUPS
from tests.unit.agent.stage import ShiftedClock

NEW, OLD = b"n" * 32, b"o" * 32
KEYS = PeerKeys((NEW, OLD))
ASKED = Asked("POST", "/api/v1/peers/pg/promise", "pg1", "pg2", "stamp", "n1", b"{}")
ANSWERED = Answered(200, "pg1", "pg2", "stamp", "n1", b"{}")


class WallOff(ShiftedClock):
    """Its wall clock is an hour off (faults.md 22)."""

    def wall_s(self) -> float:
        return super().wall_s() - 3600.0


@pytest.fixture
def clock() -> ShiftedClock:
    return WallOff()


@pytest.fixture
def door(clock: ShiftedClock) -> Door:
    return Door("pg2", KEYS, clock)


def asked(door: Door, **changes: object) -> Asked:
    return replace(ASKED, stamp=door.stamp(), **changes)  # type: ignore[arg-type]


def judge(door: Door, question: Asked, key: bytes = NEW) -> Verdict:
    return door.judge(question, question.mac(key))[0]


def test_who_knows_the_key_comes_in_once(door: Door) -> None:
    question = asked(door)
    assert judge(door, question) is Verdict.ADMITTED
    assert judge(door, question) is Verdict.STALE, "replayed"
    assert judge(door, replace(question, nonce="n2")) is Verdict.ADMITTED, "a stamp is good for more than one question"


@pytest.mark.parametrize("name", [f.name for f in fields(Asked)])
def test_everything_that_is_said_is_signed(door: Door, name: str) -> None:
    question = asked(door)
    value = getattr(question, name)
    forged = replace(question, **{name: value + (b"x" if isinstance(value, bytes) else "x")})
    assert door.judge(forged, question.mac(NEW))[0] is Verdict.STRANGER


@pytest.mark.parametrize("name", [f.name for f in fields(Answered)])
def test_everything_in_an_answer_is_signed(name: str) -> None:
    value = getattr(ANSWERED, name)
    other = replace(ANSWERED, **{name: value + (1 if isinstance(value, int) else b"x" if isinstance(value, bytes) else "x")})
    assert signed_with(other, ANSWERED.mac(NEW), KEYS) is None


def test_no_two_questions_look_alike() -> None:
    assert replace(ASKED, sender="ab", receiver="c").mac(NEW) != replace(ASKED, sender="a", receiver="bc").mac(NEW)


def test_a_question_is_no_answer() -> None:
    plain = Asked("200", "pg1", "pg2", "stamp", "n1", "", b"")
    assert plain.mac(NEW) != Answered(200, "pg1", "pg2", "stamp", "n1", b"").mac(NEW)


@pytest.mark.parametrize("changes", [{"receiver": "pg3"}, {"nonce": ""}, {"sender": ""}])
def test_what_is_meant_for_another_or_says_too_little_does_not_come_in(door: Door, changes: dict[str, object]) -> None:
    assert judge(door, asked(door, **changes)) is Verdict.STRANGER


@pytest.mark.parametrize("mac", ["", "0" * 64, "\udcff", "ß"])
def test_a_wrong_signature_does_not_come_in(door: Door, mac: str) -> None:
    assert door.judge(asked(door), mac)[0] is Verdict.STRANGER


def test_a_stranger_makes_it_remember_nothing(door: Door) -> None:
    for number in range(10):
        judge(door, asked(door, nonce=str(number)), b"x" * 32)
    assert door._nonces == {}


@pytest.mark.parametrize("stamp", ["", "life-1", "-", "x-99", "not-there-1"])
def test_without_its_own_stamp_it_asks_for_another_try(door: Door, stamp: str) -> None:
    assert judge(door, replace(ASKED, stamp=stamp)) is Verdict.STALE


def test_an_old_stamp_and_one_of_the_future_are_stale(door: Door, clock: ShiftedClock) -> None:
    question = asked(door)
    clock.shift_s = -1.0
    assert judge(door, question) is Verdict.STALE
    clock.shift_s = STAMP_S + 1
    assert judge(door, question) is Verdict.STALE
    clock.shift_s = STAMP_S - 1
    assert judge(door, question) is Verdict.ADMITTED


def test_a_record_of_an_earlier_life_is_worth_nothing(door: Door, clock: ShiftedClock) -> None:
    assert judge(Door("pg2", KEYS, clock), asked(door)) is Verdict.STALE


def test_both_keys_are_believed_and_the_answer_is_signed_with_the_askers(door: Door) -> None:
    question = asked(door)
    assert door.judge(question, question.mac(OLD)) == (Verdict.ADMITTED, OLD)


def test_what_is_remembered_is_bounded_and_forgotten_in_time(door: Door, clock: ShiftedClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_auth, "MAX_NONCES", 8)
    first = [asked(door, nonce=f"a{number}") for number in range(9)]
    assert [judge(door, question) for question in first] == [Verdict.ADMITTED] * 8 + [Verdict.STALE]
    clock.shift_s = STAMP_S + 1
    assert judge(door, asked(door, nonce="b")) is Verdict.ADMITTED
    assert judge(door, first[0]) is Verdict.STALE
    assert len(door._nonces) == 1
    assert MAX_NONCES > STAMP_S * MOST_GROUPS / 0.2, "all groups of a node, each asking every 200 ms, for as long as Consul is away"
