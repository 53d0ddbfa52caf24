"""What the core may ask for. A command is a value; execution/ has an executor for each; its outcome comes back in the next view.

Each command names its resource: one command at a time per resource. Commands carry all they need; nothing is looked up later.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from agent.coordination.coordinator import Entry
from agent.coordination.lease import CountedVote, LeaseRecord, Promotion


class Resource(StrEnum):
    """What a command changes. Commands of different resources may run side by side."""

    LEASE = "lease"
    PROMISE = "promise"
    VOTE = "vote"
    SERVICE = "service"
    SETTINGS = "settings"
    INTENT = "intent"
    ROUTES = "routes"
    HOOKS = "hooks"


@dataclass(frozen=True, slots=True)
class Command:
    """Base of all commands. `epoch` is the epoch it was decided in; an executor refuses it in a newer one."""

    resource: ClassVar[Resource]
    irreversible: ClassVar[bool] = False
    epoch: int


# ------------------------------------------------------------------ the lease


@dataclass(frozen=True, slots=True)
class FormGroup(Command):
    """Write the group's first lease, on the word of every member."""

    resource: ClassVar[Resource] = Resource.LEASE
    record: LeaseRecord
    words: tuple[CountedVote, ...]


@dataclass(frozen=True, slots=True)
class RenewLease(Command):
    """Renew the own lease, changing in the record what `record` says. `relock_over`: the entry, when the own session ended."""

    resource: ClassVar[Resource] = Resource.LEASE
    record: LeaseRecord
    relock_over: Entry | None = None


@dataclass(frozen=True, slots=True)
class VacateLease(Command):
    """Give the lease up; only after the service was proven not writable. `relock_over` as in RenewLease."""

    resource: ClassVar[Resource] = Resource.LEASE
    record: LeaseRecord
    relock_over: Entry | None = None


@dataclass(frozen=True, slots=True)
class TakeLease(Command):
    """Take the lease over from the record last seen, counting these votes."""

    resource: ClassVar[Resource] = Resource.LEASE
    record: LeaseRecord
    over: Entry
    votes: tuple[CountedVote, ...]


@dataclass(frozen=True, slots=True)
class AskPromises(Command):
    """Ask every voter for a promise, so that the own lease lasts while no renewal can be committed."""

    resource: ClassVar[Resource] = Resource.PROMISE


# ------------------------------------------------------------------ votes and words


@dataclass(frozen=True, slots=True)
class CastVote(Command):
    """Say what this node sees of the service in this epoch. `over_index`: the own vote's index last read (0: never voted)."""

    resource: ClassVar[Resource] = Resource.VOTE
    down: bool
    over_index: int
    evidence: str


@dataclass(frozen=True, slots=True)
class GiveWord(Command):
    """Before the first lease: promise that the service here is not writable and stays so without a lease."""

    resource: ClassVar[Resource] = Resource.VOTE


# ------------------------------------------------------------------ the service


@dataclass(frozen=True, slots=True)
class FenceService(Command):
    """Make the service not writable at once: kill every process of it and see that none is left."""

    resource: ClassVar[Resource] = Resource.SERVICE
    cause: str


@dataclass(frozen=True, slots=True)
class StopService(Command):
    """Stop the service cleanly (it flushes to its standbys), by force when that takes too long."""

    resource: ClassVar[Resource] = Resource.SERVICE
    cause: str


@dataclass(frozen=True, slots=True)
class StartService(Command):
    """Start the service read-only (sealed), following nobody yet."""

    resource: ClassVar[Resource] = Resource.SERVICE


@dataclass(frozen=True, slots=True)
class StopReceiving(Command):
    """Stop receiving from any older epoch and read the final position, valid for a choice in `epoch`."""

    resource: ClassVar[Resource] = Resource.SERVICE


@dataclass(frozen=True, slots=True)
class FollowLeader(Command):
    """Receive from `leader` as its standby in this epoch."""

    resource: ClassVar[Resource] = Resource.SERVICE
    leader: str


class RejoinMode(StrEnum):
    """How a member whose history differs comes back."""

    REWIND = "rewind"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class RejoinService(Command):
    """Bring a diverged member back as the leader's standby: by rewinding, or by a new base copy."""

    resource: ClassVar[Resource] = Resource.SERVICE
    leader: str
    mode: RejoinMode


@dataclass(frozen=True, slots=True)
class PromoteService(Command):
    """Make the service writable, under the lease of this epoch. The only command that does."""

    resource: ClassVar[Resource] = Resource.SERVICE
    irreversible: ClassVar[bool] = True
    sync_names: tuple[str, ...] | None
    known_promotions: tuple[Promotion, ...]


@dataclass(frozen=True, slots=True)
class SealService(Command):
    """Make sure that a restart of the service by anybody comes up read-only."""

    resource: ClassVar[Resource] = Resource.SERVICE


@dataclass(frozen=True, slots=True)
class SetSyncNames(Command):
    """Tell the writable service whose acknowledgement each commit waits for."""

    resource: ClassVar[Resource] = Resource.SETTINGS
    names: tuple[str, ...]


# ------------------------------------------------------------------ what follows the leader


@dataclass(frozen=True, slots=True)
class RaiseRoutes(Command):
    """Have everything that follows the leader point here, under the lease of this epoch; not what answers elsewhere."""

    resource: ClassVar[Resource] = Resource.ROUTES


@dataclass(frozen=True, slots=True)
class DropRoutes(Command):
    """Take off whatever points here. It goes before everything else on its resource, and is never stale: off is the safe state."""

    resource: ClassVar[Resource] = Resource.ROUTES


@dataclass(frozen=True, slots=True)
class ProbeRoutes(Command):
    """Ask whether anything that follows the leader answers elsewhere. Changes nothing."""

    resource: ClassVar[Resource] = Resource.ROUTES


class HookRole(StrEnum):
    """What a node has become, as its hooks are told."""

    ELECTED = "elected"
    DEFEATED = "defeated"


@dataclass(frozen=True, slots=True)
class RunHooks(Command):
    """Run the operator's commands for what this node has become in this epoch."""

    resource: ClassVar[Resource] = Resource.HOOKS
    role: HookRole


# ------------------------------------------------------------------ operators


class IntentOutcome(StrEnum):
    """How an operator's intent ended."""

    DONE = "done"
    REFUSED = "refused"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class FinishIntent(Command):
    """Record how an operator's intent ended and take it off the list."""

    resource: ClassVar[Resource] = Resource.INTENT
    identity: str
    index: int
    outcome: IntentOutcome
    sentence: str
