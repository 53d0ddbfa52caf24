"""One node's hands for unit tests: a real local coordinator, journal and state folder; a service and a watchdog that obey by the book.

The stand-ins do what they are told and note it; a test makes one fail, hang or lie by setting a field.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from actions.base import Guard
from agent.clock import SystemClock
from agent.coordination.coordinator import Committed, Coordinator, Refused, Snapshot, Transaction
from agent.coordination.lease import LeaseRecord, LeaseState, Position, Promotion, Terms, group_folder
from agent.coordination.local import LocalCoordinator
from agent.coordination.node_state import StateFolder, Writer
from agent.decision.command import RejoinMode
from agent.decision.view import FenceLayer, GroupSpec, ServiceState, ServiceView
from agent.errors import WatchdogError
from agent.execution.crash_points import CrashPoint
from agent.execution.hands import Hands
from agent.execution.journal import Journal
from agent.execution.kernel_lease import KernelLease
from agent.execution.remembered import Remembered
from agent.execution.watchdog_client import Acknowledged, Armed, WatchdogClient
from agent.instant import Instant
from agent.knowledge import HighWater, Knowledge
from tests.unit.agent.reporting.samples import group_spec

NODE = "pg1"
SPEC = replace(group_spec(), renew_s=0.1, terms=Terms(2.0, 0.3))
WRITER = Writer("boot-1", "machine-1", "life-1")
TIMEOUT_S = 10.0


class ShiftedClock:
    """The machine's clock, which a test may set on."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.shift_s = 0.0

    def now(self) -> Instant:
        return self._clock.now().after(self.shift_s)

    def wall_s(self) -> float:
        return self._clock.wall_s() + self.shift_s

    def nonce(self) -> str:
        return self._clock.nonce()

    def fraction(self) -> float:
        return 0.5


@dataclass
class StandInService:
    """A service in memory. `wait`: what each command waits for before it does anything; `errors`: what each raises instead."""

    data_dir: Path
    owner_uid: int = 0
    seen: ServiceView = field(default_factory=lambda: ServiceView(ServiceState.STANDBY, position=Position(1, 100), sealed=True))
    calls: list[str] = field(default_factory=list)
    wait: dict[str, asyncio.Event] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    pid: int | None = None
    reads: int = 0
    closed: bool = False
    at_step: Callable[[], None] = lambda: None
    """Called between the two times that a promotion asks its guard."""
    stopped_at: Position | None = field(default_factory=lambda: Position(1, 120))

    async def read(self, timeout_s: float) -> ServiceView:
        assert timeout_s > 0
        self.reads += 1
        if "read" in self.wait:
            await self.wait["read"].wait()
        return self.seen

    def main_pid(self) -> int | None:
        return self.pid

    async def _do(self, name: str, guard: Guard) -> None:
        self.calls.append(name)
        if name in self.wait:
            await self.wait[name].wait()
        if name in self.errors:
            raise self.errors[name]
        await guard.step(name)

    async def start(self, guard: Guard) -> None:
        await self._do("start", guard)

    async def stop(self, guard: Guard) -> Position | None:
        await self._do("stop", guard)
        self.seen = replace(self.seen, state=ServiceState.DOWN, position=self.stopped_at or self.seen.position)
        return self.stopped_at

    async def fence(self, guard: Guard) -> None:
        await self._do("fence", guard)
        self.seen = replace(self.seen, state=ServiceState.DOWN)

    async def stop_receiving(self, guard: Guard) -> Position:
        await self._do("stop_receiving", guard)
        self.seen = replace(self.seen, receiving=False)
        return Position(1, 0x100)

    async def follow(self, leader: str, guard: Guard) -> None:
        await self._do(f"follow {leader}", guard)

    async def rejoin(self, leader: str, mode: RejoinMode, guard: Guard) -> None:
        await self._do(f"rejoin {leader} {mode.value}", guard)

    async def promote(self, sync_names: tuple[str, ...] | None, known: tuple[Promotion, ...], guard: Guard) -> None:
        guard.permit()
        await self._do(f"promote {sync_names} {len(known)}", guard)
        self.at_step()
        guard.permit()
        self.seen = replace(self.seen, state=ServiceState.PRIMARY, position=Position(2, 130))

    async def seal(self, guard: Guard) -> None:
        await self._do("seal", guard)

    async def set_sync_names(self, names: tuple[str, ...], guard: Guard) -> None:
        guard.permit()
        await self._do(f"set_sync_names {names}", guard)

    async def close(self) -> None:
        self.closed = True


@dataclass
class StandInWatchdog:
    """What a WatchdogClient is asked. `shorter_s`: it acknowledges so much less than it was given; `error`: what it refuses with."""

    alive: bool = True
    armed: Armed | None = None
    error: str = ""
    calls: list[str] = field(default_factory=list)
    handed: list[tuple[int, Instant, str]] = field(default_factory=list)
    shorter_s: float = 0.0

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.error:
            raise WatchdogError(self.error)

    async def register(self, group: str, data_dir: Path, uid: int, fence_budget_s: float, addresses: tuple[str, ...] = ()) -> None:
        self._note(f"register {group} {data_dir.name} {uid} {fence_budget_s}" + "".join(f" {address}" for address in addresses))

    async def adopt(self, group: str) -> Armed | None:
        self._note(f"adopt {group}")
        return self.armed

    async def hand_over(self, group: str, epoch: int, deadline: Instant, nonce: str, timeout_s: float) -> Acknowledged:
        assert timeout_s > 0
        self._note(f"hand_over {group}")
        self.handed.append((epoch, deadline, nonce))
        return Acknowledged(epoch, deadline.after(-self.shorter_s), nonce)

    async def suspend(self, group: str, epoch: int) -> None:
        self._note(f"suspend {group} {epoch}")

    async def release(self, group: str) -> None:
        self._note(f"release {group}")

    async def close(self) -> None:
        self._note("close")


@dataclass
class StandInKernel:
    """What a KernelLease is asked; the door obeys."""

    watchdog: StandInWatchdog
    stands: bool = True
    epoch: int | None = None
    problem: str = ""
    calls: list[str] = field(default_factory=list)
    armed: list[tuple[int, Instant]] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    """The watchdog's last call before each of ours."""

    def _note(self, call: str, epoch: int | None) -> None:
        self.calls.append(call)
        self.after.append(self.watchdog.calls[-1] if self.watchdog.calls else "")
        self.epoch = epoch

    async def begin(self) -> None:
        self._note("begin", None)

    async def arm(self, epoch: int, deadline: Instant) -> None:
        self._note("arm", epoch)
        self.armed.append((epoch, deadline))

    async def stand(self, still: Callable[[], bool] = lambda: True) -> None:
        if still():
            self._note("stand", None)

    async def close(self, still: Callable[[], bool] = lambda: True) -> None:
        if still():
            self._note("close", None)

    async def hang_up(self) -> None:
        self._note("hang_up", self.epoch)


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


@dataclass
class Wires:
    """A coordinator behind wires. Each hook is awaited before or after the real call; `lose`: the answer of a done transaction is lost."""

    real: Coordinator
    before_transact: Callable[[Transaction], Awaitable[None]] | None = None
    after_transact: Callable[[], Awaitable[None]] | None = None
    after_read: Callable[[Snapshot], Awaitable[None]] | None = None
    lose: Exception | None = None
    away: Exception | None = None
    """Every call fails with this."""
    session_error: Exception | None = None
    """Asking whether the session lives fails with this."""
    sent: list[Transaction] = field(default_factory=list)
    session_questions: list[str] = field(default_factory=list)
    session_gate: asyncio.Event = field(default_factory=_open_gate)
    """Asking whether the session lives waits for it."""

    @property
    def description(self) -> str:
        return self.real.description

    def _present(self) -> Coordinator:
        if self.away is not None:
            raise self.away
        return self.real

    async def identity(self) -> str:
        return await self._present().identity()

    async def open_session(self, name: str) -> str:
        return await self._present().open_session(name)

    async def session_is_alive(self, session: str) -> bool:
        self.session_questions.append(session)
        await self.session_gate.wait()
        if self.session_error is not None:
            raise self.session_error
        return await self._present().session_is_alive(session)

    async def close_session(self, session: str) -> None:
        await self._present().close_session(session)

    async def transact(self, transaction: Transaction, timeout_s: float) -> Committed | Refused:
        if self.before_transact is not None:
            await self.before_transact(transaction)
        outcome = await self._present().transact(transaction, timeout_s)
        self.sent.append(transaction)
        if self.after_transact is not None:
            await self.after_transact()
        if self.lose is not None:
            raise self.lose
        return outcome

    async def read(self, folder: str, timeout_s: float) -> Snapshot:
        snapshot = await self._present().read(folder, timeout_s)
        if self.after_read is not None:
            await self.after_read(snapshot)
        return snapshot

    async def wait(self, folder: str, index: int, timeout_s: float) -> Snapshot:
        return await self._present().wait(folder, index, timeout_s)

    async def close(self) -> None:
        await self.real.close()


@dataclass
class Stage:
    """Everything of one node, and what a test looks at."""

    hands: Hands
    clock: ShiftedClock
    wires: Wires
    service: StandInService
    watchdog: StandInWatchdog
    folder: StateFolder
    refreshed: list[str] = field(default_factory=list)

    @property
    def knowledge(self) -> Knowledge:
        return self.hands.knowledge

    async def read(self) -> None:
        """A reading of the group's folder, as the control loop takes it."""
        floor = self.knowledge.committed_index
        snapshot = await self.wires.read(group_folder(SPEC.name), TIMEOUT_S)
        self.knowledge.take_snapshot(snapshot, floor, self.clock.now())

    async def refresh(self) -> None:
        self.refreshed.append("service")
        self.knowledge.take_service(await self.service.read(1.0), self.clock.now())

    def with_kernel(self) -> StandInKernel:
        """From now on this node has a kernel layer."""
        kernel = StandInKernel(self.watchdog)
        self.hands.kernel = cast("KernelLease", kernel)
        return kernel

    async def stored(self, key: str) -> bytes | None:
        entry = (await self.wires.real.read(key, TIMEOUT_S)).entries.get(key)
        return None if entry is None else entry.value


def first_record(**changes: object) -> LeaseRecord:
    """The record of epoch 1, held by this node."""
    plain = LeaseRecord(SPEC.name, NODE, "life-1", 1, 1, "", SPEC.terms, LeaseState.HELD, ("edge1", "pg1", "pg2"), 2, sync_set=())
    return replace(plain, **changes)  # type: ignore[arg-type]


@contextmanager
def swift_folder() -> Iterator[Path]:
    """A folder whose fsyncs cost nothing, where there is such a place: these tests are about order, not about disks."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="q-unit-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@asynccontextmanager
async def staged(spec: GroupSpec = SPEC, *, fenced: bool = True) -> AsyncIterator[Stage]:
    """The hands of pg1 with an open session. `fenced`: a watchdog has to stand."""
    with swift_folder() as folder:
        async with _staged(folder, spec, fenced=fenced) as stage:
            yield stage


@asynccontextmanager
async def _staged(folder: Path, spec: GroupSpec, *, fenced: bool) -> AsyncIterator[Stage]:
    clock = ShiftedClock()
    spec = spec if fenced else replace(spec, required_fences=frozenset[FenceLayer]())
    wires = Wires(await LocalCoordinator.open(folder / "store.db", clock))
    state = StateFolder.open(folder / NODE, WRITER)
    journal = Journal.open(state.path, WRITER.incarnation, clock)
    service, watchdog = StandInService(folder / "data"), StandInWatchdog()
    remembered = Remembered(state, spec.name)
    knowledge = Knowledge(NODE, WRITER.incarnation, spec, HighWater())
    knowledge.session = await wires.open_session("test")
    hands = Hands(
        clock=clock,
        coordinator=wires,
        knowledge=knowledge,
        remembered=remembered,
        journal=journal,
        service=service,
        watchdog=cast("WatchdogClient", watchdog),
        crash_point=CrashPoint({}, state.path),
    )
    stage = Stage(hands, clock, wires, service, watchdog, state)
    hands.refresh, hands.refresh_reading = stage.refresh, stage.read
    try:
        yield stage
    finally:
        await wires.close()
        await journal.close()
        state.close()
