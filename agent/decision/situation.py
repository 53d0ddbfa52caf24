"""The names of all situations that a group can be in, as one node sees it. Each has a scenario, a metric label and a runbook heading."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Situation(StrEnum):
    """What is the case, before anybody asks what to do about it. Each name's sentence is in SENTENCES."""

    BLIND = "blind"
    WENT_BACK = "went_back"
    UNREADABLE = "unreadable"
    UNFORMED = "unformed"
    KEY_LOST = "key_lost"
    STRAY_PRIMARY = "stray_primary"
    LATE = "late"
    LEADING = "leading"
    FAILSAFE = "failsafe"
    WAITING = "waiting"
    PROMOTING = "promoting"
    CRASHED = "crashed"
    HUNG = "hung"
    UNFENCED = "unfenced"
    STEPPING_DOWN = "stepping_down"
    FOLLOWING = "following"
    REJOINING = "rejoining"
    WITNESSING = "witnessing"
    SILENT = "silent"
    VACANT = "vacant"
    EXPIRED = "expired"
    PAUSED = "paused"


SENTENCES: Mapping[Situation, str] = {
    Situation.BLIND: "the coordinator does not answer this node",
    Situation.WENT_BACK: "the coordinator shows a past this node has already left, or is another store: a person has to look",
    Situation.UNREADABLE: "the lease key holds something that is no record of this version",
    Situation.UNFORMED: "there was never a lease: the members have yet to give their word",
    Situation.KEY_LOST: "there was a lease and its key is gone",
    Situation.STRAY_PRIMARY: "the local service takes writes without a lease",
    Situation.LATE: "this node's own lease is over and its service may still take writes",
    Situation.LEADING: "this node leads and its service takes writes",
    Situation.FAILSAFE: "this node leads and its service takes writes by the voters' promises: the coordinator commits nothing",
    Situation.WAITING: "this node leads and its commits wait for a standby that shows no life",
    Situation.PROMOTING: "this node holds the lease; its service does not take writes yet",
    Situation.CRASHED: "this node holds the lease; its service is gone",
    Situation.HUNG: "this node holds the lease; its service answers no more",
    Situation.UNFENCED: "this node leads and a fence that must stand does not",
    Situation.STEPPING_DOWN: "this node leads and an operator wants another leader",
    Situation.FOLLOWING: "another node leads; the local service follows it",
    Situation.REJOINING: "another node leads; the local service does not follow it yet",
    Situation.WITNESSING: "another node leads; this one only observes and votes",
    Situation.SILENT: "another node's lease has not moved for longer than half its ttl",
    Situation.VACANT: "the lease was given up on purpose, after a fence: it may be taken without a clock, unless there is a debt",
    Situation.EXPIRED: "the lease ran out: it may be taken with the votes of a quorum",
    Situation.PAUSED: "an operator paused the group: nobody takes over",
}
"""What each name means, for people."""
