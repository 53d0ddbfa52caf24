"""The voter's side of failsafe: what this node promises to a holder that asks it directly, kept before it is answered.

A vote and a promise exclude each other, and so do a takeover and a promise, in EVERY interleaving. How: one event loop runs all of this,
and each side makes its mark in memory and looks for the other's mark in one go, without an `await` between the two, and BEFORE its own
write to disk begins. The vote writer marks `Knowledge.own_vote`, the lease writer `undecided_takeover_index`, the desk here `promise`.
So whoever marks second sees the first one's mark and refuses, however long any disk takes. What a mark says is dropped only when it is
known for certain to be over: by a reading, by a commit, by time.
"""

from __future__ import annotations

from dataclasses import replace

from agent.clock import Clock
from agent.coordination.failsafe_rules import Answer, Promise, Question, Standing, promise_to, why_not_promise
from agent.coordination.lease import LeaseRecord
from agent.coordination.node_state import GroupState
from agent.decision.context import BLIND_PERIODS
from agent.disk import StorageError
from agent.execution.remembered import Remembered
from agent.instant import Instant, observer_elapsed_s
from agent.knowledge import Knowledge


class PromiseDesk:
    """Answers the questions that come to this node for one group."""

    def __init__(self, knowledge: Knowledge, remembered: Remembered, clock: Clock) -> None:
        self._knowledge = knowledge
        self._remembered = remembered
        self._clock = clock

    async def answer(self, question: Question) -> Answer:
        """Promise, or say why not. What is promised is in force when this returns, and on disk: it outlives the agent and the host."""
        knowledge, now = self._knowledge, self._clock.now()
        reason = why_not_promise(question, standing_of(knowledge, question.epoch, now), now)
        if reason:
            return self._say(question, reason)
        # from here to the mark there is no await: see the module's docstring
        promise = promise_to(question, knowledge.promise, knowledge.group.terms, _record(knowledge), now)
        knowledge.promise = promise
        knowledge.high.rise(question.epoch, 0)
        kept = promise.kept
        assert kept is not None
        try:
            await self._remembered.note_promise(kept)
        except StorageError as error:
            return self._say(question, str(error))
        return self._say(question, self._confirm(promise))

    def _confirm(self, promise: Promise) -> str:
        """The disk has it: it counts from now, the moment of the answer. A sentence when it was overtaken meanwhile."""
        current = self._knowledge.promise
        if current is None or current.epoch != promise.epoch:
            return "the epoch ended while the promise was written"
        self._knowledge.promise = replace(current, wait_s=max(current.wait_s, promise.wait_s), since=self._clock.now())
        return ""

    def _say(self, question: Question, reason: str) -> Answer:
        return Answer(self._knowledge.node, question.group, question.epoch, question.nonce, promised=not reason, reason=reason)


def standing_of(knowledge: Knowledge, epoch: int, now: Instant) -> Standing:
    """What this node knows at this moment that could forbid a promise in `epoch`."""
    answered = knowledge.sightings.answered
    return Standing(
        node=knowledge.node,
        leads=knowledge.tenure is not None,
        highest_epoch=knowledge.high.epoch,
        hears=answered is not None and observer_elapsed_s(answered, now) <= BLIND_PERIODS * knowledge.group.renew_s,
        record=_record(knowledge),
        went_back=knowledge.went_back or knowledge.foreign_store,
        takeover_is_out=knowledge.undecided_takeover_index is not None,
        vote_is_out=knowledge.vote_is_out(epoch),
        lost=knowledge.lost_since is not None,
        called_unusable_since=knowledge.called_unusable_since,
        patience_s=knowledge.group.patience_s,
    )


def _record(knowledge: Knowledge) -> LeaseRecord | None:
    return None if knowledge.reading is None else knowledge.reading.lease.record


def recall(knowledge: Knowledge, state: GroupState, now: Instant) -> None:
    """Begin with what the disk remembers. A promise counts anew, in full, from here: the moments of an earlier life say nothing."""
    knowledge.own_vote = state.vote
    knowledge.undecided_takeover_index = None if state.takeover is None else state.takeover.over_index
    if state.lost:
        knowledge.lost_since = now
        knowledge.promise = Promise(None, "", knowledge.group.terms.takeover_wait_s, now)
    elif state.promise is not None:
        knowledge.promise = Promise(state.promise.epoch, state.promise.holder, state.promise.wait_s, now)


async def forget_loss(knowledge: Knowledge, remembered: Remembered, now: Instant) -> None:
    """Clear the mark of a lost state folder once nothing that was said before can count: no promise, no vote, no takeover."""
    if knowledge.loss_is_over(now):
        await remembered.loss_is_over()
        knowledge.lost_since = None
