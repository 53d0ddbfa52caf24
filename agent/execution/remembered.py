"""What this node remembers of one group on disk, in the words of the executors. Durable BEFORE it is sent; the mere height is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from agent.coordination.node_state import GroupState, Mark, OwnPromotion, SentVote, StateFolder, TakeoverIntent


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
            await self._save(lambda state: replace(state, highest=max(state.highest, mark)), durable=durable)

    async def note_store(self, identity: str) -> None:
        """Keep the identity of the coordinator's store."""
        await self._save(lambda state: replace(state, coordinator=identity))

    async def note_takeover(self, epoch: int, over_index: int) -> None:
        """A takeover is about to be sent: until its index is seen gone it counts as done."""
        await self._save(lambda state: replace(state, takeover=TakeoverIntent(epoch, over_index)))

    async def note_vote(self, epoch: int, over_index: int, *, down: bool) -> None:
        """A vote is about to be sent."""
        await self._save(lambda state: replace(state, vote=SentVote(epoch, down, over_index)))

    async def vote_committed(self) -> None:
        """What this node says of the leader is known again: a lost state folder is made good."""
        await self._save(lambda state: replace(state, lost=False))

    async def note_promotion(self, epoch: int, timeline: int) -> None:
        """A promotion is about to begin, or its timeline is known by now."""
        mine = OwnPromotion(epoch, timeline)

        def with_it(state: GroupState) -> GroupState:
            kept = tuple(p for p in state.own_promotions if p.epoch != epoch or p.timeline < timeline)
            return state if mine in state.own_promotions else replace(state, own_promotions=(*kept, mine))

        await self._save(with_it)

    @property
    def own_timelines(self) -> tuple[tuple[int, int], ...]:
        return tuple((p.epoch, p.timeline) for p in self.state.own_promotions)

    async def _save(self, change: Callable[[GroupState], GroupState], *, durable: bool = True) -> None:
        """One change after the other, so that none is lost; what is so already is not written again."""
        async with self._turn:
            state = change(self.state)
            if state != self.state:
                await self._folder.save(self._group, state, durable)
                self.state = state
