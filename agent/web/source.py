"""What the HTTP edge asks of the agent: the one protocol between the two. The edge decides nothing and keeps nothing."""

from __future__ import annotations

from typing import Protocol

from agent.coordination.history import HistoryEntry
from agent.coordination.intents import StoredIntent
from agent.decision.view import IntentKind
from agent.reporting.audit import Audit
from agent.reporting.explanation import Explanation
from agent.reporting.serving import ServesAs
from agent.reporting.status import StatusDocument


class StatusSource(Protocol):
    """Plain methods answer from memory, at once. The others ask the coordinator: they have a deadline and raise `CoordinationError`."""

    def status(self) -> StatusDocument:
        """Everything this node has to say, as of now."""
        ...

    def readiness(self) -> tuple[bool, str]:
        """Whether the agent does its work (it runs, and it heard the coordinator), and a sentence why or why not."""
        ...

    def serves(self, group: str) -> ServesAs | None:
        """As what this node's service may be used right now; None: no such group."""
        ...

    def explain(self, group: str) -> Explanation | None:
        """Which rules hold and what would block a failover; None: no such group, or nothing was decided yet."""
        ...

    def audit(self) -> Audit:
        """The agent's events."""
        ...

    async def history(self, group: str) -> tuple[HistoryEntry, ...]:
        """The group's epochs, oldest first."""
        ...

    async def intent(self, group: str, identity: str) -> StoredIntent | None:
        """An intent, open or finished; None: there is none (any more)."""
        ...

    async def submit_intent(self, kind: IntentKind, group: str, node: str | None, who: str, why: str) -> str:
        """Store an operator's intent; its identity. Raises `CoordinationRefused` when it is refused."""
        ...
