"""An agent whose coordinator, once told to, answers a renewal late and then no more.

`python -m tests.integration.agents.late_answers agent …`: when the file LATE_ANSWERS_FILE names this node, the next renewal is committed
at once but its answer is held up for LATE_ANSWERS_S; everything after it never reaches the store. With DATE_AFTER_REPLY set, the lease is
dated when the answer arrives: the mistake that the design
forbids.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from agent.clock import SystemClock
from agent.coordination import lease
from agent.coordination.coordinator import Committed, Refused, Snapshot, Transaction, Verb
from agent.coordination.lease import LeaseRecord, Tenure
from agent.coordination.local import LocalCoordinator
from agent.errors import CoordinationError
from agent.execution import lease_writer

TRIGGER = Path(os.environ["LATE_ANSWERS_FILE"])
HELD_UP_S = float(os.environ["LATE_ANSWERS_S"])
DATE_AFTER_REPLY = bool(os.environ.get("DATE_AFTER_REPLY"))


class _State:
    cut = False


def _is_renewal(transaction: Transaction) -> bool:
    return any(o.verb is Verb.CHECK_SESSION for o in transaction) and any(o.verb is Verb.CAS for o in transaction)


Transact = Callable[[LocalCoordinator, Transaction, float], Awaitable[Committed | Refused]]
_transact: Transact = LocalCoordinator.transact
_read = LocalCoordinator.read
_wait = LocalCoordinator.wait


async def _late_transact(self: LocalCoordinator, transaction: Transaction, timeout_s: float) -> Committed | Refused:
    if _State.cut:
        raise CoordinationError("cut off")
    if not _is_renewal(transaction) or not TRIGGER.exists() or TRIGGER.read_text() not in sys.argv:
        return await _transact(self, transaction, timeout_s)
    _State.cut = True
    result = await _transact(self, transaction, timeout_s)
    await asyncio.sleep(HELD_UP_S)
    return result


async def _cut_read(self: LocalCoordinator, folder: str, timeout_s: float) -> Snapshot:
    if _State.cut:
        await asyncio.sleep(timeout_s)
        raise CoordinationError("cut off")
    return await _read(self, folder, timeout_s)


async def _cut_wait(self: LocalCoordinator, folder: str, index: int, timeout_s: float) -> Snapshot:
    if _State.cut:
        await asyncio.sleep(timeout_s)
        raise CoordinationError("cut off")
    snapshot = await _wait(self, folder, index, timeout_s)
    if _State.cut:
        raise CoordinationError("cut off")
    return snapshot


_settle = lease.settle


def _settle_by_reply(tenure: Tenure, record: LeaseRecord, index: int) -> Tenure | None:
    settled = _settle(tenure, record, index)
    return None if settled is None else replace(settled, dated=SystemClock().now(), adopted_deadline=None)


LocalCoordinator.transact = _late_transact  # type: ignore[method-assign]
LocalCoordinator.read = _cut_read  # type: ignore[method-assign]
LocalCoordinator.wait = _cut_wait  # type: ignore[method-assign]
if DATE_AFTER_REPLY:
    # Only what judges a reply is bent; readings were bound to the right one when lease_writer was imported.
    assert lease_writer.lease is lease
    lease.settle = _settle_by_reply

if __name__ == "__main__":
    from agent.__main__ import main

    sys.exit(main())
