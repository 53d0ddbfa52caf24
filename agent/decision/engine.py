"""The core: `decide(memory, view, now)` says what follows from what is known. Start reading here.

First the situation gets a name (diagnosis), then the table says what is done (rules), then the next moment at which anything could
change by time alone is worked out (timers). No clock, no randomness, no I/O, no logging: the same input gives the same decision, in the
agent, in the simulator and in a replay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.decision import explain, rules, timers
from agent.decision.command import Command
from agent.decision.context import Context
from agent.decision.diagnosis import diagnose
from agent.decision.durability import UNANSWERED, SyncWait, missing_since
from agent.decision.engines.base import Engine
from agent.decision.engines.postgres import PostgresEngine
from agent.decision.explain import Outlook
from agent.decision.memory import Memory
from agent.decision.rules import Concern, Rule
from agent.decision.situation import SENTENCES, Situation
from agent.decision.view import ServiceState, View
from agent.instant import Instant

_ROWS = {concern: tuple(row for row in rules.TABLE if row.concern is concern) for concern in Concern}

ENGINES: dict[str, Engine] = {"postgres": PostgresEngine()}


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows. `rules`: the rows that held, one a concern, also those that do nothing. `wake_up`: decide again by then."""

    memory: Memory
    situation: Situation
    rules: tuple[Rule, ...]
    commands: tuple[Command, ...]
    outlook: Outlook
    wake_up: Instant
    sync_wait: SyncWait | None = None

    @property
    def reason(self) -> str:
        """One sentence: the first row that acts, else the situation. Commits that wait in vain come before any row."""
        if self.situation is Situation.WAITING and self.sync_wait is not None:
            return self.sync_wait.sentence
        acting = [r for r in self.rules if not r.name.endswith("-busy")]
        return acting[0].sentence if acting else SENTENCES[self.situation]


def decide(memory: Memory, view: View, now: Instant) -> Decision:
    """Decide once. Total: any view gets a decision."""
    ctx = Context(view, memory, ENGINES[view.group.engine], now)
    ctx = replace(ctx, memory=_remember(ctx))
    situation = diagnose(ctx)
    if situation is not ctx.memory.situation or ctx.memory.situation_since is None:
        ctx = replace(ctx, memory=replace(ctx.memory, situation=situation, situation_since=now))
    held = tuple(row for row in (_first(ctx, concern) for concern in Concern) if row is not None)
    commands = tuple(command for row in held for command in row.commands(ctx))
    return Decision(ctx.memory, situation, held, commands, explain.outlook(ctx), timers.wake_up(ctx), ctx.sync_wait)


def _first(ctx: Context, concern: Concern) -> Rule | None:
    return next((row for row in _ROWS[concern] if row.holds(ctx)), None)


def _remember(ctx: Context) -> Memory:
    """Carry on the timers: each runs from the turn in which its condition was first seen, and ends with it."""
    tenure, memory = ctx.tenure, ctx.memory
    writable = ctx.state is ServiceState.PRIMARY

    def since(holds: bool, before: Instant | None) -> Instant | None:
        return None if not holds else before or ctx.now

    return replace(
        memory,
        sync_missing_since=_missing_since(ctx),
        unwritable_since=since(tenure is not None and not writable, memory.unwritable_since),
        vacancy_since=since(ctx.is_vacancy, memory.vacancy_since),
        led_epoch=tenure.epoch if tenure is not None and writable else memory.led_epoch,
    )


def _missing_since(ctx: Context) -> Instant | None:
    """Kept through a look that got no answer."""
    before = ctx.memory.sync_missing_since
    if ctx.tenure is None:
        return None
    if ctx.state in UNANSWERED:
        return before
    return missing_since(ctx.tenure.record, ctx.view.service, before, ctx.now) if ctx.state is ServiceState.PRIMARY else None
