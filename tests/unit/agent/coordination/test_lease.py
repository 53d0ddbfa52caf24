"""The lease as values: its record, its time limits, its transactions. The laws are tried by hypothesis with clocks of different rates."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.coordination import lease
from agent.coordination.coordinator import Entry, Operation, Verb
from agent.coordination.lease import (
    MAX_ATTEMPTS,
    Attempt,
    CountedVote,
    Debt,
    LeaseRecord,
    LeaseState,
    Position,
    Promotion,
    Sight,
    Tenure,
    Terms,
    UnreadableRecord,
    decode_record,
    encode_record,
    is_expired,
    look,
    settle,
    with_attempt,
    without_attempt,
)
from agent.instant import Instant

PLAIN = LeaseRecord("pg", "a", "boot-1", 3, 7, "n7", Terms(5.0, 0.5), LeaseState.HELD, ("a", "b", "c"), 2)
FULL = replace(
    PLAIN,
    state=LeaseState.VACATED,
    sync_set=("b",),
    promotions=(Promotion(2, "b", 2, 1, 4096), Promotion(3, "a", 3, 2, 8192)),
    paused=True,
    heir="b",
    final_position=Position(3, 9000),
    debt=Debt(2, "b", 5.6),
    system_identifier="7300000000000000000",
    cause="switched over",
)
ZERO = Instant(0, 0)


# ---------------------------------------------------------------------------------------------------- terms and record


def test_takeover_wait_is_ttl_and_fence_budget_stretched_by_the_clock_error() -> None:
    assert Terms(5.0, 0.5).takeover_wait_s == pytest.approx(5.5 * 1.01 / 0.99)


@pytest.mark.parametrize(
    ("record", "vacant"),
    [
        (PLAIN, False),
        (replace(PLAIN, state=LeaseState.VACATED), True),
        (replace(PLAIN, state=LeaseState.VACATED, debt=Debt(2, "b", 5.6)), False),
        (replace(PLAIN, debt=Debt(2, "b", 5.6)), False),
    ],
)
def test_vacant_is_only_a_vacated_record_without_debt(record: LeaseRecord, vacant: bool) -> None:
    assert record.is_vacant is vacant


@pytest.mark.parametrize("record", [PLAIN, FULL, replace(PLAIN, sync_set=())])
def test_a_record_comes_back_as_it_was(record: LeaseRecord) -> None:
    assert decode_record(encode_record(record)) == record


names = st.text(max_size=20)
whole = st.integers(0, 2**63)
seconds = st.floats(0, 1e6)
records = st.builds(
    LeaseRecord,
    group=names,
    holder=names,
    incarnation=names,
    epoch=whole,
    sequence=whole,
    nonce=names,
    terms=st.builds(Terms, seconds, seconds),
    state=st.sampled_from(LeaseState),
    voters=st.lists(names, max_size=4).map(tuple),
    votes_needed=whole,
    sync_set=st.none() | st.lists(names, max_size=4).map(tuple),
    promotions=st.lists(st.builds(Promotion, whole, names, whole, whole, whole), max_size=3).map(tuple),
    paused=st.booleans(),
    heir=st.none() | names,
    final_position=st.none() | st.builds(Position, whole, whole),
    debt=st.none() | st.builds(Debt, whole, names, seconds),
    system_identifier=st.none() | names,
    cause=names,
)


@given(records)
def test_every_record_comes_back_as_it_was(record: LeaseRecord) -> None:
    assert decode_record(encode_record(record)) == record


def damaged(**changes: Any) -> bytes:
    return json.dumps(json.loads(encode_record(FULL)) | changes).encode()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe",
        b"no json",
        b"[]",
        b"7",
        b"{}",
        b'{"protocol": 1}',
        b"[" * 100_000,
        damaged(protocol=2),
        damaged(epoch="3"),
        damaged(epoch=True),
        damaged(epoch=3.5),
        damaged(holder=None),
        damaged(state="lost"),
        damaged(voters="abc"),
        damaged(voters=[1]),
        damaged(paused="false"),
        damaged(paused=0),
        damaged(ttl_s="5"),
        damaged(ttl_s=True),
        damaged(ttl_s=-1),
        damaged(ttl_s=float("nan")),
        damaged(ttl_s=float("inf")),
        damaged(ttl_s=10**400),
        damaged(fence_budget_s=None),
        damaged(final_position=[]),
        damaged(final_position=[1, 2, 3]),
        damaged(debt=[1]),
        damaged(debt=[1, "b", float("nan")]),
        damaged(promotions=[[1]]),
        damaged(promotions=[[1, "a", 1, 1, 1, 1]]),
        damaged(sync_set=7),
        damaged(heir=7),
        damaged(system_identifier=7),
    ],
    ids=lambda value: value[:40].decode("latin-1"),
)
def test_what_is_no_record_is_unreadable_and_nothing_else(value: bytes) -> None:
    with pytest.raises(UnreadableRecord):
        decode_record(value)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5).map(lambda v: json.dumps(v).encode())
)
def test_no_bytes_make_anything_but_a_record_or_unreadable(value: bytes) -> None:
    with pytest.raises(UnreadableRecord):
        decode_record(value)


@given(
    st.sampled_from(sorted(json.loads(encode_record(FULL)))),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
)
def test_a_record_with_one_field_changed_is_a_record_or_unreadable(name: str, value: object) -> None:
    try:
        record = decode_record(damaged(**{name: value}))
    except UnreadableRecord:
        return
    assert decode_record(encode_record(record)) == record


def test_keys() -> None:
    assert lease.group_folder("pg") == "pg/"
    keys = [
        lease.lease_key("pg"),
        lease.vote_key("pg", "a"),
        lease.member_key("pg", "a"),
        lease.formation_key("pg", "a"),
        lease.receipt_key("pg", "a"),
        lease.intent_key("pg", "a"),
    ]
    assert not lease.history_key("pg", 3).startswith(lease.group_folder("pg")), "every turn reads the group's folder"
    assert all(key.startswith(lease.group_folder("pg")) for key in keys)
    assert len(set(keys)) == len(keys)
    assert lease.history_key("pg", 9) < lease.history_key("pg", 10)


# ---------------------------------------------------------------------------------------------------- the holder


def attempt(sequence: int, sent_s: float, ttl_s: float = 5.0, state: LeaseState = LeaseState.HELD) -> Attempt:
    return Attempt(replace(PLAIN, sequence=sequence, nonce=f"n{sequence}", terms=Terms(ttl_s, 0.5), state=state), ZERO.after(sent_s))


HOLDING = Tenure(PLAIN, 100, "session", ZERO)
ADOPTED = Tenure(PLAIN, 100, "session", None, adopted_deadline=ZERO.after(4))


def test_the_deadline_counts_from_when_the_confirmed_write_was_sent() -> None:
    assert HOLDING.deadline == ZERO.after(5)
    assert HOLDING.epoch == 3


def test_an_undecided_renewal_does_not_move_the_deadline() -> None:
    assert with_attempt(HOLDING, attempt(8, 1)).deadline == ZERO.after(5)


def test_a_shorter_ttl_cuts_the_deadline_when_it_is_sent_and_a_longer_does_not_stretch_it() -> None:
    assert with_attempt(HOLDING, attempt(8, 1, ttl_s=2)).deadline == ZERO.after(2)
    assert with_attempt(HOLDING, attempt(8, 1, ttl_s=9)).deadline == ZERO.after(5)


def test_a_tenure_that_was_never_dated_has_the_adopted_deadline_or_none() -> None:
    assert ADOPTED.deadline == ZERO.after(4)
    assert replace(ADOPTED, adopted_deadline=None).deadline is None
    assert with_attempt(replace(ADOPTED, adopted_deadline=None), attempt(8, 1)).deadline is None


def test_a_shorter_ttl_cuts_an_adopted_deadline_too() -> None:
    assert with_attempt(ADOPTED, attempt(8, 1, ttl_s=1)).deadline == ZERO.after(2)
    assert with_attempt(ADOPTED, attempt(8, 1)).deadline == ZERO.after(4)


def test_last_sequence_and_last_sent_are_of_the_newest_attempt() -> None:
    assert (HOLDING.last_sequence, HOLDING.last_sent) == (7, ZERO)
    sent = with_attempt(with_attempt(HOLDING, attempt(8, 1)), attempt(9, 2))
    assert (sent.last_sequence, sent.last_sent) == (9, ZERO.after(2))


def test_vacating_from_the_moment_it_is_sent_until_a_later_renewal_has_committed() -> None:
    assert not HOLDING.vacating
    giving_up = with_attempt(HOLDING, attempt(8, 1, state=LeaseState.VACATED))
    assert giving_up.vacating
    assert with_attempt(giving_up, attempt(9, 2)).vacating
    renewed = settle(with_attempt(giving_up, attempt(9, 2)), attempt(9, 2).record, 101)
    assert renewed is not None
    assert not renewed.vacating
    gone = settle(giving_up, giving_up.attempts[0].record, 101)
    assert gone is not None
    assert gone.vacating


def test_attempts_are_bounded() -> None:
    tenure = HOLDING
    for number in range(MAX_ATTEMPTS):
        tenure = with_attempt(tenure, attempt(8 + number, number))
    with pytest.raises(ValueError, match="read back"):
        with_attempt(tenure, attempt(999, 999))


def test_settling_on_the_confirmed_record_changes_nothing_but_the_index() -> None:
    tenure = with_attempt(HOLDING, attempt(8, 1))
    assert settle(tenure, PLAIN, 105) == replace(tenure, index=105)


def test_settling_dates_by_the_attempt_that_the_record_names() -> None:
    tenure = HOLDING
    for number in (1, 2, 3):
        tenure = with_attempt(tenure, attempt(7 + number, number))
    settled = settle(tenure, attempt(9, 2).record, 101)
    assert settled is not None
    assert (settled.dated, settled.index, settled.deadline) == (ZERO.after(2), 101, ZERO.after(7))
    assert settled.attempts == (attempt(10, 3),)


def test_settling_gives_an_adopted_lease_a_date_of_its_own() -> None:
    settled = settle(with_attempt(ADOPTED, attempt(8, 1)), attempt(8, 1).record, 101)
    assert settled is not None
    assert (settled.dated, settled.adopted_deadline, settled.deadline) == (ZERO.after(1), None, ZERO.after(6))


@pytest.mark.parametrize(
    "foreign",
    [replace(PLAIN, holder="b"), replace(PLAIN, epoch=4), replace(PLAIN, nonce="of another life")],
)
def test_settling_on_a_record_that_is_not_ours_ends_the_tenure(foreign: LeaseRecord) -> None:
    assert settle(HOLDING, foreign, 101) is None


def test_a_refused_attempt_is_forgotten() -> None:
    tenure = with_attempt(with_attempt(HOLDING, attempt(8, 1, ttl_s=2)), attempt(9, 2))
    assert without_attempt(tenure, "n8") == replace(tenure, attempts=(attempt(9, 2),))


# ---------------------------------------------------------------------------------------------------- the observers


FIRST = look(None, PLAIN, 100, ZERO, after_gap=False)


def test_the_first_sight_counts_from_itself() -> None:
    wait_s = PLAIN.terms.takeover_wait_s
    assert look(None, PLAIN, 100, ZERO, after_gap=False) == Sight(3, 7, 100, ZERO, wait_s, wait_s, PLAIN.nonce)


def test_an_unchanged_record_keeps_its_sight() -> None:
    assert look(FIRST, PLAIN, 100, ZERO.after(3), after_gap=False) == FIRST


@pytest.mark.parametrize(
    "changed", [replace(PLAIN, sequence=8), replace(PLAIN, epoch=4), replace(PLAIN, epoch=2), replace(PLAIN, sequence=6)]
)
def test_time_starts_anew_on_a_change(changed: LeaseRecord) -> None:
    assert look(FIRST, changed, 101, ZERO.after(3), after_gap=False).since == ZERO.after(3)


def test_time_starts_anew_when_the_index_goes_back() -> None:
    assert look(FIRST, PLAIN, 99, ZERO.after(3), after_gap=False) == replace(FIRST, index=99, since=ZERO.after(3))


def test_time_starts_anew_after_a_gap_in_which_the_holder_wrote() -> None:
    again = replace(PLAIN, nonce="another")
    assert look(FIRST, again, 101, ZERO.after(3), after_gap=True) == replace(FIRST, index=101, since=ZERO.after(3), nonce="another")


@pytest.mark.parametrize("index", [100, 105])
def test_a_gap_in_which_the_holder_did_not_write_costs_no_time(index: int) -> None:
    """Consul elects for 3 s and drops the dead holder's session: whoever saw the lease before has waited already."""
    assert look(FIRST, PLAIN, index, ZERO.after(3), after_gap=True) == replace(FIRST, index=index)


def test_a_lock_that_fell_off_is_no_life_of_the_holder() -> None:
    released = look(FIRST, PLAIN, 105, ZERO.after(3), after_gap=False)
    assert released == replace(FIRST, index=105)
    assert look(released, PLAIN, 104, ZERO.after(4), after_gap=False).since == ZERO.after(4)


def test_the_wait_is_the_longer_of_the_record_and_the_one_before() -> None:
    short, long = Terms(1.0, 0.5).takeover_wait_s, PLAIN.terms.takeover_wait_s
    shortened = look(FIRST, replace(PLAIN, sequence=8, terms=Terms(1.0, 0.5)), 101, ZERO, after_gap=False)
    assert (shortened.record_wait_s, shortened.wait_s) == (short, long)
    confirmed = look(shortened, replace(PLAIN, sequence=9, terms=Terms(1.0, 0.5)), 102, ZERO, after_gap=False)
    assert (confirmed.record_wait_s, confirmed.wait_s) == (short, short)


def test_expired_by_both_clocks_and_by_the_longest_wait_that_anybody_may_count() -> None:
    wait_ns = round(FIRST.wait_s * 1e9) + 1
    own = Terms(1.0, 0.1)
    assert not is_expired(FIRST, own, Instant(wait_ns, wait_ns - 10))
    assert not is_expired(FIRST, own, Instant(wait_ns - 10, wait_ns))
    assert is_expired(FIRST, own, Instant(wait_ns, wait_ns))
    assert not is_expired(FIRST, Terms(60.0, 1.0), Instant(wait_ns, wait_ns))


# ---------------------------------------------------------------------------------------------------- transactions

VOTES = (CountedVote("b", 8), CountedVote("c", 9))
VALUE = encode_record(PLAIN)
LOCK = Operation(Verb.LOCK, "pg/lease", session="mine", value=VALUE)


def test_formation_only_where_there_is_no_lease_and_on_every_word() -> None:
    assert lease.formation(PLAIN, "mine", VOTES) == (
        Operation(Verb.CHECK_NOT_EXISTS, "pg/lease"),
        Operation(Verb.CHECK_INDEX, "pg/formation/b", index=8),
        Operation(Verb.CHECK_INDEX, "pg/formation/c", index=9),
        LOCK,
    )


def test_renewal_only_by_the_session_that_locks_and_over_the_last_index() -> None:
    assert lease.renewal(PLAIN, "mine", 7) == (
        Operation(Verb.CHECK_SESSION, "pg/lease", session="mine"),
        Operation(Verb.CAS, "pg/lease", index=7, value=VALUE),
    )


def test_relock_over_a_key_that_is_locked_or_not() -> None:
    check = Operation(Verb.CHECK_INDEX, "pg/lease", index=7)
    assert lease.relock(PLAIN, "mine", Entry(b"", 7, None)) == (check, LOCK)
    assert lease.relock(PLAIN, "mine", Entry(b"", 7, "old")) == (check, Operation(Verb.UNLOCK, "pg/lease", session="old"), LOCK)


def test_vacating_writes_and_unlocks_in_one_step() -> None:
    assert lease.vacating(PLAIN, "mine", 7) == (
        Operation(Verb.CHECK_INDEX, "pg/lease", index=7),
        Operation(Verb.CHECK_SESSION, "pg/lease", session="mine"),
        Operation(Verb.UNLOCK, "pg/lease", session="mine", value=VALUE),
    )


def test_takeover_checks_every_vote_and_the_lease_as_seen() -> None:
    votes = (Operation(Verb.CHECK_INDEX, "pg/votes/b", index=8), Operation(Verb.CHECK_INDEX, "pg/votes/c", index=9))
    check = Operation(Verb.CHECK_INDEX, "pg/lease", index=7)
    assert lease.takeover(PLAIN, "mine", Entry(b"", 7, None), VOTES) == (*votes, check, LOCK)
    unlock = Operation(Verb.UNLOCK, "pg/lease", session="old")
    assert lease.takeover(PLAIN, "mine", Entry(b"", 7, "old"), VOTES) == (*votes, check, unlock, LOCK)
