"""One reading of a group's folder, taken apart: from keys and bytes to typed values. Pure but for nothing: it has no clock either.

The reader's own sense of time (when did a heartbeat move, since when has the lease stood still) is kept in `Sightings`, from the moments
at which readings ARRIVED.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from agent.coordination.coordinator import Entry, Snapshot
from agent.coordination.intents import decode_intent
from agent.coordination.lease import LeaseRecord, Sight, UnreadableRecord, decode_record, lease_key, look
from agent.coordination.values import MemberValue, VoteValue, WordValue, decode
from agent.decision.view import Intent, LeaseView, MemberView, RouteView, VoteView, WordView
from agent.instant import Instant


@dataclass(frozen=True, slots=True)
class Sightings:
    """When this node saw what move: per member the index of its heartbeat and the moment it was first seen; the lease's sight."""

    sight: Sight | None = None
    moved: Mapping[str, tuple[int, Instant]] = field(default_factory=dict)
    intents: Mapping[str, Instant] = field(default_factory=dict)
    answered: Instant | None = None


@dataclass(frozen=True, slots=True)
class GroupReading:
    """A group's folder at one moment."""

    index: int
    lease: LeaseView
    members: Mapping[str, MemberView]
    votes: Mapping[str, VoteView]
    words: Mapping[str, WordView]
    intents: tuple[Intent, ...]


def read_group(group: str, snapshot: Snapshot, before: Sightings, arrived: Instant, gap_s: float) -> tuple[GroupReading, Sightings]:
    """Take a snapshot apart. `gap_s`: a longer pause between two readings is a gap, and sights start anew."""
    after_gap = before.answered is None or arrived.boot_ns - before.answered.boot_ns > gap_s * 1e9
    entry = snapshot.entries.get(lease_key(group))
    record = _record(entry)
    sight = None
    if record is not None and entry is not None:
        sight = look(before.sight, record, entry.index, arrived, after_gap)
    members, moved = _members(group, snapshot, before, arrived)
    intents = tuple(_intents(group, snapshot, before, arrived))
    reading = GroupReading(
        index=snapshot.index,
        lease=LeaseView(exists=entry is not None, record=record, entry=entry, sight=sight),
        members=members,
        votes=_votes(group, snapshot),
        words=_words(group, snapshot),
        intents=intents,
    )
    return reading, Sightings(sight, moved, {i.identity: i.seen for i in intents}, arrived)


def _record(entry: Entry | None) -> LeaseRecord | None:
    try:
        return None if entry is None else decode_record(entry.value)
    except UnreadableRecord:
        return None


def _below(folder: str, snapshot: Snapshot) -> Iterator[tuple[str, Entry]]:
    for key, entry in snapshot.entries.items():
        if key.startswith(folder):
            yield key[len(folder) :], entry


def _members(
    group: str, snapshot: Snapshot, before: Sightings, arrived: Instant
) -> tuple[dict[str, MemberView], dict[str, tuple[int, Instant]]]:
    """A heartbeat that is seen for the first time counts as moved long ago: the node may be dead since yesterday."""
    members: dict[str, MemberView] = {}
    moved: dict[str, tuple[int, Instant]] = {}
    for name, entry in _below(f"{group}/members/", snapshot):
        value = decode(MemberValue, entry.value)
        if value is None:
            continue
        known = before.moved.get(name)
        if known is None:
            moved[name] = (entry.index, arrived.after(-3600) if before.answered is None else arrived)
        else:
            moved[name] = known if known[0] == entry.index else (entry.index, arrived)
        members[name] = member_view(name, value, moved[name][1])
    return members, moved


def member_view(name: str, value: MemberValue, moved: Instant) -> MemberView:
    """A node's published facts, with when they moved."""
    return MemberView(
        name=name,
        moved=moved,
        incarnation=value.incarnation,
        state=value.state,
        position=value.position,
        history=value.history,
        stopped_for_epoch=value.stopped_for_epoch,
        upstream=value.upstream,
        receiving=value.receiving,
        system_identifier=value.system_identifier,
        problem=value.problem,
        paused_epoch=value.paused_epoch,
        routes=tuple(RouteView(route.name, route.present, route.rival, sentence=route.sentence) for route in value.routes),
    )


def _votes(group: str, snapshot: Snapshot) -> dict[str, VoteView]:
    votes = {name: (entry, decode(VoteValue, entry.value)) for name, entry in _below(f"{group}/votes/", snapshot)}
    return {
        name: VoteView(name, entry.index, value.epoch, value.down, value.evidence)
        for name, (entry, value) in votes.items()
        if value is not None
    }


def _words(group: str, snapshot: Snapshot) -> dict[str, WordView]:
    words = {name: (entry, decode(WordValue, entry.value)) for name, entry in _below(f"{group}/formation/", snapshot)}
    return {
        name: WordView(name, entry.index, value.position, value.system_identifier, value.history)
        for name, (entry, value) in words.items()
        if value is not None
    }


def _intents(group: str, snapshot: Snapshot, before: Sightings, arrived: Instant) -> Iterator[Intent]:
    for identity, entry in sorted(_below(f"{group}/intents/", snapshot)):
        intent = decode_intent(identity, entry.index, entry.value, before.intents.get(identity, arrived))
        if intent is not None:
            yield replace(intent, seen=before.intents.get(identity, arrived))
