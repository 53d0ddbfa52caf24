"""The rules of a deadline: when it may move, when it is over, and what follows. Pure: no clock, no process, no file.

Theory (design.md, "Who enforces it"). A holder may let its service take writes until its deadline. The watchdog holds that deadline and
kills the service when it passes, whatever has become of the agent. So a deadline must never be moved by somebody whose right to it is
over: it moves only forwards, only inside its epoch, only before it passed. A passed deadline latches: nothing but the proof that the
service was fenced opens it again. Another epoch (or the same one, anew) is armed only for a service that is proven not writable, so that
a service which never stopped is not carried from one lease into the next (holes.md A12).

Without a valid deadline a writable service is fenced, again and again: a level, not an edge (A19). Only a pause keeps that off, and only
for the epoch that paused.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

NANOSECONDS = 1_000_000_000
FARTHEST_NS = 600 * NANOSECONDS
"""No lease is this long: a deadline farther ahead is somebody's mistake, and would switch the fence off."""


class Moment(NamedTuple):
    """A point in time on CLOCK_BOOTTIME and on CLOCK_MONOTONIC_RAW, in nanoseconds of this boot."""

    boot_ns: int
    raw_ns: int


class Target(NamedTuple):
    """What is fenced: every process of `uid` that works in `data_dir`. `fence_budget_s`: how long that may take.

    `addresses`: what else the holder alone may have, taken off the host once the service is fenced.
    """

    data_dir: str
    uid: int
    fence_budget_s: float
    addresses: tuple[str, ...] = ()


class Deadline(NamedTuple):
    """Until when the service may be writable, in which epoch, and which attempt at a renewal said so."""

    epoch: int
    at: Moment
    nonce: str


class GroupState(NamedTuple):
    """All that is known of one group. It starts with nothing armed: held."""

    target: Target
    highest_epoch: int = 0
    """No older epoch is ever armed again."""
    deadline: Deadline | None = None
    latched: bool = False
    """The deadline passed, or a fence was asked for, and the service is not yet proven fenced."""
    suspended: bool = False
    """Paused in `deadline`'s epoch: the deadline does not pass and nothing is held, until it is armed again."""


class Refusal(Enum):
    """Why a wish was not granted. The value is the sentence for people."""

    LATCHED = "the deadline passed or a fence was asked for, and the service is not yet proven fenced"
    PASSED = "the deadline passed already: the service is being fenced"
    ALREADY_OVER = "the new deadline is already over"
    TOO_FAR = "the new deadline is more than ten minutes ahead"
    BACKWARDS = "a deadline moves only forwards"
    OLDER_EPOCH = "a newer epoch was armed here before"
    NOT_PROVEN = "the service is not proven to be not writable"
    NOT_ARMED = "nothing is armed in this epoch"
    ARMED = "another target of this group, or another group with this target, is still armed or being fenced"
    UNKNOWN_GROUP = "this group is not registered"
    TOO_MANY = "too many groups are registered"
    NOT_KEPT = "the group could not be written to the state folder"


def has_passed(at: Moment, now: Moment) -> bool:
    """Whether a holder's time is over: either clock is enough (A21)."""
    return now.boot_ns >= at.boot_ns or now.raw_ns >= at.raw_ns


def left_ns(at: Moment, now: Moment) -> int:
    """Nanoseconds until the deadline by the clock that is nearer to it; never negative."""
    return max(0, min(at.boot_ns - now.boot_ns, at.raw_ns - now.raw_ns))


def is_valid(state: GroupState, now: Moment) -> bool:
    """Whether the service may be writable now under a deadline that has not passed."""
    return state.deadline is not None and not state.latched and not state.suspended and not has_passed(state.deadline.at, now)


def is_due(state: GroupState, now: Moment) -> bool:
    """Whether an armed deadline has passed and nobody has acted on it yet."""
    return state.deadline is not None and not state.latched and not state.suspended and has_passed(state.deadline.at, now)


def must_hold(state: GroupState, now: Moment) -> bool:
    """Whether a writable service must be fenced: there is no valid deadline, and no pause."""
    return not state.suspended and not is_valid(state, now)


def expire(state: GroupState, now: Moment) -> GroupState:
    """Latch a deadline that has passed; any other state as it is."""
    return state._replace(latched=True) if is_due(state, now) else state


def demand_fence(state: GroupState) -> GroupState:
    """Fence whatever is armed: asked for by the agent, or because an unarmed service was found writable. Ends a pause."""
    return state._replace(deadline=None, latched=True, suspended=False)


def prove_fenced(state: GroupState) -> GroupState:
    """The whole tree was seen dead: the latch opens, nothing is armed."""
    return state._replace(deadline=None, latched=False, suspended=False)


def needs_proof(state: GroupState, epoch: int) -> bool:
    """Whether a hand-over for this epoch asks for a service proven not writable: all but a move inside the armed or paused epoch."""
    return state.deadline is None or state.deadline.epoch != epoch


def hand_over(state: GroupState, new: Deadline, now: Moment, *, proven_not_writable: bool) -> GroupState | Refusal:
    """Take a deadline from the agent: a move inside its epoch, the end of a pause, or a new arming, whichever it is by the rules."""
    if state.latched:
        return Refusal.LATCHED
    if is_due(state, now):
        return Refusal.PASSED
    if has_passed(new.at, now):
        return Refusal.ALREADY_OVER
    if max(new.at.boot_ns - now.boot_ns, new.at.raw_ns - now.raw_ns) > FARTHEST_NS:
        return Refusal.TOO_FAR
    if needs_proof(state, new.epoch):
        return arm(state, new, proven_not_writable=proven_not_writable)
    return move(state, new)


def arm(state: GroupState, new: Deadline, *, proven_not_writable: bool) -> GroupState | Refusal:
    """Begin an epoch, or begin it anew: only upwards, and only for a service that is proven not writable."""
    if new.epoch < state.highest_epoch:
        return Refusal.OLDER_EPOCH
    if not proven_not_writable:
        return Refusal.NOT_PROVEN
    return state._replace(highest_epoch=new.epoch, deadline=new, suspended=False)


def move(state: GroupState, new: Deadline) -> GroupState | Refusal:
    """Move the deadline inside its epoch (the same one again is no error: its acknowledgement may have been lost). Ends a pause."""
    old = state.deadline
    if old is None or old.epoch != new.epoch:
        return Refusal.NOT_ARMED
    if new.at.boot_ns < old.at.boot_ns or new.at.raw_ns < old.at.raw_ns:
        return Refusal.BACKWARDS
    return state._replace(deadline=new, suspended=False)


def suspend(state: GroupState, epoch: int, now: Moment) -> GroupState | Refusal:
    """For a pause that is committed in the lease: stop the clock of this epoch's deadline, and hold nothing, until it is armed again."""
    if state.latched:
        return Refusal.LATCHED
    if is_due(state, now):
        return Refusal.PASSED
    if state.deadline is None or state.deadline.epoch != epoch:
        return Refusal.NOT_ARMED
    return state._replace(suspended=True)


def disarm(state: GroupState, now: Moment, *, proven_not_writable: bool) -> GroupState | Refusal:
    """Give a deadline (or a pause) up early: only for a service that is proven not writable. It is held from then on."""
    if state.latched:
        return Refusal.LATCHED
    if is_due(state, now):
        return Refusal.PASSED
    if not proven_not_writable:
        return Refusal.NOT_PROVEN
    return state._replace(deadline=None, suspended=False)


def is_idle(state: GroupState) -> bool:
    """Whether nothing is armed, paused or being fenced: the target may be given to somebody else."""
    return state.deadline is None and not state.latched and not state.suspended
