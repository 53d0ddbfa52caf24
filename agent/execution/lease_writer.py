"""Executors of the commands that write the lease. The only code that sends a lease transaction.

Order of things, each for a schedule that broke an earlier draft: the attempt is remembered BEFORE it leaves (its SENT time dates the
lease); an intent to take over is on disk before it is sent; an error or a timeout means unknown, the next reading judges; after a
commit the deadline is handed to the watchdog, and the agent believes the earlier of its own and the acknowledged one.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import cast

from agent.coordination import lease
from agent.coordination.coordinator import Committed, Transaction
from agent.coordination.lease import Attempt, LeaseRecord, LeaseState, Tenure
from agent.decision.command import Command, FormGroup, RenewLease, TakeLease, VacateLease
from agent.decision.quorum import is_fresh
from agent.decision.view import FenceLayer, IntentKind
from agent.disk import StorageError
from agent.errors import CoordinationRefused, WatchdogError
from agent.execution.hands import Hands
from agent.execution.route_runner import renew_routes
from agent.instant import Instant, has_passed, remaining_s

SHORTEST_TIMEOUT_S = 0.2
HAND_OVER_TIMEOUT_S = 0.5


async def form_group(hands: Hands, command: Command) -> str:
    """Write the first record, or make a lost key anew under the live deadline."""
    order = cast("FormGroup", command)
    await hands.remembered.note_record(order.record)
    if not order.words:
        _refuse_without_time(hands, command)
    attempt = Attempt(_named(hands, order.record), hands.clock.now()) if hands.knowledge.tenure is None else _remember(hands, order.record)
    record = attempt.record
    index = await _send(hands, lease.formation(record, _session(hands), order.words), attempt)
    await _hold(hands, record, index, attempt.sent)
    return f"epoch {record.epoch} formed" if order.words else "the lost key was made anew"


async def renew_lease(hands: Hands, command: Command) -> str:
    """Renew over what was written last; under a new session when the old one ended."""
    order = cast("RenewLease", command)
    await hands.remembered.note_record(order.record)
    tenure = _tenure(hands, command)
    attempt = _remember(hands, order.record)
    record = attempt.record
    if order.relock_over is not None and order.relock_over.index == tenure.index:
        transaction = lease.relock(record, _session(hands), order.relock_over)
    else:
        transaction = lease.renewal(record, _session(hands), tenure.index)
    index = await _send(hands, transaction, attempt)
    await _hold(hands, record, index, attempt.sent)
    return f"renewed to sequence {record.sequence}"


async def vacate_lease(hands: Hands, command: Command) -> str:
    """Give the lease up. The service stays down in this epoch from here on, whatever the answer."""
    order = cast("VacateLease", command)
    tenure = _tenure(hands, command)
    attempt = _remember(hands, order.record)
    record = attempt.record
    if record.state is not LeaseState.VACATED:
        raise CoordinationRefused("too many lease writes are undecided: nothing is given up before one is read back")
    index = await _send(hands, lease.vacating(record, _session(hands), tenure.index), attempt)
    hands.knowledge.committed_index = max(hands.knowledge.committed_index, index)
    if hands.knowledge.tenure is not None and hands.knowledge.tenure.epoch == record.epoch:
        hands.knowledge.tenure = None
    return f"epoch {record.epoch} was given up: {record.cause}"


async def take_lease(hands: Hands, command: Command) -> str:
    """Take the lease over from the record last seen. The intent is on disk before it is sent."""
    order = cast("TakeLease", command)
    record = _named(hands, order.record)
    knowledge = hands.knowledge
    _refuse_when_promised(hands, order)
    knowledge.undecided_takeover_index = order.over.index  # no await since the look at the promise, and before the disk: failsafe.py
    try:
        await hands.remembered.note_takeover(record, order.over.index)
        attempt = Attempt(record, hands.clock.now())
        index = await _send(hands, lease.takeover(record, _session(hands), order.over, order.votes), attempt)
    except (CoordinationRefused, StorageError):
        knowledge.undecided_takeover_index = None
        raise
    await _hold(hands, record, index, attempt.sent)
    knowledge.undecided_takeover_index = None
    return f"elected for epoch {record.epoch}: {record.cause}"


def _refuse_when_promised(hands: Hands, order: TakeLease) -> None:
    """A promise may have been given since the decision. It is no promise to take nothing back from oneself."""
    over = lease.decode_record(order.over.value)
    if over.holder != hands.knowledge.node and not over.is_vacant:
        hands.refuse_when_bound(over.epoch)


def _tenure(hands: Hands, command: Command) -> Tenure:
    """The own lease of the command's epoch. Raises when it went away since the decision."""
    tenure = hands.knowledge.tenure
    if tenure is None or tenure.epoch != command.epoch:
        raise CoordinationRefused(f"the lease of epoch {command.epoch} is this node's no more")
    return tenure


def _refuse_without_time(hands: Hands, command: Command) -> None:
    """No word of any member stands behind a key that is made anew: only the live deadline of its holder does."""
    _tenure(hands, command)
    deadline = hands.owned_deadline
    if deadline is None or has_passed(deadline, hands.clock.now()):
        raise CoordinationRefused(f"the lease of epoch {command.epoch} ran out: its key is not made anew")


def _session(hands: Hands) -> str:
    if hands.knowledge.session is None:
        raise CoordinationRefused("this node has no session yet")
    return hands.knowledge.session


def _named(hands: Hands, record: LeaseRecord) -> LeaseRecord:
    """The record with the name of this very attempt in it."""
    return replace(record, nonce=hands.clock.nonce())


def _remember(hands: Hands, wanted: LeaseRecord) -> Attempt:
    """Name the attempt, note it in the tenure and take its SENT time, before anything leaves.

    Where as many are undecided as a tenure remembers (a minute without a coordinator), the newest of them is sent once more: under its
    own name, and dated by when it was first sent.
    """
    tenure = hands.knowledge.tenure
    assert tenure is not None
    if len(tenure.attempts) >= lease.MAX_ATTEMPTS:
        if tenure.attempts[-1].record.state is not LeaseState.HELD:
            raise CoordinationRefused("too many lease writes are undecided: nothing new is sent before one is read back")
        return tenure.attempts[-1]
    attempt = Attempt(_named(hands, wanted), hands.clock.now())
    hands.knowledge.tenure = lease.with_attempt(tenure, attempt)
    return attempt


def _timeout_s(hands: Hands) -> float:
    """A lease write that takes longer than two renewals, or than half the ttl, is as good as lost: the next one is sent."""
    group = hands.knowledge.group
    return max(SHORTEST_TIMEOUT_S, min(2 * group.renew_s, group.terms.ttl_s / 2))


async def _send(hands: Hands, transaction: Transaction, attempt: Attempt) -> int:
    """Run it. A refusal is certain: the attempt is forgotten. An error is not: it stays undecided and is read back.

    So does what may have been sent twice: it could be refused now because it was done then.
    """
    result = await hands.coordinator.transact(transaction, _timeout_s(hands))
    if isinstance(result, Committed):
        return result.index
    if hands.knowledge.tenure is not None and len(hands.knowledge.tenure.attempts) < lease.MAX_ATTEMPTS:
        hands.knowledge.tenure = lease.without_attempt(hands.knowledge.tenure, attempt.record.nonce)
    await hands.refresh_reading()
    raise CoordinationRefused(f"refused at operation {result.operation}: {result.reason}")


async def _hold(hands: Hands, record: LeaseRecord, index: int, sent: Instant) -> None:
    """The write is committed: date the tenure by SENT, remember the high water, and hand the deadline over."""
    knowledge = hands.knowledge
    knowledge.committed_index = max(knowledge.committed_index, index)
    if knowledge.high.is_above(record.epoch, record.sequence):
        raise CoordinationRefused("the answer came late: the lease has moved on since, as a reading has shown")
    now = hands.clock.now()
    tenure = knowledge.tenure
    if tenure is not None and tenure.epoch == record.epoch:
        knowledge.tenure = lease.settle(tenure, record, index)
    else:
        knowledge.tenure = Tenure(record, index, _session(hands), dated=sent, began=now)
    knowledge.high.rise(record.epoch, record.sequence)
    await hands.remembered.note_seen(record.epoch, record.sequence)
    await hand_over(hands)
    if knowledge.tenure is not None:
        with contextlib.suppress(StorageError):  # more records on disk than are needed only ask for more promises
            await hands.remembered.record_confirmed(knowledge.tenure)


async def hand_over(hands: Hands) -> None:
    """Give the deadline of the own tenure to what fences by itself: the watchdog, then the kernel what the watchdog acknowledged.

    Without an acknowledgement the deadline of before stays in force.
    """
    tenure = hands.knowledge.tenure
    if tenure is None or tenure.deadline is None or tenure.record.state is not LeaseState.HELD:
        return
    if not await _hand_to_watchdog(hands, tenure.epoch, tenure.deadline, tenure.record.nonce):
        return
    deadline = hands.owned_deadline
    if hands.kernel is not None and hands.knowledge.fences.suspended:
        await hands.kernel.stand()
    elif hands.kernel is not None and deadline is not None:
        await hands.kernel.arm(tenure.epoch, deadline)
    await renew_routes(hands)


async def _hand_to_watchdog(hands: Hands, epoch: int, deadline: Instant, nonce: str) -> bool:
    """Move the watchdog's deadline, or suspend it for a pause. Whether it acknowledged, or need not."""
    knowledge = hands.knowledge
    if FenceLayer.WATCHDOG not in knowledge.group.required_fences:
        return True
    if hands.watchdog is None:
        return False
    try:
        if may_disarm(hands):
            await hands.watchdog.suspend(knowledge.group.name, epoch)
            knowledge.fences = replace(knowledge.fences, refused="", suspended=True)
            return True
        armed = await hands.watchdog.hand_over(knowledge.group.name, epoch, deadline, nonce, HAND_OVER_TIMEOUT_S)
    except WatchdogError as error:
        knowledge.fences = replace(knowledge.fences, refused=str(error), watchdog_alive=hands.watchdog.alive)
        return False
    knowledge.fences = replace(
        knowledge.fences, watchdog_alive=True, armed_epoch=armed.epoch, armed_deadline=armed.deadline, refused="", suspended=False
    )
    return True


def may_disarm(hands: Hands) -> bool:
    """A pause disarms only after it is committed and every voter that is alive has said that it saw it; a resume arms first."""
    knowledge, reading = hands.knowledge, hands.knowledge.reading
    tenure, now, renew_s = knowledge.tenure, hands.clock.now(), knowledge.group.renew_s
    if tenure is None or reading is None or not tenure.record.paused or any(i.kind is IntentKind.RESUME for i in reading.intents):
        return False
    alive = [m for name, m in reading.members.items() if name in knowledge.group.voters and is_fresh(m, renew_s, now)]
    return bool(alive) and all(member.paused_epoch == tenure.epoch for member in alive)


def time_left_s(hands: Hands) -> float | None:
    """Seconds left of the own lease, for the agent's last line; None without one."""
    deadline = hands.owned_deadline
    return None if deadline is None else remaining_s(deadline, hands.clock.now())
