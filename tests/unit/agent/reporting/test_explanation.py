from __future__ import annotations

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
