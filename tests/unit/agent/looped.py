"""A group's control loop on a stage, with a stand-in that looks at the leader; everything it decides and ends is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.control_loop import GroupLoop, Reports
from agent.coordination.coordinator import Committed, Operation, Verb
from agent.coordination.lease import LeaseRecord, encode_record, lease_key, member_key
from agent.coordination.values import MemberValue, decode
from agent.decision.engine import Decision
from agent.decision.view import GroupSpec, View
from agent.execution.executor import Finished
from agent.instant import Instant
from tests.polling import eventually_async
from tests.unit.agent.stage import NODE, SPEC, TIMEOUT_S, Stage, staged

KEY = lease_key(SPEC.name)


@dataclass
class StandInProbe:
    """What an observer sees of any member's service. `error`: what it breaks with."""

    answer: tuple[bool | None, str] = (True, "it takes writes")
    asked: list[str] = field(default_factory=list)

    async def ask(self, node: str, timeout_s: float) -> tuple[bool | None, str]:
        assert timeout_s > 0
        self.asked.append(node)
        return self.answer


@dataclass
class Looped:
    """A group's loop on a stage."""

    stage: Stage
    loop: GroupLoop
    probe: StandInProbe
    decided: list[tuple[View, Decision]] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)

    async def until(self, what: str, within_s: float = 5.0) -> None:
        """Wait until a command of this kind has ended well."""
        await eventually_async(lambda: [f for f in self.finished if f.ok and type(f.command).__name__ == what], within_s, f"{what} is done")

    async def write(self, record: LeaseRecord, session: str | None = None) -> int:
        verb = Verb.SET if session is None else Verb.LOCK
        outcome = await self.stage.wires.real.transact((Operation(verb, KEY, session=session, value=encode_record(record)),), TIMEOUT_S)
        assert isinstance(outcome, Committed)
        return outcome.index

    async def heartbeat(self) -> MemberValue | None:
        value = await self.stage.stored(member_key(SPEC.name, NODE))
        return None if value is None else decode(MemberValue, value)


@asynccontextmanager
async def looped(spec: GroupSpec = SPEC, *, member: bool = True) -> AsyncIterator[Looped]:
    """Built, not started; stopped afterwards in any case. It has no session yet."""
    async with staged(spec) as stage:
        stage.knowledge.session = None
        if not member:
            stage.hands.service = stage.hands.watchdog = None
        probe = StandInProbe()
        decided: list[tuple[View, Decision]] = []
        finished: list[Finished] = []

        def note(view: View, decision: Decision, _: Instant) -> None:
            decided.append((view, decision))

        one = Looped(stage, GroupLoop(stage.hands, probe, Reports((note,), (finished.append,))), probe, decided, finished)
        try:
            yield one
        finally:
            for event in stage.service.wait.values():
                event.set()
            await one.loop.stop(0.5)
