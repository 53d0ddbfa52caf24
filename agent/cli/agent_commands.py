"""`quorate agent` and `watchdog`, the two daemons, and `demo`. Each is imported only when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.options import DEFAULT_FILE, ConfigOption, NodeOption, Output, OutputOption
from agent.lean import without

app = typer.Typer()


@app.command()
def agent(config: ConfigOption = DEFAULT_FILE, node: NodeOption = None) -> None:
    """Run this node's agent in the foreground.

    As Postgres' user, or as root with postgres.os_user. The fence `kernel` and a VIP need CAP_NET_ADMIN, a VIP CAP_NET_RAW, too.

    Example: quorate agent --config /etc/quorate/quorate.yaml --node pg1
    """
    with without("rich"):  # structlog takes 4 MB of it for tracebacks, which our log writes as plain text
        from agent.app import run_agent  # noqa: PLC0415 - it imports everything

    raise typer.Exit(run_agent(config, node))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def watchdog(context: typer.Context) -> None:
    """Run this node's watchdog in the foreground.

    Example: quorate watchdog --help
    """
    # Its process must have imported nothing else; `agent.__main__` sees to that, so this one makes room for it.
    os.execv(sys.executable, [sys.executable, "-m", "agent", "watchdog", *context.args])  # noqa: S606 - no shell, by design


@app.command()
def demo(
    pg_bin: Annotated[
        Path | None, typer.Option("--pg-bin", metavar="FOLDER", help="Folder of another Postgres (initdb, pg_ctl, …).", show_default=False)
    ] = None,
    output: OutputOption = Output.TABLE,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Stay up afterwards and give the page's address.")] = False,
) -> None:
    """See a failover on this machine.

    Starts a throwaway primary and two standbys, kills the primary, and prints what happens.

    Example: quorate demo --watch
    """
    from agent.demo.demo import run as run_demo  # noqa: PLC0415 - it imports everything

    raise typer.Exit(run_demo(pg_bin, watch=watch, output=output.value))
