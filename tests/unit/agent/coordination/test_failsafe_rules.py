from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.coordination import failsafe_rules as rules
from agent.coordination.failsafe_rules import Answer, KeptPromise, Promise, Question, Standing
from agent.coordination.lease import Attempt, Debt, LeaseRecord, LeaseState, Tenure, Terms, settle, with_attempt
from agent.decision.quorum import votes_needed
from agent.instant import Instant

NOW = Instant(1_000 * 10**9, 700 * 10**9)
TERMS = Terms(2.0, 0.3)
WAIT_S = TERMS.takeover_wait_s
QUESTION = Question("pg", 7, 40, "n1", "pg1", "life-1", "r40", WAIT_S)
RECORD = LeaseRecord("pg", "pg1", "life-1", 7, 40, "r40", TERMS, LeaseState.HELD, ("pg1", "pg2", "pg3"), 2)
TENURE = Tenure(RECORD, 900, "s", dated=NOW.after(-3))
FREE = Standing(
    node="pg2",
    leads=False,
    highest_epoch=7,
    hears=True,
    record=RECORD,
    went_back=False,
    takeover_is_out=False,
    vote_is_out=False,
    lost=False,
    called_unusable_since=None,
    patience_s=10.0,
)


def at(seconds: float) -> Instant:
    return NOW.after(seconds)


def sent(record: LeaseRecord, ago_s: float = 0.1) -> Attempt:
    return Attempt(record, at(-ago_s))


# ------------------------------------------------------------------ n - k + 1


@pytest.mark.parametrize("n", range(1, 8))
def test_k_votes_and_enough_promises_always_share_a_voter(n: int) -> None:
    """Exhaustively: whoever votes and whoever promises, when each voter does only one of the two."""
    voters, k = range(n), votes_needed(n)
    needed = rules.promises_needed(n, k)
    assert 1 <= needed <= n
    for promised in (set(c) for size in range(needed, n + 1) for c in combinations(voters, size)):
        assert len(set(voters) - promised) < k


@pytest.mark.parametrize("n", range(1, 8))
def test_one_promise_less_would_leave_a_quorum_of_votes(n: int) -> None:
    k = votes_needed(n)
    assert n - (rules.promises_needed(n, k) - 1) >= k


@pytest.mark.parametrize(("n", "needed"), [(1, 1), (2, 2), (3, 2), (4, 2), (5, 3), (6, 3), (7, 4)])
def test_how_many_it_takes(n: int, needed: int) -> None:
    assert rules.promises_needed(n, votes_needed(n)) == needed


def test_a_record_that_asks_for_no_votes_is_never_held_by_promises() -> None:
    assert rules.extended_from({"a": NOW, "b": NOW}, [(frozenset({"a", "b"}), 0)]) is None


VOTERS = st.frozensets(st.sampled_from("abcdefg"), min_size=1)


@given(st.lists(VOTERS, min_size=1, max_size=3), st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 5)), st.data())
def test_no_set_of_voters_has_k_left_who_did_not_promise_since_the_date(
    sets: list[frozenset[str]], rounds: dict[str, int], data: st.DataObject
) -> None:
    """For each record that a takeover could be built upon; the date is the oldest question counted, and no newer one would do."""
    promises = {name: at(number) for name, number in rounds.items()}
    wanted = [(voters, votes_needed(len(voters))) for voters in sets]
    since = rules.extended_from(promises, wanted)

    def suffices(moment: Instant) -> bool:
        bound = {name for name, asked in promises.items() if asked.boot_ns >= moment.boot_ns}
        return all(len(voters - bound) < k for voters, k in wanted)

    if since is None:
        assert not suffices(at(0))
        return
    assert suffices(since)
    newer = data.draw(st.sampled_from([at(n) for n in range(7)]))
    assert newer.boot_ns <= since.boot_ns or not suffices(newer)


def test_the_date_is_the_earlier_by_each_clock() -> None:
    ran_apart = {"a": Instant(5, 9), "b": Instant(6, 8)}
    assert rules.extended_from(ran_apart, [(frozenset({"a", "b"}), 1)]) == Instant(5, 8)


# ------------------------------------------------------------------ the holder


def test_promises_date_the_lease_by_the_oldest_question_counted() -> None:
    """Round 1: pg2 answers, pg3's answer is lost. Round 2: pg3 answers, pg2 is gone (holes.md A6)."""
    first = rules.with_promise(rules.with_round(TENURE, at(0)), "pg2", at(0))
    assert (first.promised, first.deadline) == (at(0), at(2))
    second = rules.with_round(first, at(0.4))
    assert (second.promised, second.asked) == (at(0), at(0.4))
    assert rules.with_promise(second, "pg3", at(0.4)).deadline == at(2.4)
    assert rules.with_promise(second, "stranger", at(0.4)).deadline == at(2)


def test_an_answer_that_comes_late_takes_nothing_back() -> None:
    tenure = rules.with_promise(rules.with_round(rules.with_round(TENURE, at(0)), at(0.4)), "pg2", at(0.4))
    assert rules.with_promise(tenure, "pg2", at(0)) == tenure
    assert tenure.deadline == at(2.4)


def test_the_own_promise_alone_is_not_enough_for_three_and_is_for_one() -> None:
    assert rules.with_round(TENURE, at(0)).deadline == TENURE.deadline
    alone = replace(TENURE, record=replace(RECORD, voters=("pg1",), votes_needed=1))
    assert rules.with_round(alone, at(0)).deadline == at(2)
    assert rules.voters_asked(alone) == ()


def test_a_list_that_was_sent_and_may_not_be_confirmed_counts_beside_the_confirmed_one() -> None:
    """A5: `I am alone now` was sent, its answer is lost. The others are still asked, and so are those of the new list."""
    undecided = with_attempt(TENURE, sent(replace(RECORD, sequence=41, nonce="r41", voters=("pg1",), votes_needed=1)))
    assert rules.voters_asked(undecided) == ("pg2", "pg3")
    assert rules.with_round(undecided, at(0)).promised is None
    grown = with_attempt(TENURE, sent(replace(RECORD, nonce="r41", voters=("pg1", "pg2", "pg3", "pg4", "pg5"), votes_needed=3)))
    assert rules.voters_asked(grown) == ("pg2", "pg3", "pg4", "pg5")
    some = rules.with_promise(rules.with_round(grown, at(0)), "pg2", at(0))
    assert some.promised is None, "2 of 3 are enough, 2 of 5 are not"
    assert rules.count_of(some) == (2, 3)
    assert rules.with_promise(some, "pg5", at(0)).promised == at(0)
    foreign = rules.with_promise(rules.with_promise(rules.with_round(grown, at(0)), "pg4", at(0)), "pg5", at(0))
    assert foreign.promised is None, "of the confirmed three only the own promise is there"


def test_a_shorter_ttl_cuts_the_promised_deadline_when_it_is_sent() -> None:
    tenure = rules.with_promise(rules.with_round(TENURE, at(0)), "pg2", at(0))
    assert with_attempt(tenure, sent(replace(RECORD, nonce="x", terms=Terms(0.5, 0.3)))).deadline == at(0.5)
    assert with_attempt(tenure, sent(replace(RECORD, nonce="x", terms=Terms(9.0, 0.3)))).deadline == at(2)


def test_a_give_up_that_was_sent_ends_all_promises() -> None:
    tenure = rules.with_promise(rules.with_round(TENURE, at(0)), "pg2", at(0))
    given_up = with_attempt(tenure, sent(replace(RECORD, nonce="v", state=LeaseState.VACATED)))
    assert (given_up.deadline, given_up.promises) == (TENURE.deadline, ())
    assert rules.with_promise(given_up, "pg3", at(0.5)) == given_up


def test_a_renewal_that_commits_keeps_the_promises_of_its_epoch_and_the_later_date_counts() -> None:
    renewed = replace(RECORD, sequence=41, nonce="r41")
    tenure = with_attempt(rules.with_promise(rules.with_round(TENURE, at(0)), "pg2", at(0)), Attempt(renewed, at(-1)))
    settled = settle(tenure, renewed, 901)
    assert settled is not None
    assert (settled.deadline, settled.is_by_promises) == (at(2), True)
    newer = replace(settled, dated=at(1))
    assert (newer.deadline, newer.is_by_promises) == (at(3), False)
    assert settle(tenure, replace(renewed, epoch=8), 902) is None


def test_a_question_carries_the_longest_wait_of_what_may_be_in_force() -> None:
    longer = sent(replace(RECORD, sequence=41, nonce="x", terms=Terms(6.0, 0.3)))
    question = rules.question_of(with_attempt(TENURE, longer), "life-2", "n2")
    assert question == Question("pg", 7, 41, "n2", "pg1", "life-2", "r40", Terms(6.0, 0.3).takeover_wait_s)
    shortened = replace(TENURE, record=replace(RECORD, prior_wait_s=60.0))
    assert rules.question_of(shortened, "life-2", "n2").wait_s == 60.0


# ------------------------------------------------------------------ the voter


def test_a_voter_with_nothing_out_promises() -> None:
    assert rules.why_not_promise(QUESTION, FREE, NOW) == ""


def test_a_voter_that_is_cut_off_promises_by_what_it_read_last() -> None:
    older = replace(FREE, hears=False, record=replace(RECORD, epoch=6, holder="pg3"), highest_epoch=6)
    assert rules.why_not_promise(QUESTION, older, NOW) == ""
    assert rules.why_not_promise(QUESTION, replace(FREE, hears=False, record=None, highest_epoch=0), NOW) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"node": "pg1"}, "own name"),
        ({"leads": True}, "holds a lease itself"),
        ({"highest_epoch": 8}, "epoch 8 has begun"),
        ({"went_back": True}, "went back"),
        ({"record": replace(RECORD, epoch=6)}, "another holder or epoch"),
        ({"record": replace(RECORD, holder="pg3")}, "another holder or epoch"),
        ({"record": replace(RECORD, holder="pg3"), "hears": False}, "another holder or epoch"),
        ({"record": replace(RECORD, state=LeaseState.VACATED)}, "given up"),
        ({"record": replace(RECORD, state=LeaseState.VACATED, debt=Debt(6, "pg3", 1.0)), "hears": False}, "given up"),
        ({"lost": True}, "lost its state folder"),
        ({"takeover_is_out": True}, "takeover"),
        ({"vote_is_out": True}, "vote"),
        ({"called_unusable_since": NOW.after(-10.1)}, "unusable for longer than patience"),
    ],
)
def test_what_forbids_a_promise(changes: dict[str, object], reason: str) -> None:
    assert reason in rules.why_not_promise(QUESTION, replace(FREE, **changes), NOW)  # type: ignore[arg-type]


def test_patience_is_not_over_yet() -> None:
    assert rules.why_not_promise(QUESTION, replace(FREE, called_unusable_since=NOW.after(-9.9)), NOW) == ""


def test_a_promise_lasts_for_the_longest_wait_that_anybody_counts() -> None:
    def wait_s(question_s: float = 1.0, before: Promise | None = None, record: LeaseRecord | None = None, own: Terms = TERMS) -> float:
        return rules.promise_to(replace(QUESTION, wait_s=question_s), before, own, record, NOW).wait_s

    assert wait_s() == WAIT_S
    assert wait_s(question_s=9.0) == 9.0
    assert wait_s(own=Terms(6.0, 0.3)) == Terms(6.0, 0.3).takeover_wait_s
    assert wait_s(record=replace(RECORD, prior_wait_s=30.0)) == 30.0
    assert wait_s(record=replace(RECORD, terms=Terms(8.0, 0.3))) == Terms(8.0, 0.3).takeover_wait_s
    assert wait_s(before=Promise(7, "pg1", 20.0, NOW.after(-19))) == 20.0, "its terms may still be armed"
    assert wait_s(before=Promise(7, "pg1", 20.0, NOW.after(-21))) == WAIT_S


def test_it_outlasts_the_deadline_that_it_extends_with_the_fence_and_clocks_that_run_apart() -> None:
    """A15: fence_budget is in it. The holder may run 1 % slow, the voter 1 % fast."""
    promise = rules.promise_to(QUESTION, None, TERMS, None, NOW)
    fenced_at_s = (TERMS.ttl_s + TERMS.fence_budget_s) / 0.99
    assert rules.is_in_force(promise, TERMS, None, NOW.after(fenced_at_s * 1.01 - 0.001))
    assert not rules.is_in_force(promise, TERMS, None, NOW.after(promise.wait_s + 1e-6))
    assert rules.is_in_force(promise, Terms(9.0, 0.3), None, NOW.after(promise.wait_s)), "own terms that grew count, too"
    slow_raw = Instant(NOW.boot_ns + 10**12, NOW.raw_ns + 10**9)
    assert rules.is_in_force(promise, TERMS, None, slow_raw), "both clocks have to say so"


@pytest.mark.parametrize(("epoch", "speaks"), [(6, True), (7, True), (8, False)])
def test_a_promise_speaks_of_its_epoch_and_of_the_past(epoch: int, speaks: bool) -> None:
    assert rules.speaks_of(Promise(7, "pg1", 1.0, NOW), epoch) is speaks
    assert rules.speaks_of(Promise(None, "", 1.0, NOW), epoch)


def test_only_a_give_up_of_that_very_epoch_frees_it() -> None:
    promise, given_up = Promise(7, "pg1", 1.0, NOW), replace(RECORD, state=LeaseState.VACATED)
    assert rules.is_freed_by(promise, given_up, "pg2")
    assert not rules.is_freed_by(promise, RECORD, "pg2")
    assert not rules.is_freed_by(promise, replace(given_up, epoch=8), "pg2")
    assert not rules.is_freed_by(promise, replace(RECORD, epoch=8, holder="pg2"), "pg2"), "a takeover that committed late (A9)"


def test_what_a_forgotten_life_may_have_promised_ends_when_nobody_it_could_bind_to_is_left() -> None:
    unknown = Promise(None, "", 1.0, NOW)
    assert unknown.kept is None
    assert not rules.is_freed_by(unknown, RECORD, "pg2")
    assert rules.is_freed_by(unknown, RECORD, "pg1")
    assert rules.is_freed_by(unknown, replace(RECORD, state=LeaseState.VACATED), "pg2")


def test_the_disk_keeps_no_moment() -> None:
    assert Promise(7, "pg1", 1.0, NOW).kept == Promise(7, "pg1", 1.0, at(9)).kept == KeptPromise(7, "pg1", 1.0)


@pytest.mark.parametrize("change", [{"member": "pg3"}, {"group": "other"}, {"epoch": 8}, {"nonce": "n0"}])
def test_only_the_answer_to_the_question_fits(change: dict[str, object]) -> None:
    answer = Answer("pg2", "pg", 7, "n1", promised=True)
    assert answer.fits(QUESTION, "pg2")
    assert not replace(answer, **change).fits(QUESTION, "pg2")  # type: ignore[arg-type]


# ------------------------------------------------------------------ the holder's disk


def test_renewals_that_change_nothing_of_weight_cost_no_write() -> None:
    kept = rules.kept_with((), RECORD)
    assert kept == (RECORD,)
    assert rules.kept_with(kept, replace(RECORD, sequence=41, nonce="r41", sync_set=("pg2",), cause="x")) == kept
    assert rules.kept_after(kept, replace(TENURE, record=replace(RECORD, sequence=41, nonce="r41"))) is kept


@pytest.mark.parametrize(
    "change",
    [{"voters": ("pg1", "pg2")}, {"votes_needed": 1}, {"terms": Terms(9.0, 0.3)}, {"paused": True}, {"prior_wait_s": 9.0}],
)
def test_what_promises_rest_on_is_kept_before_it_is_sent_and_until_it_is_decided(change: dict[str, object]) -> None:
    changed = replace(RECORD, sequence=41, nonce="r41", **change)  # type: ignore[arg-type]
    kept = rules.kept_with((RECORD,), changed)
    assert kept == (RECORD, changed)
    assert rules.kept_after(kept, replace(TENURE, attempts=(sent(changed),))) == kept
    assert rules.kept_after(kept, replace(TENURE, record=changed)) == (changed,)
    assert rules.kept_with(kept, replace(RECORD, epoch=8)) == (replace(RECORD, epoch=8),)


def test_a_restarted_agent_has_its_lease_by_disk_and_deadline() -> None:
    shorter = replace(RECORD, sequence=41, nonce="r41", terms=Terms(0.5, 0.3), voters=("pg1", "pg4"), votes_needed=1)
    tenure = rules.resumed((RECORD, shorter), "pg1", at(1.5), NOW)
    assert tenure is not None
    assert (tenure.epoch, tenure.index, tenure.dated, tenure.last_sequence) == (7, 0, None, 41)
    assert tenure.deadline == at(0), "the shorter ttl, from the earliest moment at which it may have been sent"
    assert rules.voters_asked(tenure) == ("pg2", "pg3", "pg4")
    plain = rules.resumed((RECORD,), "pg1", at(1.5), NOW)
    assert plain is not None
    assert plain.deadline == at(1.5)
    assert rules.with_promise(rules.with_round(plain, at(1)), "pg3", at(1)).deadline == at(3)


@pytest.mark.parametrize(
    "kept",
    [
        (),
        (replace(RECORD, holder="pg2"),),
        (replace(RECORD, paused=True),),
        (RECORD, replace(RECORD, nonce="v", state=LeaseState.VACATED)),
        (RECORD, replace(RECORD, epoch=8)),
    ],
)
def test_a_disk_that_does_not_fit_gives_no_lease(kept: tuple[LeaseRecord, ...]) -> None:
    assert rules.resumed(kept, "pg1", at(1.5), NOW) is None


def test_what_an_earlier_life_sent_after_what_is_read_may_yet_commit() -> None:
    later = replace(RECORD, sequence=41, nonce="r41", voters=("pg1", "pg4"))
    assert rules.undecided_of((RECORD, later), RECORD, at(1.5)) == (Attempt(later, at(-0.5)),)
    assert rules.undecided_of((RECORD, later), replace(RECORD, sequence=42), at(1.5)) == ()
    assert rules.undecided_of((replace(later, epoch=6),), RECORD, at(1.5)) == ()
