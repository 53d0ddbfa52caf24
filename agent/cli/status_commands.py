"""`quorate status`, `explain` and `history`: read-only questions to any agent that answers, the own one first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, TypeVar

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
    console,
    known_group,
    load_configuration,
    note,
    say,
    say_json,
)

if TYPE_CHECKING:
    from agent.cli.api_client import Answer, ApiClient
    from agent.configuration.model import Configuration
    from agent.coordination.history import HistoryEntry
    from agent.reporting.explanation import Explanation
    from agent.reporting.status import StatusDocument

WATCH_S = 1.0

T = TypeVar("T")

app = typer.Typer()

OptionalGroup = Annotated[str | None, typer.Argument(metavar="[GROUP]", help="Only this group.", show_default=False)]


@app.command()
def status(
    group: OptionalGroup = None,
    config: ConfigOption = DEFAULT_FILE,
    node: NodeOption = None,
    output: OutputOption = Output.TABLE,
    token_file: TokenOption = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again every second, until Ctrl-C.")] = False,
) -> None:
    """Show each group in one screen.

    Members, roles, lag, lease, votes, fences, and what is wrong.

    Example: quorate status pg-main --watch
    """
    client, _ = _client(config, node, token_file, group)
    while True:
        try:
            _show_status(_document(client, group), group, output, watch=watch)
        except NobodyAnswered as error:
            if not watch:
                raise
            note(str(error))
        if not watch:
            return
        time.sleep(WATCH_S)


def _show_status(document: StatusDocument, group: str | None, output: Output, *, watch: bool) -> None:
    if output is Output.JSON:
        say_json(document if group is None else document.group(group), indent=None if watch else 2)
        return
    from agent.cli.status_view import render  # noqa: PLC0415 - rich is slow; only for tables

    screen = console()
    if watch:
        screen.clear()
    screen.print(render(document, group))


def _document(client: ApiClient, group: str | None) -> StatusDocument:
    """The status of the first node that answers; with a group, of the first that knows it."""
    from agent.reporting.status import from_json  # noqa: PLC0415 - slow; only when a command runs

    if group is not None:
        client = client.only(client.get(f"/api/v1/groups/{group}").node)
    return from_json(client.get("/api/v1/status").body)


@app.command()
def explain(
    group: GroupArgument,
    config: ConfigOption = DEFAULT_FILE,
    node: NodeOption = None,
    output: OutputOption = Output.TABLE,
    token_file: TokenOption = None,
) -> None:
    """Say what would happen if the leader died.

    Which rules hold now, who would take over, and what would block it.

    Example: quorate explain pg-main
    """
    client, _ = _client(config, node, token_file, group)
    explanation = _decoded_explanation(client.get(f"/api/v1/explain/{group}"))
    if output is Output.JSON:
        say_json(explanation)
        return
    for line in explain_lines(explanation):
        say(line)


def explain_lines(explanation: Explanation) -> list[str]:
    """The explanation as a person reads it."""
    lines = [f"{explanation.group} as {explanation.node} sees it: {explanation.situation.replace('_', ' ')}", "Rules that hold now:"]
    lines += [f"  {rule.name} ({rule.concern}): {rule.sentence}" for rule in explanation.rules] or ["  none"]
    if explanation.waiting:
        lines.append(f"Now {explanation.waiting}.")
    if explanation.failover_possible:
        first, *rest = explanation.heirs
        lines.append(f"If the leader died this second, {first} would take over" + (f", else {', '.join(rest)}." if rest else "."))
    else:
        lines.append("If the leader died this second, nobody would take over:")
        lines += [f"  {reason}" for reason in explanation.blocking]
    if explanation.rejected:
        lines.append("Who could not:")
        lines += [f"  {member}: {reason}" for member, reason in explanation.rejected]
    return lines


@app.command()
def history(
    group: OptionalGroup = None,
    config: ConfigOption = DEFAULT_FILE,
    node: NodeOption = None,
    output: OutputOption = Output.TABLE,
    token_file: TokenOption = None,
    *,
    verify: Annotated[bool, typer.Option("--verify", help="Say what in it cannot be true; exit 1 if anything.")] = False,
) -> None:
    """Show each change of leader.

    When, why, how long nobody led, on which timeline, how many bytes were lost.

    Example: quorate history pg-main --verify
    """
    client, configuration = _client(config, node, token_file, group)
    names = sorted(configuration.groups) if group is None else [group]
    entries = {name: _decoded_history(client.get(f"/api/v1/history/{name}")) for name in names}
    found = _contradictions(entries) if verify else []
    if output is Output.JSON:
        say_json({"history": entries, "contradictions": found} if verify else {"history": entries})
    else:
        _show_history(entries)
        if verify and not found:
            say("nothing in it contradicts itself")
    if found:
        raise Refused("\n".join(found))


def _contradictions(entries: dict[str, tuple[HistoryEntry, ...]]) -> list[str]:
    from agent.reporting.history_check import contradictions  # noqa: PLC0415 - slow; only when asked for

    return [f"{name}: {sentence}" for name, of_group in entries.items() for sentence in contradictions(of_group)]


def _show_history(entries: dict[str, tuple[HistoryEntry, ...]]) -> None:
    from rich.table import Table  # noqa: PLC0415 - slow; only for tables
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(
        "group", "epoch", "leader", "before", "why", "ended (UTC)", "nobody led", "timeline", "lost", "says", box=None, pad_edge=False
    )
    for name, of_group in entries.items():
        for entry in of_group:
            table.add_row(
                name,
                str(entry.epoch),
                entry.leader,
                entry.previous_leader or "-",
                entry.reason.value,
                time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.ended_wall_s)),
                f"{entry.duration_s:.2f} s",
                "-" if entry.timeline is None else str(entry.timeline),
                "unknown" if entry.lost_bytes is None else f"{entry.lost_bytes} B",
                Text(entry.sentence),
            )
    console().print(table)


# ------------------------------------------------------------------ asking


def _client(config: ConfigOption, node: str | None, token_file: TokenOption, group: str | None) -> tuple[ApiClient, Configuration]:
    from agent.cli.api_client import client_here  # noqa: PLC0415 - it imports the configuration

    configuration = load_configuration(config)
    if group is not None:
        known_group(configuration, group)
    return client_here(configuration, node, token_file), configuration


def _decoded_explanation(answer: Answer) -> Explanation:
    from agent.reporting.explanation import Explanation  # noqa: PLC0415 - slow; only when a command runs

    return decoded(Explanation, answer)


def _decoded_history(answer: Answer) -> tuple[HistoryEntry, ...]:
    from agent.coordination.history import HistoryEntry  # noqa: PLC0415 - slow; only when a command runs

    return decoded(tuple[HistoryEntry, ...], answer)


def decoded(kind: type[T], answer: Answer) -> T:
    """The answer as a value. Raises NobodyAnswered when it is none: another version, or no agent at all."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - slow; only when a command runs

    try:
        return TypeAdapter(kind).validate_json(answer.body)
    except ValidationError:
        raise NobodyAnswered(f"{answer.node} answered something that this version cannot read") from None
