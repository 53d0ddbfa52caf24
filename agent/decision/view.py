"""Everything the core may know, as one frozen snapshot. The whole truth each turn: no stream that must not be missed.

`gather` (control_loop) makes a View; `decide` (engine) reads it; a saved View is a test and a bug report. Ages are Instants of this
machine's own clocks; nothing here compares two machines' clocks. `None` means unknown, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from agent.coordination.coordinator import Entry
from agent.coordination.failsafe_rules import Promise
from agent.coordination.lease import LeaseRecord, Position, Sight, Tenure, Terms
from agent.decision.command import Command, HookRole
from agent.instant import Instant

# ------------------------------------------------------------------ the group, as configured


class Durability(StrEnum):
    """Whose acknowledgement a commit waits for."""

    ASYNC = "async"
    SYNC = "sync"
    QUORUM = "quorum"


class OnCrash(StrEnum):
    """What the holder does when its service alone crashed."""

    FAILOVER = "failover"
    RESTART = "restart"


class FenceLayer(StrEnum):
    """A layer that enforces the lease with no live agent."""

    SEAL = "seal"
    KERNEL = "kernel"
    WATCHDOG = "watchdog"


@dataclass(frozen=True, slots=True)
class Candidacy:
    """A member's configured standing in elections. Priority 0 or `nofailover`: never chosen."""

    priority: int = 100
    nofailover: bool = False


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """One failover group as configured on this node."""

    name: str
    engine: str
    members: Mapping[str, Candidacy]
    witnesses: tuple[str, ...]
    terms: Terms
    renew_s: float
    patience_s: float
    durability: Durability
    max_lag_bytes: int
    on_crash: OnCrash
    restart_timeout_s: float
    sync_timeout_s: float
    cooldown_s: float
    required_fences: frozenset[FenceLayer]
    failsafe: bool = False
    """Whether a holder that cannot commit asks the voters for promises: wanted, and the agents can prove to each other who they are."""
    failsafe_absence: str = ""
    """Why it does not, for people."""

    hooks: frozenset[HookRole] = frozenset()
    """On which occasions the operator wants commands run."""

    @property
    def voters(self) -> tuple[str, ...]:
        """All who observe and vote: members and witnesses, sorted."""
        return tuple(sorted({*self.members, *self.witnesses}))


# ------------------------------------------------------------------ this node


class ServiceState(StrEnum):
    """What the local service is, as read from itself and from its processes."""

    DOWN = "down"
    """No process of it is left."""
    STARTING = "starting"
    """Processes exist but it answers no question yet."""
    STANDBY = "standby"
    """Answers, takes no writes."""
    PRIMARY = "primary"
    """Answers and takes writes."""
    CRASHED = "crashed"
    """Its first process is gone, but processes of it are left: they may still commit."""
    HUNG = "hung"
    """Processes exist, it answered before, and it answers no more within the deadline."""
    UNKNOWN = "unknown"
    """Not looked at yet, or nobody may look (wrong password): never a reason to act."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One step of a timeline's history: `timeline` ended at `switch_lsn`, where its child began."""

    timeline: int
    switch_lsn: int


@dataclass(frozen=True, slots=True)
class Replica:
    """A standby as the primary sees it."""

    name: str
    streaming: bool
    flushed_lsn: int
    is_sync: bool
    sender: int = 0
    """The primary's process that serves it. Whoever connects anew gets another one, while the old one may stay for a while."""
    reply: str = ""
    """The stamp of its last reply, by the standby's own clock: another one is a new reply, and that is all it says."""
    owes: bool = False
    """Whether WAL that is flushed here was not yet flushed there, as far as it said."""
    heard: Instant | None = None
    """Until when commits had no reason to wait for it in vain (durability.with_signs_of_life); None: it was not heard yet."""


@dataclass(frozen=True, slots=True)
class ServiceView:
    """Facts of the local service. For a service that is down, what can be read offline."""

    state: ServiceState
    seen: Instant | None = None
    since: Instant | None = None
    """When `state` was first seen as it is."""
    sentence: str = ""
    initialised: bool = True
    """Whether there is any data at all."""
    position: Position | None = None
    history: tuple[Branch, ...] = ()
    system_identifier: str | None = None
    upstream: str | None = None
    """The member this one is set to receive from; None: nobody."""
    receiving: bool = False
    """Whether a receiver is streaming right now."""
    stopped_for_epoch: int | None = None
    """The receiver was stopped for this epoch: `position` is final for a choice in it."""
    sealed: bool = False
    sync_names: tuple[str, ...] = ()
    sync_effective_lsn: int | None = None
    """An LSN read after `sync_names` took effect; a standby that flushed it has all that was acknowledged without it."""
    replicas: tuple[Replica, ...] = ()
    own_timelines: tuple[tuple[int, int], ...] = ()
    """(epoch, timeline) of promotions this node itself made, from its own disk."""


@dataclass(frozen=True, slots=True)
class FenceView:
    """Which fences stand here, and what the watchdog has acknowledged."""

    standing: frozenset[FenceLayer]
    watchdog_alive: bool = False
    armed_epoch: int | None = None
    armed_deadline: Instant | None = None
    refused: str = ""
    """Why the watchdog refused the last hand-over; empty: it did not."""
    suspended: bool = False
    """The watchdog's clock stands still for a pause: the agent may be stopped and nothing is fenced."""
    kernel_epoch: int | None = None
    """The epoch that the service's port is leased to the kernel for, as read back from it."""
    kernel_problem: str = ""
    """Why the kernel layer does not stand; empty: it does, or is not wanted."""


class RouteState(StrEnum):
    """What follows the leader, as it is on this host."""

    PRESENT = "present"
    """It points here, and nobody else answers for it."""
    ABSENT = "absent"
    UNKNOWN = "unknown"
    """It could not be looked at."""
    CONFLICT = "conflict"
    """Somebody else answers for it: it is not raised; where it stands already, two answer."""


@dataclass(frozen=True, slots=True)
class RouteView:
    """One thing that follows the leader (a VIP), as it is on this host."""

    name: str
    present: bool | None = None
    """Whether it points here; None: that could not be told."""
    rival: str = ""
    """Who else answered when it was last asked for, by hardware address; empty: nobody."""
    asked: Instant | None = None
    """When the link was last asked who else answers for it."""
    sentence: str = ""
    """What went wrong last; empty: nothing."""

    @property
    def state(self) -> RouteState:
        """The four in one word."""
        if self.rival:
            return RouteState.CONFLICT
        return {True: RouteState.PRESENT, False: RouteState.ABSENT, None: RouteState.UNKNOWN}[self.present]


@dataclass(frozen=True, slots=True)
class Told:
    """What this node's hooks were told last, from its disk."""

    epoch: int
    role: HookRole


@dataclass(frozen=True, slots=True)
class CoordinationView:
    """How this node sees the coordinator. `answered`: when the last complete reading arrived."""

    answered: Instant | None
    session: str | None = None
    lags: bool = False
    """The reading is older than this agent's own last write: nothing is concluded from it."""
    went_back: bool = False
    """A record below the highest (epoch, sequence) on disk, or another store: nobody resumes, nobody takes over."""


@dataclass(frozen=True, slots=True)
class LeaseView:
    """The lease key as last read. `record` is None when the key is absent or unreadable; `exists` tells which."""

    exists: bool = False
    record: LeaseRecord | None = None
    entry: Entry | None = None
    sight: Sight | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What this node itself sees, from where it stands, of the service of the lease's holder."""

    node: str
    writable: bool | None
    """True: it takes writes. False: it does not, or nothing answers. None: cannot tell."""
    asked: Instant
    since: Instant
    sentence: str


# ------------------------------------------------------------------ the others


@dataclass(frozen=True, slots=True)
class MemberView:
    """A node of the group as it published itself. `moved`: when its heartbeat was last seen to change (own clock)."""

    name: str
    moved: Instant
    incarnation: str
    state: ServiceState
    position: Position | None = None
    history: tuple[Branch, ...] = ()
    stopped_for_epoch: int | None = None
    upstream: str | None = None
    receiving: bool = False
    system_identifier: str | None = None
    problem: str = ""
    """Why it may not be chosen, in its own words; empty: nothing."""
    paused_epoch: int | None = None
    """The epoch whose pause this node has seen."""
    routes: tuple[RouteView, ...] = ()
    """What follows the leader, as it is there; when it was asked about is not told."""


@dataclass(frozen=True, slots=True)
class VoteView:
    """A vote as stored. It speaks only of `epoch`."""

    voter: str
    index: int
    epoch: int
    down: bool
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class WordView:
    """A member's word before the first lease. `position` orders who forms the group."""

    node: str
    index: int
    position: Position | None
    system_identifier: str | None
    history: tuple[Branch, ...] = ()


class IntentKind(StrEnum):
    """What an operator can want of a group."""

    SWITCHOVER = "switchover"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Intent:
    """One operator's wish, recorded with who and why. `seen`: when this node first saw it."""

    identity: str
    index: int
    kind: IntentKind
    node: str | None
    """The wanted leader of a switchover; None: the best."""
    epoch: int
    """The group's epoch when the intent was written: it speaks of this epoch and the next."""
    who: str
    why: str
    seen: Instant


# ------------------------------------------------------------------ commands under way, and how they ended


@dataclass(frozen=True, slots=True)
class InFlight:
    """A command that an executor is running."""

    command: Command
    since: Instant


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the last command of one kind ended. `failures`: in a row."""

    command: Command
    ok: bool
    ended: Instant
    sentence: str = ""
    failures: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """The snapshot that one turn decides upon."""

    node: str
    incarnation: str
    group: GroupSpec
    coordination: CoordinationView
    lease: LeaseView
    tenure: Tenure | None
    service: ServiceView
    fences: FenceView
    observation: Observation | None = None
    members: Mapping[str, MemberView] = field(default_factory=dict)
    votes: Mapping[str, VoteView] = field(default_factory=dict)
    words: Mapping[str, WordView] = field(default_factory=dict)
    intents: tuple[Intent, ...] = ()
    in_flight: tuple[InFlight, ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    """By command class name."""
    highest_epoch: int = 0
    """The highest epoch this node ever saw or wrote, from its disk."""
    undecided_takeover_index: int | None = None
    """A takeover was sent over this index of the lease and is not yet known to have failed."""
    promise: Promise | None = None
    """What this node promised to a holder, or may have promised before it lost its state folder. It may be over by now."""
    vote_is_uncertain: bool = False
    """A vote of this node was sent and nobody knows whether it will commit: only a write that commits makes it certain."""
    routes: tuple[RouteView, ...] = ()
    """What follows the leader, as it is on this host."""
    told: Told | None = None
