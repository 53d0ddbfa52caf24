"""What this node remembers of one group on disk, in the words of the executors. Durable BEFORE it is sent; the mere height is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from agent.coordination import failsafe_rules
from agent.coordination.failsafe_rules import KeptPromise
from agent.coordination.lease import LeaseRecord, Tenure
from agent.coordination.node_state import GroupState, Mark, OwnPromotion, SentVote, StateFolder, TakeoverIntent
from agent.decision.command import HookRole
from agent.decision.view import Told


class Remembered:
    """One group's memory, over the node's state folder. What the disk refused is not remembered either: it is tried again."""

    def __init__(self, folder: StateFolder, group: str) -> None:
        self._folder = folder
        self._group = group
        self._turn = asyncio.Lock()
        self.state: GroupState = folder.load(group)

    async def note_seen(self, epoch: int, sequence: int) -> None:
        """Keep the height of the record. A new epoch is kept durably; the sequence alone is worth no fsync."""
        mark = Mark(epoch, sequence)
        if mark > self.state.highest:
            durable = epoch > self.state.highest.epoch
            await self._save(lambda state: _seen(state, mark), durable=durable)

    async def note_store(self, identity: str) -> None:
        """Keep the identity of the coordinator's store."""
        await self._save(lambda state: replace(state, coordinator=identity))

    async def note_takeover(self, record: LeaseRecord, over_index: int) -> None:
        """A takeover is about to be sent: until its index is seen gone it counts as done. A promise that would forbid it is over."""
        intent = TakeoverIntent(record.epoch, over_index)
        await self._save(
            lambda state: replace(state, takeover=intent, promise=None, kept_records=failsafe_rules.kept_with(state.kept_records, record))
        )

    async def note_vote(self, vote: SentVote) -> None:
        """A vote is about to be sent. When it is `down`, a promise that would forbid it is over."""
        await self._save(lambda state: replace(state, vote=vote, promise=None if vote.down else state.promise))

    async def vote_committed(self, vote: SentVote) -> None:
        """What this node says of the leader is known again."""
        await self._save(lambda state: replace(state, vote=vote) if state.vote == replace(vote, settled=False) else state)

    async def note_promise(self, promise: KeptPromise) -> None:
        """A promise is about to be given. The next ones like it write nothing: what is on disk counts anew from each start."""
        highest = Mark(promise.epoch, 0)
        await self._save(lambda state: replace(state, promise=promise, highest=max(state.highest, highest)))

    async def loss_is_over(self) -> None:
        """Nothing that was said before the state folder was lost can count any more."""
        await self._save(lambda state: replace(state, lost=False))

    async def note_record(self, record: LeaseRecord) -> None:
        """A lease record is about to be sent. Only one with other voters or terms costs a write."""
        await self._save(lambda state: replace(state, kept_records=failsafe_rules.kept_with(state.kept_records, record)))

    async def record_confirmed(self, tenure: Tenure) -> None:
        """The own lease stands by `tenure.record`: what was sent before it is done with."""
        await self._save(lambda state: replace(state, kept_records=failsafe_rules.kept_after(state.kept_records, tenure)))

    async def note_promotion(self, epoch: int, timeline: int) -> None:
        """A promotion is about to begin, or its timeline is known by now."""
        mine = OwnPromotion(epoch, timeline)

        def with_it(state: GroupState) -> GroupState:
            kept = tuple(p for p in state.own_promotions if p.epoch != epoch or p.timeline < timeline)
            return state if mine in state.own_promotions else replace(state, own_promotions=(*kept, mine))

        await self._save(with_it)

    async def note_told(self, epoch: int, role: HookRole) -> None:
        """The hooks were told, and ended well."""
        await self._save(lambda state: replace(state, told=Told(epoch, role)))

    @property
    def own_timelines(self) -> tuple[tuple[int, int], ...]:
        return tuple((p.epoch, p.timeline) for p in self.state.own_promotions)

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the state was written since the machine started."""
        return not self.state.lost and self.state.writer is not None and self.state.writer.boot == self._folder.writer.boot

    async def _save(self, change: Callable[[GroupState], GroupState], *, durable: bool = True) -> None:
        """One change after the other, so that none is lost; what is so already is not written again."""
        async with self._turn:
            state = change(self.state)
            if state != self.state:
                await self._folder.save(self._group, state, durable)
                self.state = state


def _seen(state: GroupState, mark: Mark) -> GroupState:
    """A record of the epoch that an own takeover would begin is read: that takeover has happened, or it never will."""
    done = state.takeover is not None and mark.epoch >= state.takeover.epoch
    return replace(state, highest=max(state.highest, mark), takeover=None if done else state.takeover)
