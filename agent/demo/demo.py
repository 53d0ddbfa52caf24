"""`quorate demo`: a real failover on this machine in under a minute, with nothing left behind.

A primary and two standbys with an agent and a watchdog each; a writer adds a row each 20 ms; every process of the primary is killed at
once; the timeline is printed as it happens; at the end the acknowledged rows are read back by id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from agent.clock import SystemClock
from agent.demo import client
from agent.demo.cluster import GROUP, MEMBERS, Cluster, ClusterOptions
from agent.demo.throwaway_postgres import find_bin_dir, pypi_bin_dir, usable_bin_dir
from agent.demo.timeline import Happened, Step, Timeline, follow_events
from agent.demo.writer import Writer
from agent.errors import QuorateError, UsageError

READY_TIMEOUT_S = 40.0
WARM_UP_S = 2.0
FAILOVER_TIMEOUT_S = 20.0
REJOIN_TIMEOUT_S = 20.0
AFTERWARDS_S = 0.5


class DemoFailed(QuorateError):
    """The demo did not come to its end. The sentence says where it stood."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo measured."""

    outage_ms: float
    acknowledged: int
    lost: int
    rejoined: bool
    steps: tuple[tuple[str, float], ...]

    def to_json(self) -> str:
        """The object that `--output json` ends with."""
        steps = [{"step": name, "at_ms": round(at_ms, 1)} for name, at_ms in self.steps]
        value = {
            "outage_ms": round(self.outage_ms, 1),
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "rejoined": self.rejoined,
            "steps": steps,
        }
        return json.dumps(value)


def say(line: str) -> None:
    """A line for the person who watches; never mixed with the JSON on standard output."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def bin_dir_for(named: Path | None) -> Path:
    """The Postgres to use: the one named, else the one from PyPI, else the machine's. Raises UsageError with what to do."""
    if named is not None and not (named / "initdb").exists():
        raise UsageError(f"--pg-bin {named}: there is no initdb in that folder")
    found = named or pypi_bin_dir() or find_bin_dir()
    if found is None:
        raise UsageError("no Postgres found: pip install 'quorate[demo]', or give --pg-bin /usr/lib/postgresql/15/bin")
    return usable_bin_dir(found)


async def demo(pg_bin: Path | None, *, watch: bool, output: str) -> DemoResult:
    """Run it once. Everything is taken down on the way out, whatever happened."""
    cluster = Cluster(ClusterOptions(bin_dir=bin_dir_for(pg_bin)), lambda line: say(f"… {line}"))
    try:
        return await _run(cluster, watch=watch, output=output)
    except QuorateError:
        say(cluster.last_words())
        raise
    finally:
        await cluster.take_down()


async def _run(cluster: Cluster, *, watch: bool, output: str) -> DemoResult:
    await cluster.prepare()
    say("… starting three agents and three watchdogs")
    cluster.start()
    leader = await client.wait_for_group(cluster.api, READY_TIMEOUT_S)
    say(f"… {leader} leads; the other two stream from it")
    timeline = Timeline(on_step=lambda happened: say(_line(timeline, happened)))
    followers = [asyncio.create_task(follow_events(name, cluster.api[name], timeline)) for name in MEMBERS]
    writer = Writer(cluster.conninfo(), 0.02, SystemClock())
    writing = asyncio.create_task(writer.run())
    try:
        result = await _fail_over(cluster, leader, writer, timeline)
        _report(result, output)
        if watch:
            await _watch(cluster)
    finally:
        writer.stop()
        for task in followers:
            task.cancel()
        await asyncio.gather(writing, *followers, return_exceptions=True)
    return result


async def _fail_over(cluster: Cluster, leader: str, writer: Writer, timeline: Timeline) -> DemoResult:
    say("… a client writes a row each 20 ms")
    await asyncio.sleep(WARM_UP_S)
    if not writer.ledger.acknowledged:
        raise DemoFailed("the client could not write a single row before the kill")
    before = len(writer.ledger.acknowledged)
    first_s = min(writer.ledger.acknowledged.values())
    timeline.killed_s = killed_s = writer.now_s()
    rate = before / (killed_s - first_s)
    say(f"{'kill':>12} {0.0:8.1f} ms  {leader}  SIGKILL to every process of the primary ({before} rows acknowledged, {rate:.0f} a second)")
    cluster.kill_service(leader)
    if not await timeline.wait_for(Step.PROMOTED, FAILOVER_TIMEOUT_S):
        raise DemoFailed(f"no standby was promoted within {FAILOVER_TIMEOUT_S:.0f} s of the kill; see `quorate status {GROUP}`")
    await _first_write(writer, timeline)
    rejoined = await client.wait_until_streaming(cluster.api, leader, REJOIN_TIMEOUT_S)
    if rejoined:
        timeline.add(Happened(Step.REJOINED, leader, writer.now_s(), "the old primary streams as a standby"))
    await asyncio.sleep(AFTERWARDS_S)
    missing = await writer.missing()
    steps = tuple((step.value, timeline.at_ms(step)) for step in Step if step in timeline.steps)
    return DemoResult(writer.ledger.outage_s(killed_s) * 1000, len(writer.ledger.acknowledged), len(missing), rejoined, steps)


async def _first_write(writer: Writer, timeline: Timeline) -> None:
    """The row that ended the outage."""
    deadline_s = writer.now_s() + FAILOVER_TIMEOUT_S
    promoted_s = timeline.steps[Step.ELECTED].at_s if Step.ELECTED in timeline.steps else timeline.killed_s
    while writer.now_s() < deadline_s:
        later = [at_s for at_s in writer.ledger.acknowledged.values() if at_s > promoted_s]
        if later:
            timeline.add(Happened(Step.FIRST_WRITE, "client", min(later), "a row was acknowledged again"))
            return
        await asyncio.sleep(0.02)
    raise DemoFailed("the client could not write again after the promotion")


async def _watch(cluster: Cluster) -> None:
    """Stay up until Ctrl-C."""
    say(f"… the page: http://{cluster.api[MEMBERS[0]]}/ (Ctrl-C ends it and removes everything)")
    say(f"… in another terminal: .venv/bin/quorate status --config {cluster.config_file}")
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()


def _line(timeline: Timeline, happened: Happened) -> str:
    return f"{happened.step.value:>12} {timeline.at_ms(happened.step):8.1f} ms  {happened.node}  {happened.sentence}"


def _report(result: DemoResult, output: str) -> None:
    """The answer of the command, on standard output."""
    lines = (
        f"outage            {result.outage_ms:.0f} ms, as the client saw it",
        f"rows acknowledged {result.acknowledged}",
        f"rows lost         {result.lost}",
    )
    sys.stdout.write((result.to_json() if output == "json" else "\n".join(lines)) + "\n")
    sys.stdout.flush()


def run(pg_bin: Path | None, *, watch: bool, output: str) -> int:
    """The command: 0 when no row was lost and the old primary came back, else 1."""
    try:
        result = asyncio.run(_until_signal(pg_bin, watch=watch, output=output))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    return 0 if result.lost == 0 and result.rejoined else 1


async def _until_signal(pg_bin: Path | None, *, watch: bool, output: str) -> DemoResult:
    """Ctrl-C and SIGTERM cancel the demo, so that its `finally` takes everything down."""
    task = asyncio.create_task(demo(pg_bin, watch=watch, output=output))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, task.cancel)
    return await task
