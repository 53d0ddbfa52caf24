from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from agent.coordination.lease import RESERVED, Debt, LeaseState, Position, Promotion, Terms
from agent.decision import records
from agent.decision.context import Context
from agent.instant import Instant
from tests.scenarios.building import context
from tests.scenarios.words import merge

SYNC: Mapping[str, Any] = {"node": "pg1", "group": {"durability": "sync"}}
GROWN = {"sync_names": ["pg2"], "sync_effective_lsn": 4000, "replicas": [{"name": "pg2", "sync": True}]}


def test_the_first_record() -> None:
    record = records.first_record(context({"lease": "none"}))
    assert (record.epoch, record.sequence, record.holder, record.sync_set) == (1, 1, "pg2", None)
    assert (record.voters, record.votes_needed) == (("pg1", "pg2", "pg3"), 2)


def test_a_taker_goes_above_every_epoch_it_ever_saw_and_inherits_what_must_not_be_forgotten() -> None:
    given = {"lease": {"state": "vacated", "debt": [5, "pg3", 4.0], "paused": False, "heir": "pg2"}, "group": {"durability": "sync"}}
    record = records.taken_record(context({**given, "highest_epoch": 11}), "why")
    assert (record.epoch, record.holder, record.state, record.heir, record.cause) == (12, "pg2", LeaseState.HELD, None, "why")
    assert record.debt == Debt(5, "pg3", 4.0)
    assert record.promotions == (Promotion(7, "pg1", 3, 2, 3000), Promotion(12, "pg2", 4, 3, RESERVED))
    assert record.sync_set == ()


def test_a_taker_names_the_cluster_when_nobody_did() -> None:
    record = records.taken_record(context({"lease": {"system_identifier": None}}), "")
    assert record.system_identifier == "7300000000000000001"


def test_a_give_up_and_a_switchover() -> None:
    plain = records.vacated_record(context({"node": "pg1", "tenure": {"attempts": [{}, {}]}}), "it crashed")
    assert (plain.state, plain.sequence, plain.heir, plain.final_position, plain.cause) == (
        LeaseState.VACATED,
        43,
        None,
        None,
        "it crashed",
    )
    named = records.vacated_record(context({"node": "pg1", "intents": [{"kind": "switchover", "to": "pg3"}]}), "switchover")
    assert (named.heir, named.final_position) == ("pg3", Position(3, 5000))


def test_a_renewal_with_nothing_to_say_changes_only_its_sequence() -> None:
    ctx = context({"node": "pg1"})
    assert ctx.tenure is not None
    assert records.wanted_record(ctx) == ctx.tenure.record
    assert records.renewed_record(ctx).sequence == 41


def test_a_renewal_carries_changed_terms_and_voters_and_ends_a_debt() -> None:
    ctx = context(
        {"node": "pg1", "group": {"ttl": 7.0}, "lease": {"ttl": 5.0, "voters": ["pg1"], "votes_needed": 1, "debt": [6, "pg3", 4.0]}}
    )
    wanted = records.wanted_record(ctx)
    assert (wanted.terms.ttl_s, wanted.voters, wanted.votes_needed, wanted.debt) == (7.0, ("pg1", "pg2", "pg3"), 2, None)


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({"lease": {"promotions": []}}, [(7, 3, 2, 3000)]),
        ({"lease": {"promotions": []}, "service": {"state": "standby"}}, [(7, 4, 3, 0)]),
        ({"lease": {"promotions": [[7, "pg1", 9, 3, 0]]}, "service": {"state": "standby"}}, [(7, 9, 3, 0)]),
        ({"lease": {"promotions": [[6, "pg1", 9, 3, 0]]}, "service": {"state": "standby"}}, [(6, 9, 3, 0), (7, 10, 3, 0)]),
        ({"lease": {"promotions": []}, "service": {"state": "standby", "upstream": "pg3"}}, []),
        ({"lease": {"promotions": []}, "service": {"state": "standby", "upstream": "pg3", "receiving": True}}, []),
        ({"lease": {"promotions": []}, "service": {"state": "standby", "position": "none"}}, []),
        ({"lease": {"promotions": []}, "service": {"position": "none"}}, []),
        ({"lease": {"promotions": []}, "service": {"history": []}}, []),
        ({"lease": {"promotions": [[7, "pg1", 3, 2, 0]]}}, [(7, 3, 2, 3000)]),
        ({"lease": {"promotions": [[7, "pg1", 3, 2, 3000]]}}, [(7, 3, 2, 3000)]),
        ({"service": {"position": [4, 6000], "history": [[3, 5500]]}}, [(7, 3, 2, 3000), (7, 4, 3, 5500)]),
    ],
)
def test_a_promotion_is_recorded_once(change: Mapping[str, Any], known: list[tuple[int, ...]]) -> None:
    wanted = records.wanted_record(context(merge({"node": "pg1"}, change)))
    assert [(p.epoch, p.timeline, p.parent_timeline, p.switch_lsn) for p in wanted.promotions] == known


def test_only_the_latest_promotions_are_kept() -> None:
    many = [[n, "pg1", n, n - 1, n] for n in range(40, 90)]
    wanted = records.wanted_record(context({"node": "pg1", "lease": {"promotions": many}}))
    assert len(wanted.promotions) == records.KEPT_PROMOTIONS
    assert wanted.promotions[-1].epoch == 7


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"lease": {"sync_set": []}, "service": GROWN}, ("pg2",)),
        ({"lease": {"sync_set": []}, "service": {**GROWN, "state": "standby"}}, ()),
        ({"lease": {"sync_set": [], "key": "unreadable"}, "service": GROWN}, ()),
        ({"lease": {"sync_set": []}, "service": GROWN, "in_flight": ["SetSyncNames"]}, ()),
        ({"lease": {"sync_set": []}, "service": GROWN, "outcomes": {"SetSyncNames": {"ok": False}}}, ()),
        ({"lease": {"sync_set": []}, "service": GROWN, "outcomes": {"SetSyncNames": {}}}, ("pg2",)),
        ({"lease": {"sync_set": None}, "in_flight": ["SetSyncNames"]}, ()),
        ({}, ("pg2",)),
    ],
)
def test_the_set_grows_only_on_firm_ground(change: Mapping[str, Any], wanted: tuple[str, ...]) -> None:
    assert records.wanted_record(context(merge(SYNC, change))).sync_set == wanted


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({}, None),
        ({"service": {"sync_names": []}}, ("pg2",)),
        ({"outcomes": {"SetSyncNames": {"ok": False}}}, ("pg2",)),
        ({"lease": {"sync_set": []}, "service": {"sync_names": ["pg2"], "replicas": [{"name": "pg3"}]}}, ("pg3",)),
        (
            {
                "lease": {"sync_set": []},
                "service": {"sync_names": ["pg2"], "replicas": [{"name": "pg3"}]},
                "in_flight": [{"RenewLease": {"record": {"sync_set": ["pg2"]}}}],
            },
            None,
        ),
    ],
)
def test_the_service_is_never_told_to_forget_somebody_who_is_promised(change: Mapping[str, Any], names: tuple[str, ...] | None) -> None:
    assert records.wanted_names(context(merge(SYNC, change))) == names


def test_promised_is_who_is_in_any_record_that_counts_or_may_yet_count() -> None:
    ctx = context(
        merge(
            SYNC,
            {
                "lease": {"sync_set": ["a"]},
                "tenure": {"record": {"sync_set": ["b"]}, "attempts": [{"sync_set": ["c"]}]},
                "in_flight": [{"RenewLease": {"record": {"sync_set": ["d"]}}}, "CastVote"],
            },
        )
    )
    assert records.promised(ctx) == {"a", "b", "c", "d"}
    assert records.promised(context({"lease": "none"})) == frozenset()


@pytest.mark.parametrize(
    ("change", "paused"),
    [
        ({}, False),
        ({"lease": {"paused": True}}, True),
        ({"intents": [{"kind": "pause"}]}, True),
        ({"lease": {"paused": True}, "intents": [{"kind": "resume"}], "fences": {"suspended": False}}, False),
        ({"lease": {"paused": True}, "intents": [{"kind": "resume"}], "fences": {"suspended": True}}, True),
        ({"lease": {"paused": True}, "intents": [{"kind": "resume"}], "fences": {"suspended": False, "armed": "none"}}, True),
        ({"lease": {"paused": True}, "intents": [{"kind": "resume"}], "fences": {"suspended": False}, "tenure": {"sent": "9s ago"}}, True),
        ({"intents": [{"kind": "resume"}], "fences": {"armed": "none"}}, False),
    ],
)
def test_pause_and_resume(change: Mapping[str, Any], paused: bool) -> None:
    assert records.wanted_record(context(merge({"node": "pg1"}, change))).paused is paused


@pytest.mark.parametrize(
    ("service", "promotions"),
    [
        ({}, [(6, 3, 2, 3000), (8, 4, 3, 0)]),
        ({"position": [2, 5000]}, [(6, 3, 0, 0), (8, 4, 2, 0)]),
        ({"position": "none"}, [(6, 3, 0, 0)]),
        ({"history": []}, [(6, 3, 0, 0), (8, 4, 3, 0)]),
    ],
)
def test_a_taker_completes_what_its_predecessor_could_not_record(service: Mapping[str, Any], promotions: list[tuple[int, ...]]) -> None:
    ctx = context({"lease": {"state": "vacated", "promotions": [[6, "pg1", 3, 0, 0]]}, "service": service})
    assert [(p.epoch, p.timeline, p.parent_timeline, p.switch_lsn) for p in records.taken_record(ctx, "").promotions] == promotions


def _leading(confirmed: Terms, configured: Terms, *, dated_s: float, armed_s: float, prior_wait_s: float = 0.0) -> Context:
    """A leader whose confirmed record has these terms; moments are seconds on a clock of this test's own."""
    ctx = context({"node": "pg1"})
    assert ctx.tenure is not None
    zero = Instant(0, 0)
    record = replace(ctx.tenure.record, terms=confirmed, prior_wait_s=prior_wait_s)
    tenure = replace(ctx.tenure, record=record, dated=zero.after(dated_s), attempts=())
    fences = replace(ctx.view.fences, armed_deadline=zero.after(armed_s))
    return replace(ctx, view=replace(ctx.view, tenure=tenure, fences=fences, group=replace(ctx.group, terms=configured)))


def test_shorter_terms_carry_the_longer_wait_until_the_watchdog_has_gone_over() -> None:
    """(holes A11) An agent that dies after it sent a shorter ttl leaves a watchdog that is armed by the longer one."""
    long, short = Terms(6.0, 0.5), Terms(2.0, 0.5)
    ctx = _leading(long, short, dated_s=0.0, armed_s=6.0)
    first = records.wanted_record(ctx)
    assert (first.terms, first.prior_wait_s) == (short, long.takeover_wait_s)
    confirmed = _leading(short, short, dated_s=1.0, armed_s=6.0, prior_wait_s=long.takeover_wait_s)
    assert records.wanted_record(confirmed).prior_wait_s == long.takeover_wait_s, "its watchdog is armed beyond the shorter deadline"
    gone_over = _leading(short, short, dated_s=5.0, armed_s=7.0, prior_wait_s=long.takeover_wait_s)
    assert records.wanted_record(gone_over).prior_wait_s == 0.0


def test_longer_terms_carry_no_prior_wait() -> None:
    assert records.wanted_record(_leading(Terms(2.0, 0.5), Terms(6.0, 0.5), dated_s=0.0, armed_s=2.0)).prior_wait_s == 0.0
