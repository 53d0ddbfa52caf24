"""`quorate check`: run this node's checks once, now, without any agent. Exit 0 healthy, 1 degraded, 2 unhealthy, 3 unknown."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import DEFAULT_FILE, ConfigOption, NodeOption, console, load_configuration, own_node, say, say_json
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.configuration.model import Configuration
    from agent.observation.scheduler import ScheduledCheck
    from checks.base import Result

MAX_AT_ONCE = 32
GRACE_S = 1.0
"""A check ends by itself at its deadline; one that does not is ended so much later."""

app = typer.Typer()


class CheckOutput(StrEnum):
    """How `check` prints. NAGIOS: the monitoring plugins' one line with performance data."""

    TABLE = "table"
    JSON = "json"
    NAGIOS = "nagios"


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Checks to run; all of this node if not given.")] = None,
    config: ConfigOption = DEFAULT_FILE,
    node: NodeOption = None,
    output: Annotated[CheckOutput, typer.Option("--output", "-o", help="How to print it.")] = CheckOutput.TABLE,
) -> None:
    """Run this node's checks once, without an agent.

    Exit 0 healthy, 1 degraded, 2 unhealthy, 3 unknown.

    Example: quorate check pg-alive --output nagios
    """
    from agent.observation.catalogue import catalogue_of  # noqa: PLC0415 - imports the clients of the configured kinds

    configuration = load_configuration(config)
    here = own_node(configuration, node)
    only = _known(configuration, here, names or [])
    ran = asyncio.run(_run_all(catalogue_of(configuration, here, only)))
    {CheckOutput.TABLE: _show_table, CheckOutput.JSON: _show_json, CheckOutput.NAGIOS: _show_nagios}[output](ran)
    raise typer.Exit(_worst(ran))


Ran = list[tuple["ScheduledCheck", "Result"]]


def _known(configuration: Configuration, node: str, names: list[str]) -> frozenset[str] | None:
    from agent.configuration.wording import nearest  # noqa: PLC0415 - slow; only when a command runs

    for name in names:
        entry = configuration.checks.get(name)
        if entry is None:
            raise UsageError(f"there is no check {name}{nearest(name, configuration.checks)}")
        if entry.on is not None and node not in entry.on:
            raise UsageError(f"{name} does not run on {node} but on {', '.join(entry.on)}; say which with --node")
    return frozenset(names) or None


async def _run_all(checks: tuple[ScheduledCheck, ...]) -> Ran:
    """All at once, a bounded number at a time; in the order of their names."""
    at_once = asyncio.Semaphore(MAX_AT_ONCE)

    async def run(scheduled: ScheduledCheck) -> Result:
        async with at_once:
            return await _run(scheduled)

    results = await asyncio.gather(*(run(scheduled) for scheduled in checks))
    return list(zip(checks, results, strict=True))


async def _run(scheduled: ScheduledCheck) -> Result:
    from checks.base import Result, RunLog, Status  # noqa: PLC0415 - slow; only when a command runs

    try:
        async with asyncio.timeout(scheduled.timeout_s + GRACE_S):
            return await scheduled.check.probe(scheduled.timeout_s, RunLog())
    except TimeoutError:
        return Result(Status.UNKNOWN, f"the check itself did not end within {scheduled.timeout_s + GRACE_S:g} s", scheduled.timeout_s)
    finally:
        await scheduled.check.close()


# ------------------------------------------------------------------ printing


EXIT_CODES = {"healthy": 0, "degraded": 1, "unhealthy": 2, "unknown": 3}
_WORSE = ("healthy", "degraded", "unknown", "unhealthy")
"""From good to bad: what is surely down weighs more than what nobody could ask."""
_PLUGIN_WORDS = {"healthy": "OK", "degraded": "WARNING", "unhealthy": "CRITICAL", "unknown": "UNKNOWN"}


def _worst_status(ran: Ran) -> str:
    return max((result.status.value for _, result in ran), key=_WORSE.index, default="unknown")


def _worst(ran: Ran) -> int:
    return EXIT_CODES[_worst_status(ran)]


def _show_table(ran: Ran) -> None:
    from rich.table import Table  # noqa: PLC0415 - slow; only for tables
    from rich.text import Text  # noqa: PLC0415 - the same

    from agent.cli.status_view import COLOURS  # noqa: PLC0415 - it imports the above

    table = Table("check", "kind", "level", "status", "ms", "says", box=None, pad_edge=False)
    for scheduled, result in ran:
        status = Text(result.status.value, COLOURS[result.status.value])
        milliseconds = f"{result.latency_s * 1000:.1f}"
        kind = type(scheduled.check).kind
        table.add_row(scheduled.name, kind, scheduled.check.level.value, status, milliseconds, Text(result.sentence))
    if ran:
        console().print(table)
    else:
        say("no check runs on this node")


def _show_json(ran: Ran) -> None:
    checks = [
        {
            "name": scheduled.name,
            "kind": type(scheduled.check).kind,
            "level": scheduled.check.level,
            "status": result.status,
            "sentence": result.sentence,
            "latency_s": result.latency_s,
            "facts": result.facts,
        }
        for scheduled, result in ran
    ]
    say_json({"status": _worst_status(ran), "checks": checks})


def _show_nagios(ran: Ran) -> None:
    """`SERVICE STATUS - text | performance data`, then a line for each check."""
    worst = _worst_status(ran)
    bad = [f"{s.name}: {_bare(r.sentence)}" for s, r in ran if r.status.value != "healthy"]
    text = "; ".join(bad) or (f"{len(ran)} healthy" if ran else "no check runs on this node")
    data = " ".join(f"'{s.name}'={r.latency_s:.6f}s;;;0;{s.timeout_s:g}" for s, r in ran)
    say(f"QUORATE {_PLUGIN_WORDS[worst]} - {text}" + (f" | {data}" if data else ""))
    for scheduled, result in ran:
        say(f"{_PLUGIN_WORDS[result.status.value]}: {scheduled.name}: {_bare(result.sentence)}")


def _bare(sentence: str) -> str:
    """One line without the bar that begins performance data."""
    return " ".join(sentence.replace("|", "/").split())
