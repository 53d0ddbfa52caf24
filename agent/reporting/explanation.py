"""Which rules hold now, and what would happen if the leader died this second: the answer behind `quorate explain`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.decision.engine import Decision


@dataclass(frozen=True, slots=True)
class RuleHeld:
    """A row of the table that holds now: what it is about, its name and its sentence."""

    concern: str
    name: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`heirs` in their order; `rejected`: (member, why it is no heir); `blocking`: each reason why there would be no failover."""

    group: str
    node: str
    situation: str
    rules: tuple[RuleHeld, ...]
    failover_possible: bool
    heirs: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]
    blocking: tuple[str, ...]
    waiting: str = ""
    """For which standby commits wait in vain, and until when; empty: for none."""


def build_explanation(group: str, node: str, decision: Decision) -> Explanation:
    """The explanation of the last decision of `group` on `node`."""
    outlook = decision.outlook
    return Explanation(
        group=group,
        node=node,
        situation=decision.situation.value,
        rules=tuple(RuleHeld(r.concern.value, r.name, r.sentence) for r in decision.rules),
        failover_possible=outlook.possible,
        heirs=outlook.heirs,
        rejected=outlook.rejected,
        blocking=outlook.blocking,
        waiting="" if decision.sync_wait is None else decision.sync_wait.sentence,
    )
