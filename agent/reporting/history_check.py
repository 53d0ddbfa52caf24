"""Does a group's history make sense? The answer behind `quorate history --verify`. Pure."""

from __future__ import annotations

from itertools import pairwise

from agent.coordination.history import HistoryEntry, HistoryReason


def contradictions(entries: tuple[HistoryEntry, ...]) -> tuple[str, ...]:
    """One sentence for each thing that cannot be true; empty: nothing contradicts itself. `entries`: oldest first.

    Epochs only grow; each names its predecessor; two promotions never share a timeline, and timelines only grow. An epoch that is missing
    is one, too: its leader may have died before it could write it.
    """
    alone = tuple(sentence for entry in entries for sentence in _of_one(entry))
    return alone + tuple(sentence for before, after in pairwise(entries) for sentence in _of_two(before, after))


def _of_one(entry: HistoryEntry) -> tuple[str, ...]:
    first = entry.reason is HistoryReason.FORMED
    found = (
        (entry.epoch < 1, f"epoch {entry.epoch}: epochs begin at 1"),
        (first and entry.previous_leader is not None, f"epoch {entry.epoch}: it formed the group, yet names a leader before it"),
        (entry.duration_s < 0, f"epoch {entry.epoch}: its change of leader took {entry.duration_s} s"),
    )
    return tuple(sentence for wrong, sentence in found if wrong)


def _of_two(before: HistoryEntry, after: HistoryEntry) -> tuple[str, ...]:
    if after.epoch <= before.epoch:
        return (f"epoch {after.epoch} follows epoch {before.epoch}: epochs only grow",)
    if after.epoch > before.epoch + 1:
        return (f"between epoch {before.epoch} and epoch {after.epoch} nothing is written",)
    found = [
        (after.reason is HistoryReason.FORMED, f"epoch {after.epoch}: it formed a group that was there"),
        (
            after.previous_leader != before.leader,
            f"epoch {after.epoch} says that {after.previous_leader} led before it; epoch {before.epoch} says {before.leader}",
        ),
    ]
    if before.timeline is not None and after.timeline is not None:
        found.append(
            (
                after.timeline <= before.timeline,
                f"epoch {after.epoch} promoted to timeline {after.timeline}, the one before it to {before.timeline}: they only grow",
            )
        )
    return tuple(sentence for wrong, sentence in found if wrong)
