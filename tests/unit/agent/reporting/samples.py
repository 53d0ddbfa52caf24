"""Views and documents that several tests start from: a group of three that is well, as pg1 (its leader) sees it. Tests change one thing."""

from __future__ import annotations

from agent.coordination.coordinator import Entry
from agent.coordination.lease import LeaseRecord, LeaseState, Position, Sight, Tenure, Terms
from agent.decision.view import (
    Candidacy,
    CoordinationView,
    Durability,
    FenceLayer,
    FenceView,
    GroupSpec,
    LeaseView,
    MemberView,
    OnCrash,
    ServiceState,
    ServiceView,
    View,
)
from agent.instant import NANOSECONDS, Instant
from agent.reporting.status import CheckStatus, CoordinationStatus, StatusDocument, build_group_status

WALL_S = 1_800_000_000.0
TERMS = Terms(ttl_s=5.0, fence_budget_s=0.5)


class StillClock:
    """Moves only when a test says so."""

    def __init__(self) -> None:
        self.instant = at(100)
        self.nonces = 0

    def now(self) -> Instant:
        return self.instant

    def wall_s(self) -> float:
        return WALL_S

    def nonce(self) -> str:
        self.nonces += 1
        return f"{self.nonces:016x}"

    def fraction(self) -> float:
        return 0.5


def at(seconds: float) -> Instant:
    return Instant(round(seconds * NANOSECONDS), round(seconds * NANOSECONDS))


NOW = at(100)


def group_spec() -> GroupSpec:
    return GroupSpec(
        name="pg-main",
        engine="postgres",
        members={"pg1": Candidacy(), "pg2": Candidacy()},
        witnesses=("edge1",),
        terms=TERMS,
        renew_s=1.0,
        patience_s=10.0,
        durability=Durability.SYNC,
        max_lag_bytes=1 << 20,
        on_crash=OnCrash.FAILOVER,
        restart_timeout_s=10.0,
        sync_timeout_s=3.0,
        cooldown_s=60.0,
        required_fences=frozenset({FenceLayer.SEAL, FenceLayer.WATCHDOG}),
    )


def record() -> LeaseRecord:
    return LeaseRecord(
        group="pg-main",
        holder="pg1",
        incarnation="boot-1",
        epoch=3,
        sequence=40,
        nonce="n40",
        terms=TERMS,
        state=LeaseState.HELD,
        voters=("edge1", "pg1", "pg2"),
        votes_needed=2,
        sync_set=("pg2",),
    )


def member(name: str, state: ServiceState, lsn: int, upstream: str | None = None) -> MemberView:
    position = Position(2, lsn)
    return MemberView(name, NOW.after(-0.4), f"{name}-life", state, position, upstream=upstream, receiving=upstream is not None)


def lease(held: LeaseRecord) -> LeaseView:
    sight = Sight(held.epoch, held.sequence, 7, NOW.after(-0.3), 5.6, 5.6)
    return LeaseView(exists=True, record=held, entry=Entry(b"{}", 7, "s1"), sight=sight)


def leading_view() -> View:
    return View(
        node="pg1",
        incarnation="pg1-life",
        group=group_spec(),
        coordination=CoordinationView(answered=NOW.after(-0.1), session="s1"),
        lease=lease(record()),
        tenure=Tenure(record(), 7, "s1", dated=NOW.after(-1.0)),
        service=ServiceView(ServiceState.PRIMARY, seen=NOW.after(-0.1), position=Position(2, 0x3000148), sealed=True),
        fences=FenceView(
            frozenset({FenceLayer.SEAL, FenceLayer.WATCHDOG}), watchdog_alive=True, armed_epoch=3, armed_deadline=NOW.after(3.5)
        ),
        members={
            "pg1": member("pg1", ServiceState.PRIMARY, 0x3000148),
            "pg2": member("pg2", ServiceState.STANDBY, 0x3000100, upstream="pg1"),
            "edge1": MemberView("edge1", NOW.after(-0.4), "edge1-life", ServiceState.UNKNOWN),
        },
    )


def check_status(name: str = "pg-alive", kind: str = "postgres", status: str = "healthy") -> CheckStatus:
    return CheckStatus(name, kind, "liveness", status, f"{name} says so", WALL_S - 60, 0.002, WALL_S - 1)


def document() -> StatusDocument:
    return StatusDocument(
        version="0.1.0",
        node="pg1",
        wall_s=WALL_S,
        coordination=CoordinationStatus("a file on this host", up=True, answered_age_s=0.1),
        checks=(check_status(), check_status("gateway", "tcp")),
        groups=(build_group_status(leading_view(), "leading", "Renew when it is due.", "renew", (), NOW),),
    )
