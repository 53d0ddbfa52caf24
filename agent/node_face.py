"""What the HTTP edge may ask of this agent: everything is read from memory, nothing is decided. Implements web.source.StatusSource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import agent
from agent.clock import Clock
from agent.control_loop import GroupLoop
from agent.coordination.coordinator import Coordinator
from agent.coordination.history import HistoryEntry, read_history
from agent.coordination.intents import StoredIntent, decode_stored, submit
from agent.coordination.lease import intent_key
from agent.decision.context import BLIND_PERIODS
from agent.decision.view import IntentKind
from agent.errors import CoordinationRefused
from agent.instant import NANOSECONDS, Instant, observer_elapsed_s
from agent.observation.scheduler import CheckState, Scheduler
from agent.reporting.audit import Audit, EventKind
from agent.reporting.explanation import Explanation, build_explanation
from agent.reporting.serving import ServesAs, serves_as
from agent.reporting.status import CheckStatus, CoordinationStatus, GroupStatus, StatusDocument, build_group_status, sync_wait_status

TIMEOUT_S = 5.0
HEARD_WITHIN_S = 10.0
"""An agent that has not heard its coordinator for so long is not ready (for three renew periods, if those are longer)."""


class NodeFace:
    """One agent, as seen over HTTP."""

    def __init__(
        self, node: str, clock: Clock, coordinator: Coordinator, groups: Mapping[str, GroupLoop], scheduler: Scheduler, audit: Audit
    ) -> None:
        self._node = node
        self._clock = clock
        self._coordinator = coordinator
        self._groups = groups
        self._scheduler = scheduler
        self._audit = audit

    def status(self) -> StatusDocument:
        """Everything this node has to say, as of now."""
        now = self._clock.now()
        age_s = self._answered_age_s(now)
        return StatusDocument(
            version=agent.__version__,
            node=self._node,
            wall_s=self._clock.wall_s(),
            coordination=CoordinationStatus(self._coordinator.description, self._is_up(age_s), age_s),
            checks=tuple(self._check(state, now) for _, state in sorted(self._scheduler.states().items())),
            groups=tuple(status for name in sorted(self._groups) if (status := self._group(name, now)) is not None),
        )

    def _is_up(self, age_s: float | None) -> bool:
        """A node without groups asks nothing of its coordinator. In one in which nothing happens a group hears once in a renew period."""
        periods_s = (BLIND_PERIODS * loop.view.group.renew_s for loop in self._groups.values() if loop.view is not None)
        return not self._groups or (age_s is not None and age_s <= max([HEARD_WITHIN_S, *periods_s]))

    def _answered_age_s(self, now: Instant) -> float | None:
        answered = [loop.view.coordination.answered for loop in self._groups.values() if loop.view is not None]
        ages = [observer_elapsed_s(moment, now) for moment in answered if moment is not None]
        return min(ages, default=None)

    def _group(self, name: str, now: Instant) -> GroupStatus | None:
        loop = self._groups[name]
        if loop.view is None or loop.decision is None:
            return None
        decision = loop.decision
        acting = [row for row in decision.rules if not row.name.endswith("-busy")]
        rule = acting[0].name if acting else ""
        status = build_group_status(loop.fresh_view(), decision.situation.value, decision.reason, rule, decision.outlook.blocking, now)
        return replace(status, sync_wait=sync_wait_status(decision.sync_wait, now))

    def _check(self, state: CheckState, now: Instant) -> CheckStatus:
        last, since = state.last, state.since
        return CheckStatus(
            name=state.name,
            kind=type(state.scheduled.check).kind,
            level=state.scheduled.check.level.value,
            status=state.status.value,
            sentence="" if last is None else last.sentence,
            since_wall_s=None if since is None else self._clock.wall_s() - (now.boot_ns - since.boot_ns) / NANOSECONDS,
            latency_s=None if last is None else last.latency_s,
            last_run_wall_s=state.ran_wall_s,
        )

    def readiness(self) -> tuple[bool, str]:
        """Whether the agent runs and heard the coordinator."""
        for name, loop in self._groups.items():
            if loop.failed is not None:
                return False, f"the loop of group {name} has ended"
            if loop.decision is None:
                return False, f"group {name} was not looked at yet"
        age_s = self._answered_age_s(self._clock.now())
        if not self._is_up(age_s):
            return False, "the coordinator does not answer"
        return True, "running"

    def serves(self, group: str) -> ServesAs | None:
        loop = self._groups.get(group)
        return None if loop is None or loop.view is None else serves_as(loop.fresh_view(), self._clock.now())

    def explain(self, group: str) -> Explanation | None:
        loop = self._groups.get(group)
        return None if loop is None or loop.decision is None else build_explanation(group, self._node, loop.decision)

    def audit(self) -> Audit:
        return self._audit

    async def history(self, group: str) -> tuple[HistoryEntry, ...]:
        return await read_history(self._coordinator, group, TIMEOUT_S)

    async def intent(self, group: str, identity: str) -> StoredIntent | None:
        key = intent_key(group, identity)
        snapshot = await self._coordinator.read(key, TIMEOUT_S)
        entry = snapshot.entries.get(key)
        return None if entry is None else decode_stored(entry.value)

    async def submit_intent(self, kind: IntentKind, group: str, node: str | None, who: str, why: str) -> str:
        """Store an operator's intent. It speaks of the epoch that this node sees now."""
        loop = self._groups.get(group)
        record = None if loop is None or loop.view is None else loop.view.lease.record
        if record is None:
            raise CoordinationRefused(f"group {group} has no lease that this node can read")
        identity = await submit(self._coordinator, self._clock, group, kind, node, who, why, TIMEOUT_S)
        self._audit.note(EventKind.INTENT_SUBMITTED, group, record.epoch, f"{kind.value} by {who}: {why}", identity=identity)
        return identity
