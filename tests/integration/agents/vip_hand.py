"""Does to one VIP what it is told on standard input, a line each, and answers with one line: the hand of tests/integration/test_vip.py."""

from __future__ import annotations

import asyncio
import sys
from ipaddress import ip_interface
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from actions.base import ActionError, ActionTooLate
from actions.vip import DropVip, Lifetime, RaiseVip, Vip, renew, rival, tell_neighbours
from tests.guards import GUARD


def lifetime_of(word: str) -> Lifetime:
    if word == "forever":
        return lambda: None
    if word == "late":
        return runs_out()
    return lambda: float(word)


def runs_out() -> Lifetime:
    """Time was left when it was asked, and none when it had been added."""
    left = iter([1.0])

    def lifetime() -> float:
        seconds = next(left, None)
        if seconds is None:
            raise ActionTooLate("the lease ran out")
        return seconds

    return lifetime


async def obey(vip: Vip, order: str) -> str:
    verb, _, word = order.partition(" ")
    try:
        if verb == "probe":
            return await rival(vip) or "nobody"
        if verb == "renew":
            return "renewed" if await renew(vip, lifetime_of(word)) else "gone"
        if verb == "raise":
            await RaiseVip(vip, lifetime_of(word)).apply(GUARD)
        elif verb == "drop":
            await DropVip(vip).apply(GUARD)
        elif verb == "announce":
            await tell_neighbours(vip)
    except ActionError as error:
        return str(error)
    return "done"


async def main() -> None:
    vip = Vip(ip_interface(sys.argv[1]))
    loop = asyncio.get_running_loop()
    while order := await loop.run_in_executor(None, sys.stdin.readline):
        answer = await obey(vip, order.strip())
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


asyncio.run(main())
