"""What the toy world is made of: a perfect coordinator as a dict, databases as lists of writes, and hosts that outlive their agents."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agent.coordination.coordinator import Committed, Entry, Operation, Refused, Snapshot, Transaction, Verb
from agent.decision.memory import Memory
from agent.decision.view import Branch, ServiceState
from agent.knowledge import HighWater, Knowledge
from agent.watchdog import deadline as watch

GROUP = "pg-main"

# ------------------------------------------------------------------ the coordinator


class Store:
    """Runs transactions: all or nothing, one after another."""

    def __init__(self) -> None:
        self.index = 1
        self.entries: dict[str, Entry] = {}
        self.sessions: set[str] = set()
        self.is_up = True

    def run(self, transaction: Transaction) -> Committed | Refused:
        work, index = dict(self.entries), self.index + 1
        for number, operation in enumerate(transaction):
            if not self._apply(work, operation, index):
                return Refused(number, f"{operation.verb} {operation.key}")
        self.entries, self.index = work, index
        return Committed(index)

    def _apply(self, work: dict[str, Entry], op: Operation, index: int) -> bool:
        entry = work.get(op.key)
        match op.verb:
            case Verb.CHECK_INDEX:
                return entry is not None and entry.index == op.index
            case Verb.CHECK_NOT_EXISTS:
                return entry is None
            case Verb.CHECK_SESSION:
                return entry is not None and entry.session == op.session
            case Verb.CAS if (0 if entry is None else entry.index) != op.index:
                return False
            case Verb.LOCK if op.session not in self.sessions or (entry is not None and entry.session not in (None, op.session)):
                return False
            case Verb.UNLOCK if entry is None or entry.session != op.session:
                return False
            case Verb.DELETE_CAS:
                return entry is not None and entry.index == op.index and work.pop(op.key) is entry
        locked = op.session if op.verb is Verb.LOCK else None if op.verb is Verb.UNLOCK or entry is None else entry.session
        value = op.value if op.value is not None or entry is None else entry.value
        work[op.key] = Entry(value or b"", index, locked)
        return True

    def snapshot(self) -> Snapshot:
        return Snapshot(self.index, dict(self.entries))

    def end_session(self, session: str) -> None:
        self.sessions.discard(session)
        self.index += 1
        freed = {k: replace(e, session=None, index=self.index) for k, e in self.entries.items() if e.session == session}
        self.entries |= freed


# ------------------------------------------------------------------ a node: what outlives its agent, and the agent


@dataclass
class Service:
    """A database: a list of writes. What is in `log` is on disk."""

    state: ServiceState = ServiceState.STANDBY
    log: list[int] = field(default_factory=lambda: [0])
    timeline: int = 1
    history: tuple[Branch, ...] = ()
    upstream: str | None = None
    receiving: bool = False
    sync_names: tuple[str, ...] = ()
    effective_lsn: int | None = None

    def kill(self) -> None:
        self.state, self.receiving, self.effective_lsn = ServiceState.DOWN, False, None

    def is_prefix_of(self, other: Service) -> bool:
        return other.log[: len(self.log)] == self.log


@dataclass
class Node:
    """One host."""

    name: str
    offset_s: float
    service: Service = field(default_factory=Service)
    guard: watch.GroupState = field(default_factory=lambda: watch.GroupState(watch.Target("/data", 1, 0.3)))
    disk: HighWater = field(default_factory=HighWater)
    own_timelines: tuple[tuple[int, int], ...] = ()
    life: int = 0
    knowledge: Knowledge | None = None
    memory: Memory = field(default_factory=Memory)
    frozen_until_s: float = 0.0
    cut_until_s: float = 0.0
    wake_at_s: float = 0.0
    seen_since_s: tuple[bool, float] = (True, 0.0)
