"""Executors of the commands that change the local service. Each is journaled from begin to end; afterwards the facts are read anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import structlog

from actions.base import ActionError
from agent.decision.command import (
    Command,
    FenceService,
    FollowLeader,
    PromoteService,
    RejoinService,
    SetSyncNames,
    StopReceiving,
)
from agent.disk import StorageError
from agent.errors import QuorateError
from agent.execution.hands import Hands
from agent.execution.journal import JournalOutcome

log = structlog.get_logger()


@asynccontextmanager
async def _journaled(hands: Hands, command: Command) -> AsyncIterator[str]:
    """Begin and end an entry of the journal around a command; an entry without an end is what a crash or a fence leaves."""
    entry = await hands.journal.begin(type(command).__name__, command.epoch, hands.knowledge.group.name)
    cancelled = False
    try:
        yield entry
    except asyncio.CancelledError:
        cancelled = True  # a fence waits for this to be over, and a service that hangs gives no answer: nothing is asked of it
        raise
    except (ActionError, QuorateError) as error:
        await hands.journal.end(entry, JournalOutcome.FAILED, str(error))
        raise
    else:
        await hands.journal.end(entry, JournalOutcome.DONE, "")
    finally:
        if not cancelled:
            await hands.refresh()


async def fence(hands: Hands, command: Command) -> str:
    """Kill first, write the journal after: nothing may stand between a fence and its effect, and a full disk does not undo the proof."""
    order = cast("FenceService", command)
    try:
        await hands.the_service().fence(hands.fence_guard())
    finally:  # after the kill: what the dying processes say to their clients still leaves. After one that failed, all the more
        if hands.kernel is not None:
            await hands.kernel.close()
    await hands.release_watchdog()
    try:
        async with _journaled(hands, command):
            pass
    except StorageError as error:
        log.warning("journal.failed", group=hands.knowledge.group.name, reason=str(error))
        await hands.refresh()
    return f"fenced: {order.cause}; no process of it is left"


async def stop(hands: Hands, command: Command) -> str:
    async with _journaled(hands, command) as entry:
        position = await hands.the_service().stop(hands.open_guard(command, entry))
        await hands.release_watchdog()
    if position is None:
        return "stopped by force"
    hands.knowledge.service = replace(hands.knowledge.service, position=position)
    return f"stopped cleanly at timeline {position.timeline}, LSN {position.lsn:X}"


async def start(hands: Hands, command: Command) -> str:
    async with _journaled(hands, command) as entry:
        await hands.the_service().start(hands.open_guard(command, entry))
    return "started read-only"


async def stop_receiving(hands: Hands, command: Command) -> str:
    order = cast("StopReceiving", command)
    async with _journaled(hands, command) as entry:
        position = await hands.the_service().stop_receiving(hands.open_guard(command, entry))
        hands.knowledge.stopped_for_epoch = order.epoch
    return f"receives no more; final position for epoch {order.epoch}: timeline {position.timeline}, LSN {position.lsn:X}"


async def follow(hands: Hands, command: Command) -> str:
    order = cast("FollowLeader", command)
    async with _journaled(hands, command) as entry:
        hands.knowledge.stopped_for_epoch = None
        await hands.the_service().follow(order.leader, hands.open_guard(command, entry))
    return f"follows {order.leader}"


async def rejoin(hands: Hands, command: Command) -> str:
    order = cast("RejoinService", command)
    async with _journaled(hands, command) as entry:
        hands.knowledge.stopped_for_epoch = None
        await hands.the_service().rejoin(order.leader, order.mode, hands.open_guard(command, entry))
    return f"rejoined {order.leader} by {order.mode.value}"


async def promote(hands: Hands, command: Command) -> str:
    """Make the service writable. That this node promotes in this epoch is on its disk before it does."""
    order = cast("PromoteService", command)
    knowledge = hands.knowledge
    async with _journaled(hands, command) as entry:
        guard = hands.lease_guard(command, entry)
        guard.permit()
        known = [p.timeline for p in order.known_promotions]
        before = 1 if knowledge.service.position is None else knowledge.service.position.timeline
        await hands.remembered.note_promotion(order.epoch, max([before, *known]) + 1)
        await hands.the_service().promote(order.sync_names, order.known_promotions, guard)
    position = knowledge.service.position
    if position is not None:
        await hands.remembered.note_promotion(order.epoch, position.timeline)
    knowledge.own_timelines = hands.remembered.own_timelines
    return f"promoted in epoch {order.epoch}" + ("" if position is None else f" to timeline {position.timeline}")


async def seal(hands: Hands, command: Command) -> str:
    async with _journaled(hands, command) as entry:
        await hands.the_service().seal(hands.open_guard(command, entry))
    return "sealed: any restart comes up read-only"


async def set_sync_names(hands: Hands, command: Command) -> str:
    order = cast("SetSyncNames", command)
    async with _journaled(hands, command) as entry:
        await hands.the_service().set_sync_names(order.names, hands.lease_guard(command, entry))
    return f"commits wait for {', '.join(order.names)}" if order.names else "commits wait for nobody"
