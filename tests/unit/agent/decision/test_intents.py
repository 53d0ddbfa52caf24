from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.decision.command import IntentOutcome
from agent.decision.intents import finished
from tests.scenarios.building import context
from tests.scenarios.words import merge

SWITCH = {"intents": [{"kind": "switchover"}]}


@pytest.mark.parametrize(
    ("given", "outcome", "sentence"),
    [
        (
            {"lease": {"paused": True}, "intents": [{"kind": "pause"}]},
            IntentOutcome.DONE,
            "paused: nobody takes over, nothing is started or stopped",
        ),
        ({"intents": [{"kind": "resume"}]}, IntentOutcome.DONE, "resumed: failover is possible again"),
        ({"lease": {"paused": True}, **SWITCH}, IntentOutcome.REFUSED, "the group is paused: resume it first"),
        ({"intents": [{"kind": "switchover", "to": "pg1"}]}, IntentOutcome.REFUSED, "pg1 leads already"),
        (
            {"members": {"pg2": "none", "pg3": {"problem": "full"}}, **SWITCH},
            IntentOutcome.REFUSED,
            "no member can lead: pg2: its agent is not heard; pg3: full",
        ),
        (
            {"members": {"pg3": {"problem": "full"}}, "intents": [{"kind": "switchover", "to": "pg3"}]},
            IntentOutcome.REFUSED,
            "pg3 cannot lead: full",
        ),
        (
            {"intents": [{"kind": "switchover", "to": "pg9"}]},
            IntentOutcome.REFUSED,
            "pg9 cannot lead: it is no member of the group",
        ),
        ({"intents": [{"kind": "switchover", "epoch": 6}]}, IntentOutcome.DONE, "pg1 leads"),
        ({"intents": [{"kind": "switchover", "epoch": 6, "to": "pg1"}]}, IntentOutcome.DONE, "pg1 leads"),
        (
            {"intents": [{"kind": "switchover", "epoch": 6, "to": "pg3"}]},
            IntentOutcome.REFUSED,
            "pg1 leads, not pg3: the epoch changed meanwhile",
        ),
        (
            {"intents": [{"kind": "switchover", "epoch": 6, "seen": "60s ago"}], "service": {"state": "standby"}},
            IntentOutcome.EXPIRED,
            "nothing came of it within 60 s; ask again",
        ),
    ],
)
def test_how_an_intent_ends(given: Mapping[str, Any], outcome: IntentOutcome, sentence: str) -> None:
    ended = finished(context(merge({"node": "pg1"}, given)))
    assert ended is not None
    assert ended[1:] == (outcome, sentence)


@pytest.mark.parametrize(
    "given",
    [
        {},
        SWITCH,
        {"intents": [{"kind": "pause"}]},
        {"lease": {"paused": True}, "intents": [{"kind": "resume"}]},
        {"intents": [{"kind": "switchover", "epoch": 6}], "service": {"state": "standby"}},
        {"members": {"pg2": "none", "pg3": "none"}, "service": {"state": "down"}, **SWITCH},
        {"tenure": "none", "intents": [{"kind": "resume"}]},
        {"lease": {"key": "absent"}, "intents": [{"kind": "resume"}]},
    ],
)
def test_what_is_not_over_yet(given: Mapping[str, Any]) -> None:
    assert finished(context(merge({"node": "pg1"}, given))) is None


@pytest.mark.parametrize(("first", "ends"), [("pause", None), ("resume", "i1")])
def test_pause_and_resume_end_in_the_order_in_which_they_were_written(first: str, ends: str | None) -> None:
    kinds = [first, "pause" if first == "resume" else "resume"]
    intents = [{"kind": kinds[0], "index": 5, "identity": "i1"}, {"kind": kinds[1], "index": 6, "identity": "i0"}]
    ended = finished(context({"node": "pg1", "intents": intents}))
    assert (None if ended is None else ended[0].identity) == ends
