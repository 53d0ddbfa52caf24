"""The little that the core carries from one turn to the next. Everything else is in the view. A restart may lose it without harm."""

from __future__ import annotations

from dataclasses import dataclass

from agent.decision.situation import Situation
from agent.instant import Instant


@dataclass(frozen=True, slots=True)
class Memory:
    """`situation` and since when. The rest: since when what the name says has been so; None: it is not."""

    situation: Situation = Situation.UNFORMED
    situation_since: Instant | None = None
    sync_missing_since: Instant | None = None
    """A standby that commits wait for does not stream, or has not answered since: its last sign of life."""
    unwritable_since: Instant | None = None
    """This node holds the lease and its service takes no writes, crashed or not: a loop of crashes is one outage."""
    vacancy_since: Instant | None = None
    """Somebody may take the lease. Votes may come long after it ran out; the others' final positions are waited for from here."""
    led_epoch: int | None = None
    """The newest epoch of this node's own in which its service was seen to take writes."""
