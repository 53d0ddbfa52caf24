"""Executors of votes, words and the ends of intents. A vote is on disk before it is sent, and sent only after a fresh read."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from agent.coordination.coordinator import Committed, Operation, Transaction, Verb
from agent.coordination.intents import decode_stored, finishing
from agent.coordination.lease import UnreadableRecord, decode_record, formation_key, intent_key, lease_key, vote_key
from agent.coordination.node_state import SentVote
from agent.coordination.values import VoteValue, WordValue, encode
from agent.decision.command import CastVote, Command, FinishIntent
from agent.decision.view import ServiceState
from agent.disk import StorageError
from agent.errors import CoordinationRefused
from agent.execution.hands import Hands


async def cast_vote(hands: Hands, command: Command) -> str:
    """Write the vote over the index it was last read with, if the lease has not moved since the decision."""
    order = cast("CastVote", command)
    knowledge = hands.knowledge
    if order.down:
        await _refuse_when_moved(hands, order.epoch)
    vote, before = SentVote(order.epoch, order.down, order.over_index), knowledge.own_vote
    if order.down:
        hands.refuse_when_bound(order.epoch)
    knowledge.own_vote = vote  # no await since the look at the promise, and before the disk: coordination/failsafe.py
    try:
        await hands.remembered.note_vote(vote)
    except StorageError:
        knowledge.own_vote = before  # it was not sent
        raise
    value = encode(VoteValue(order.epoch, order.down, order.evidence))
    await _commit(hands, (Operation(Verb.CAS, vote_key(knowledge.group.name, knowledge.node), index=order.over_index, value=value),))
    settled = replace(vote, settled=True)
    if knowledge.own_vote == vote:
        knowledge.own_vote = settled
    await hands.remembered.vote_committed(settled)
    return f"voted {'down' if order.down else 'up'} in epoch {order.epoch}: {order.evidence}"


async def _refuse_when_moved(hands: Hands, epoch: int) -> None:
    """The fresh look before a vote `down`: the lease is still the one that the decision saw."""
    group, reading = hands.knowledge.group, hands.knowledge.reading
    snapshot = await hands.coordinator.read(lease_key(group.name), group.renew_s * 2)
    entry = snapshot.entries.get(lease_key(group.name))
    try:
        record = None if entry is None else decode_record(entry.value)
    except UnreadableRecord:
        record = None
    seen = None if reading is None else reading.lease.record
    if record is None or seen is None or (record.epoch, record.sequence) != (seen.epoch, seen.sequence) or record.epoch != epoch:
        raise CoordinationRefused("the lease has moved since the vote was decided")


async def give_word(hands: Hands, _: Command) -> str:
    """Promise that the service here is not writable and stays so without a lease."""
    knowledge = hands.knowledge
    service = knowledge.service
    if service.state not in (ServiceState.STANDBY, ServiceState.DOWN):
        raise CoordinationRefused("the service may take writes by now: no word is given for it")
    word = WordValue(knowledge.incarnation, service.position, service.system_identifier, service.history)
    await _commit(hands, (Operation(Verb.SET, formation_key(knowledge.group.name, knowledge.node), value=encode(word)),))
    return "gave its word: not writable without a lease"


async def finish_intent(hands: Hands, command: Command) -> str:
    """Write into the intent how it ended: that takes it off the list, and whoever asked reads it there."""
    order = cast("FinishIntent", command)
    group = hands.knowledge.group
    key = intent_key(group.name, order.identity)
    snapshot = await hands.coordinator.read(key, group.renew_s * 2)
    stored = None if key not in snapshot.entries else decode_stored(snapshot.entries[key].value)
    if stored is None:
        raise CoordinationRefused("the intent is gone")
    await _commit(hands, finishing(group.name, order.identity, order.index, stored, order.outcome, order.sentence))
    return f"{order.outcome.value}: {order.sentence}"


async def _commit(hands: Hands, transaction: Transaction) -> None:
    group = hands.knowledge.group
    result = await hands.coordinator.transact(transaction, group.renew_s * 2)
    if isinstance(result, Committed):
        hands.knowledge.committed_index = max(hands.knowledge.committed_index, result.index)
        return
    await hands.refresh_reading()
    raise CoordinationRefused(f"refused at operation {result.operation}: {result.reason}")
