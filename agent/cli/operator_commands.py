"""`quorate switchover`, `pause` and `resume`: an operator's own intents, recorded with who and why. The group's leader decides about them.

The command waits and shows what happens until the intent has ended. Exit 0 done, 1 refused or out of time, 3 nobody can tell.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import (
    DEFAULT_FILE,
    ConfigOption,
    GroupArgument,
    NobodyAnswered,
    NodeOption,
    Output,
    OutputOption,
    Refused,
    TokenOption,
    known_group,
    load_configuration,
    note,
    say,
    say_json,
)
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.cli.api_client import ApiClient
    from agent.configuration.model import Configuration
    from agent.coordination.intents import StoredIntent
    from agent.reporting.status import GroupStatus

POLL_S = 0.25
WAIT_S = 120.0
"""Longer than the core lets an intent live: it always ends before."""

app = typer.Typer()

ReasonOption = Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; recorded with who.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether you are sure.")]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Return when the intent is recorded.")]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be recorded, and how the command behaves."""

    kind: str
    group: str
    node: str | None
    reason: str
    question: str
    yes: bool
    wait: bool
    output: Output


@app.command()
def switchover(
    group: GroupArgument,
    to: Annotated[str | None, typer.Option("--to", metavar="NODE", help="The new leader; else the best.", show_default=False)] = None,
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_FILE,
    node: NodeOption = None,
    output: OutputOption = Output.TABLE,
    token_file: TokenOption = None,
    *,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> None:
    """Have another member lead.

    The leader stops cleanly, nothing is lost, the new one takes over.

    Example: quorate switchover pg-main --to pg2 --reason "kernel update of pg1"
    """
    question = f"Switch {group} over to {to or 'the best other member'}? Its clients are cut off for a moment."
    order = Order("switchover", group, to, reason, question, yes=yes, wait=not no_wait, output=output)
    _carry_out(order, load_configuration(config), node, token_file)


@app.command()
def pause(
    group: GroupArgument,
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_FILE,
    node: NodeOption = None,
    output: OutputOption = Output.TABLE,
    token_file: TokenOption = None,
    *,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> None:
    """Pause a group: no failover until resume.

    Example: quorate pause pg-main --reason "storage work until 15:00"
    """
    question = f"Pause {group}? Until it is resumed nothing fails over, whatever happens."
    order = Order("pause", group, None, reason, question, yes=yes, wait=not no_wait, output=output)
    _carry_out(order, load_configuration(config), node, token_file)


@app.command()
def resume(
    group: GroupArgument,
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_FILE,
    node: NodeOption = None,
    output: OutputOption = Output.TABLE,
    token_file: TokenOption = None,
    *,
    no_wait: NoWaitOption = False,
) -> None:
    """Resume a paused group.

    Example: quorate resume pg-main
    """
    order = Order("resume", group, None, reason, "", yes=True, wait=not no_wait, output=output)
    _carry_out(order, load_configuration(config), node, token_file)


def _carry_out(order: Order, configuration: Configuration, node: str | None, token_file: Path | None) -> None:
    from agent.cli.api_client import client_here  # noqa: PLC0415 - it imports the configuration

    known_group(configuration, order.group)
    _known_member(configuration, order)
    client = client_here(configuration, node, token_file)
    if not order.yes and sys.stdin.isatty() and not _agrees(order.question):
        raise Refused("nothing was done")
    wish = {"kind": order.kind, "group": order.group, "node": order.node, "who": _who(), "why": order.reason}
    answer = client.post("/api/v1/intents", wish)
    identity = str(json.loads(answer.body)["identity"])
    note(f"{order.kind} of {order.group} is recorded at {answer.node} as {identity}")
    if not order.wait:
        _report(order, identity, None)
        return
    _report(order, identity, _wait(client, order.group, identity))


def _agrees(question: str) -> bool:
    """Ask the person; beside the answer, so that standard output stays the command's own (typer's question leaves a blank there)."""
    typer.echo(f"{question} [y/N]: ", nl=False, err=True)
    typed = sys.stdin.readline()
    if not typed:
        raise typer.Abort
    return typed.strip().lower() in {"y", "yes"}


def _known_member(configuration: Configuration, order: Order) -> None:
    from agent.configuration.wording import nearest  # noqa: PLC0415 - slow; only when a command runs

    members = configuration.groups[order.group].members
    if order.node is not None and order.node not in members:
        raise UsageError(
            f"--to {order.node}: no member of {order.group}{nearest(order.node, members)}; members: {', '.join(sorted(members))}"
        )


def _who() -> str:
    """The person as far as this host knows: under sudo the one who called it."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _wait(client: ApiClient, group: str, identity: str) -> StoredIntent:
    """Poll until the intent has ended, and say each change that is seen. Raises NobodyAnswered when nobody can tell."""
    shown, silence = "", ""
    for _ in range(round(WAIT_S / POLL_S)):
        try:
            intent = _intent(client, group, identity)
            if intent.outcome is not None:
                return intent
            seen = _progress(client, group)
        except NobodyAnswered as error:
            seen = silence = str(error)
        if seen != shown:
            note(f"  {seen}")
            shown = seen
        time.sleep(POLL_S)
    raise NobodyAnswered(silence or f"the intent has not ended within {WAIT_S:.0f} s")


def _intent(client: ApiClient, group: str, identity: str) -> StoredIntent:
    from agent.cli.status_commands import decoded  # noqa: PLC0415 - beside its one use
    from agent.coordination.intents import StoredIntent  # noqa: PLC0415 - slow; only when a command runs

    return decoded(StoredIntent, client.get(f"/api/v1/intents/{group}/{identity}"))


def _progress(client: ApiClient, group: str) -> str:
    from agent.cli.status_commands import decoded  # noqa: PLC0415 - beside its one use
    from agent.reporting.status import GroupStatus  # noqa: PLC0415 - slow; only when a command runs

    seen: GroupStatus = decoded(GroupStatus, client.get(f"/api/v1/groups/{group}"))
    return f"leader {seen.leader or 'nobody'}, epoch {seen.epoch}: {seen.situation.replace('_', ' ')}"


def _report(order: Order, identity: str, ended: StoredIntent | None) -> None:
    outcome = "recorded" if ended is None or ended.outcome is None else ended.outcome.value
    sentence = "" if ended is None else ended.sentence
    if order.output is Output.JSON:
        say_json({"identity": identity, "group": order.group, "kind": order.kind, "outcome": outcome, "sentence": sentence})
    else:
        say(f"{outcome}: {sentence}" if sentence else outcome)
    if outcome not in {"recorded", "done"}:
        raise typer.Exit(1)
