"""What this node remembers of one group on disk, in the words of the executors. Durable BEFORE it is sent; the mere height is not."""

from __future__ import annotations

from dataclasses import replace

from agent.coordination.node_state import GroupState, Mark, OwnPromotion, SentVote, StateFolder, TakeoverIntent


class Remembered:
    """One group's memory, over the node's state folder."""

    def __init__(self, folder: StateFolder, group: str) -> None:
        self._folder = folder
        self._group = group
        self.state: GroupState = folder.load(group)

    async def note_seen(self, epoch: int, sequence: int) -> None:
        """Keep the height of the record. A new epoch is kept durably; the sequence alone is worth no fsync."""
        mark = Mark(epoch, sequence)
        if mark <= self.state.highest:
            return
        durable = epoch > self.state.highest.epoch
        await self._save(replace(self.state, highest=mark), durable=durable)

    async def note_store(self, identity: str) -> None:
        """Keep the identity of the coordinator's store, the first time."""
        if self.state.coordinator != identity:
            await self._save(replace(self.state, coordinator=identity), durable=True)

    async def note_session(self, session: str) -> None:
        await self._save(replace(self.state, session=session), durable=True)

    async def note_takeover(self, epoch: int, over_index: int) -> None:
        """A takeover is about to be sent: until its index is seen gone it counts as done."""
        await self._save(replace(self.state, takeover=TakeoverIntent(epoch, over_index)), durable=True)

    async def note_vote(self, epoch: int, over_index: int, *, down: bool) -> None:
        """A vote is about to be sent."""
        await self._save(replace(self.state, vote=SentVote(epoch, down, over_index)), durable=True)

    async def vote_committed(self) -> None:
        """What this node says of the leader is known again: a lost state folder is made good."""
        if self.state.lost:
            await self._save(replace(self.state, lost=False), durable=True)

    async def note_promotion(self, epoch: int, timeline: int) -> None:
        """A promotion is about to begin, or its timeline is known by now."""
        kept = tuple(p for p in self.state.own_promotions if p.epoch != epoch or p.timeline < timeline)
        mine = OwnPromotion(epoch, timeline)
        if mine not in self.state.own_promotions:
            await self._save(replace(self.state, own_promotions=(*kept, mine)), durable=True)

    @property
    def own_timelines(self) -> tuple[tuple[int, int], ...]:
        return tuple((p.epoch, p.timeline) for p in self.state.own_promotions)

    async def _save(self, state: GroupState, *, durable: bool) -> None:
        self.state = state
        await self._folder.save(self._group, self.state, durable)
