from __future__ import annotations

from dataclasses import replace

from agent.decision.durability import SyncWait
from agent.decision.engine import decide
from agent.decision.memory import Memory
from agent.reporting.explanation import build_explanation
from tests.unit.agent.reporting.samples import NOW, leading_view


def test_it_tells_what_the_core_decided() -> None:
    decision = decide(Memory(), leading_view(), NOW)
    explanation = build_explanation("pg-main", "pg1", decision)
    assert (explanation.group, explanation.node, explanation.situation) == ("pg-main", "pg1", decision.situation.value)
    assert [(r.concern, r.name) for r in explanation.rules] == [(r.concern.value, r.name) for r in decision.rules]
    assert explanation.heirs == decision.outlook.heirs
    assert explanation.failover_possible is decision.outlook.possible
    assert explanation.blocking == decision.outlook.blocking
    assert explanation.waiting == ""


def test_it_tells_for_whom_commits_wait() -> None:
    wait = SyncWait(("pg2",), NOW.after(-2.0), NOW.after(1.0))
    explanation = build_explanation("pg-main", "pg1", replace(decide(Memory(), leading_view(), NOW), sync_wait=wait))
    assert explanation.waiting == "commits wait for pg2, silent so far: after 3 s of silence the set shrinks"
