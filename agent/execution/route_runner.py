"""Executors of the commands about what follows the leader, and of hooks; and how long what is raised may stand.

Not journaled: a route is wanted as a state and looked at again and again, so nothing has to be resumed, and no disk stands between a
promotion and its address. What hooks were told is on disk once they have run: after a crash before that they run again.
"""

from __future__ import annotations

from typing import cast

import structlog

from actions.base import ActionTooLate
from actions.hook import Occasion, Role, RunHook
from agent.decision.command import Command, HookRole, RunHooks
from agent.decision.view import FenceLayer, Told
from agent.execution.hands import Hands
from agent.instant import has_passed, remaining_s

log = structlog.get_logger()


async def raise_routes(hands: Hands, command: Command) -> str:
    """Under the lease's guard, which is asked again right before and right after each change."""
    assert hands.routes is not None
    blocked = await hands.routes.raise_all(hands.routes_guard(command), lambda: lifetime_s(hands))
    return f"not raised, because it answers elsewhere: {', '.join(blocked)}" if blocked else "everything points here"


async def drop_routes(hands: Hands, _: Command) -> str:
    assert hands.routes is not None
    await hands.routes.drop_all()
    return "nothing points here"


async def probe_routes(hands: Hands, _: Command) -> str:
    assert hands.routes is not None
    await hands.routes.ask()
    return "asked"


async def run_hooks(hands: Hands, command: Command) -> str:
    """Run them in their order; a failure ends the run. Which of them ran is not remembered: the next try runs all."""
    order = cast("RunHooks", command)
    knowledge = hands.knowledge
    guard = hands.routes_guard(command) if order.role is HookRole.ELECTED else hands.fence_guard()
    occasion = Occasion(knowledge.group.name, order.epoch, Role(order.role.value), knowledge.node)
    said = [await RunHook(hook.command, hook.timeout_s, occasion).apply(guard) for hook in hands.hooks if hook.role is order.role]
    await hands.remembered.note_told(order.epoch, order.role)
    knowledge.told = Told(order.epoch, order.role)
    return f"hooks were told: {order.role.value}" + "".join(f"; {words}" for words in said if words)


async def renew_routes(hands: Hands) -> None:
    """At each moved deadline: what points here goes on with it."""
    if hands.routes is not None:
        await hands.routes.renew(lambda: lifetime_s(hands))


def lifetime_s(hands: Hands) -> float | None:
    """What is left of the own lease for what points here; None while a pause has stopped its clock. Raises ActionTooLate."""
    knowledge, tenure = hands.knowledge, hands.knowledge.tenure
    if tenure is None or knowledge.high.epoch > tenure.epoch:
        raise ActionTooLate("the lease is this node's no more")
    stands_still = tenure.record.paused and all(attempt.record.paused for attempt in tenure.attempts)
    if stands_still and (knowledge.fences.suspended or FenceLayer.WATCHDOG not in knowledge.group.required_fences):
        return None
    deadline, now = hands.owned_deadline, hands.clock.now()
    if deadline is None or has_passed(deadline, now):
        raise ActionTooLate("the lease ran out")
    return remaining_s(deadline, now)
