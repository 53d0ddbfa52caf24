"""The contract of a service that the agent controls: what every engine's adapter promises. `postgres_service.py` is one.

All methods are idempotent, end within their own deadline, and raise ActionError with one sentence. None of them looks at leases: the
Guard that they are handed does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from actions.base import Guard
from agent.coordination.lease import Position, Promotion
from agent.decision.command import RejoinMode
from agent.decision.view import ServiceView


class Service(Protocol):
    """One instance of a service on this node."""

    @property
    def data_dir(self) -> Path:
        """The folder that all of its processes stand in."""
        ...

    @property
    def owner_uid(self) -> int:
        """The system user that its processes run as."""
        ...

    async def read(self, timeout_s: float) -> ServiceView:
        """Facts of the moment. Never raises for what the service does; `since` and `stopped_for_epoch` are left to the caller."""
        ...

    def main_pid(self) -> int | None:
        """The first process of the running service, to be told of its death at once; None when it does not run."""
        ...

    async def start(self, guard: Guard) -> None:
        """Start read-only, following nobody, sealed."""
        ...

    async def stop(self, guard: Guard) -> Position | None:
        """Stop cleanly, by force when that takes too long. The exact position at which it ended, when it ended cleanly."""
        ...

    async def fence(self, guard: Guard) -> None:
        """Kill every process of it and see that none is left."""
        ...

    async def stop_receiving(self, guard: Guard) -> Position:
        """Stop the receiver for good; the final position."""
        ...

    async def follow(self, leader: str, guard: Guard) -> None:
        """Receive from `leader`."""
        ...

    async def rejoin(self, leader: str, mode: RejoinMode, guard: Guard) -> None:
        """Bring a diverged instance back as a standby of `leader`."""
        ...

    async def promote(self, sync_names: tuple[str, ...] | None, known: tuple[Promotion, ...], guard: Guard) -> None:
        """Make it writable, and sealed. The guard is asked right before and right after."""
        ...

    async def seal(self, guard: Guard) -> None:
        """Have every restart by anybody come up read-only."""
        ...

    async def set_sync_names(self, names: tuple[str, ...], guard: Guard) -> None:
        """Tell it whose acknowledgement each commit waits for; returns when that is in force."""
        ...

    async def close(self) -> None:
        """Free connections. The service itself runs on."""
        ...
