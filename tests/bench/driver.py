"""What every contender's driver promises, so that one loop runs them all; and what the peers' drivers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.faults import Fault
from tests.bench.scene import LEADER, Scene
from tests.lab.network import LabFailed
from tests.lab.template import SQL
from tests.polling import eventually

START_WITHIN_S = 90.0
ROLES_SQL = ("CREATE ROLE plain LOGIN", "CREATE ROLE quorate_rewind LOGIN")
"""The roles that the lab's tables are granted to."""


class Driver(ABC):
    """One product on one stage, for one run. Close it, or use it as a context: nothing of it is left then."""

    @abstractmethod
    def start(self) -> None:
        """Returns when the first host is primary, both others stream from it, every part says that it is well, and the client writes."""

    @property
    @abstractmethod
    def client_folder(self) -> Path:
        """Where the client's ledger and samples are."""

    @abstractmethod
    def psql(self, name: str, sql: str) -> str | None:
        """A superuser's question to a member on its own host; None: no answer."""

    @abstractmethod
    def do(self, fault: Fault) -> None:
        """Break the first primary's host in this way."""

    @abstractmethod
    def close(self) -> None:
        """End and remove everything."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Peer(Driver):
    """A peer on a scene. `agent_units`: the units whose death is the agent's death."""

    agent_units: tuple[str, ...]

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def start(self) -> None:
        self.start_service()
        self.scene.start_client()
        ledger = self.client_folder / "ledger"
        eventually(lambda: ledger.exists() and ledger.stat().st_size > 0, START_WITHIN_S, "the first row is acknowledged")

    @abstractmethod
    def start_service(self) -> None:
        """All of `start` but the client."""

    @property
    def client_folder(self) -> Path:
        return self.scene.client_folder

    def psql(self, name: str, sql: str) -> str | None:
        return self.scene.psql(name, sql)

    def do(self, fault: Fault) -> None:
        self.scene.do(fault, self.agent_units)

    def close(self) -> None:
        self.scene.close()

    def make_tables(self) -> None:
        """The ledger and the sampler's row, on the first primary."""
        for statement in (*ROLES_SQL, *SQL):
            if self.scene.psql(LEADER, statement) is None:
                raise LabFailed(f"the primary refused: {statement[:60]}")

    def wait_streaming(self) -> None:
        eventually(lambda: self.scene.streaming() == len(self.scene.hosts) - 1, START_WITHIN_S, "both standbys stream")
