"""A StatusSource that is a value: what the agent would say, as a test wants it said. And a client that tells all of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import structlog

from agent.configuration.model import ApiTls
from agent.coordination.history import HistoryEntry, HistoryReason
from agent.coordination.intents import StoredIntent
from agent.decision.command import IntentOutcome
from agent.decision.engine import decide
from agent.decision.memory import Memory
from agent.decision.view import IntentKind
from agent.errors import QuorateError
from agent.reporting.audit import Audit
from agent.reporting.explanation import Explanation, build_explanation
from agent.reporting.metrics import CheckKey, Metrics
from agent.reporting.serving import ServesAs
from agent.reporting.status import StatusDocument
from agent.web.access import Access
from agent.web.server import make_app, serve
from tests.unit.agent.reporting.samples import NOW, StillClock, document, leading_view

LEADS = ServesAs(leader=True, replica=False, sync=False, lag_bytes=None, sentence="it takes writes under a valid lease")
FOLLOWS = ServesAs(leader=False, replica=True, sync=True, lag_bytes=100, sentence="it is a streaming synchronous standby of pg1")

FORMED = HistoryEntry(1, "pg1", None, HistoryReason.FORMED, 10.0, 11.0, 1.0, 2, None, "the group was formed")
CRASHED = HistoryEntry(2, "pg2", "pg1", HistoryReason.CRASHED, 50.0, 50.4, 0.4, 3, 0, "pg1 crashed")


@dataclass
class Face:
    """What the agent would say."""

    document: StatusDocument = field(default_factory=document)
    ready: tuple[bool, str] = (True, "it heard the coordinator 0.1 s ago")
    as_what: ServesAs = LEADS
    explanation: Explanation | None = field(
        default_factory=lambda: build_explanation("pg-main", "pg1", decide(Memory(), leading_view(), NOW))
    )
    entries: tuple[HistoryEntry, ...] = (FORMED, CRASHED)
    intents: dict[str, StoredIntent] = field(default_factory=dict)
    ends_as: tuple[IntentOutcome, str] | None = (IntentOutcome.DONE, "pg2 leads")
    error: QuorateError | None = None
    hangs: bool = False
    events: Audit = field(default_factory=lambda: Audit(StillClock(), structlog.get_logger()))

    def status(self) -> StatusDocument:
        return self.document

    def readiness(self) -> tuple[bool, str]:
        return self.ready

    def serves(self, group: str) -> ServesAs | None:
        return None if self.document.group(group) is None else self.as_what

    def explain(self, group: str) -> Explanation | None:
        return self.explanation if group == "pg-main" else None

    def audit(self) -> Audit:
        return self.events

    async def history(self, group: str) -> tuple[HistoryEntry, ...]:
        await self._trouble()
        return self.entries if group == "pg-main" else ()

    async def intent(self, group: str, identity: str) -> StoredIntent | None:
        await self._trouble()
        return self.intents.get(f"{group}/{identity}")

    async def submit_intent(self, kind: IntentKind, group: str, node: str | None, who: str, why: str) -> str:
        await self._trouble()
        identity = f"i{len(self.intents) + 1}"
        outcome, sentence = self.ends_as or (None, "")
        self.intents[f"{group}/{identity}"] = StoredIntent(kind, node, 3, who, why, 0.0, outcome, sentence)
        return identity

    async def _trouble(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def serving(face: Face, access: Access | None = None, tls: ApiTls | None = None) -> AsyncIterator[int]:
    """The real server on a loopback port, as the agent starts it; its port."""
    metrics = Metrics()
    metrics.keep([CheckKey("pg-alive", "postgres", "liveness")], ["pg-main"])
    running = await serve(make_app(face, metrics, access or Access()), "127.0.0.1", 0, tls)
    try:
        yield running.port
    finally:
        await running.close()


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]


async def ask(port: int, path: str, method: str = "GET", **options: object) -> Said:
    """One request; `options` are aiohttp's."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
        session.request(method, f"http://127.0.0.1:{port}{path}", **options) as answer,  # type: ignore[arg-type]
    ):
        return Said(answer.status, await answer.read(), answer.headers)
