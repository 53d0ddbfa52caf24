"""Whether somebody takes TCP connections. Connects and hangs up; sends nothing. Both levels ask the same."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from checks.base import Check, CheckOptions, Facts, Level, Result, RunLog, Status
from checks.network import RESOLVER, Progress, Reason, split_address, within


def _address(value: str) -> str:
    split_address(value)
    return value


class TcpOptions(CheckOptions):
    """Options of `type: tcp`."""

    address: Annotated[str, AfterValidator(_address)]
    """HOST:PORT."""


@dataclass(frozen=True, slots=True)
class TcpFacts(Facts):
    """Which of the name's addresses took the connection."""

    address: str


class TcpCheck(Check[TcpOptions]):
    """One connection, taken or not."""

    kind: ClassVar[str] = "tcp"
    options_model: ClassVar[type[CheckOptions]] = TcpOptions
    levels: ClassVar[frozenset[Level]] = frozenset({Level.LIVENESS, Level.READINESS})

    async def probe(self, timeout_s: float, log: RunLog) -> Result:
        """Connect once; of several addresses one that answers is enough, each has its share of the time."""
        progress = Progress(log)
        return await within(self.options.address, timeout_s, progress, self._ask(timeout_s, progress))

    async def _ask(self, timeout_s: float, progress: Progress) -> Result:
        host, port = split_address(self.options.address)
        progress.enter("looking the name up", ours=Reason.UNRESOLVED)
        addresses = await RESOLVER.resolve(host)
        for position, address in enumerate(addresses):
            progress.enter(f"connecting to {address} port {port}")
            share_s = (timeout_s - progress.elapsed_s) / (len(addresses) - position)
            is_last = position == len(addresses) - 1
            try:
                await _connect(address, port, None if is_last else share_s)
            except OSError as error:
                if is_last:
                    raise
                progress.log.add(f"{address}: {error.strerror or 'no answer'}")
            else:
                break
        return Result(Status.HEALTHY, f"{self.options.address} takes connections", facts=TcpFacts(address=address))


async def _connect(address: str, port: int, timeout_s: float | None) -> None:
    """Connect and hang up; None: the caller keeps the deadline."""
    async with asyncio.timeout(timeout_s):
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, address, port)
    transport.abort()
