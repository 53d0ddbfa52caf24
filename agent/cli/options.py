"""What the commands share: their options, how they print, how they learn which file and which node they are about."""

from __future__ import annotations

import json
import os
import socket
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.errors import QuorateError, UsageError

if TYPE_CHECKING:  # the configuration's model and rich are slow to import; `--help` needs neither
    from rich.console import Console

    from agent.configuration.model import Configuration

DEFAULT_FILE = Path("/etc/quorate/quorate.yaml")
PIPE_COLUMNS = 200
"""Width of a table that nobody sees on a terminal."""


class Output(StrEnum):
    """How a command prints what a person reads."""

    TABLE = "table"
    JSON = "json"


class Refused(QuorateError):
    """The answer is no; exit 1."""


class NobodyAnswered(QuorateError):
    """No agent could be asked, so nobody can tell; exit 3."""


ConfigOption = Annotated[Path, typer.Option("--config", "-c", envvar="QUORATE_CONFIG", metavar="FILE", help="The configuration file.")]
NodeOption = Annotated[
    str | None, typer.Option("--node", metavar="NODE", help="This node's name; else QUORATE_NODE, else the host name.", show_default=False)
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print it.")]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="QUORATE_TOKEN_FILE",
        metavar="FILE",
        help="File with the token to show: an agent on the network wants one.",
        show_default=False,
    ),
]
GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="A failover group of the configuration.", show_default=False)]


def load_configuration(path: Path) -> Configuration:
    """The configuration. Raises ConfigurationError with all that is wrong."""
    from agent.configuration.loader import load  # noqa: PLC0415 - pydantic is slow; --help does without

    return load(path, os.environ)


def own_node(configuration: Configuration, given: str | None) -> str:
    """The node this command is about. Raises UsageError or ConfigurationError when nobody can tell."""
    from agent.configuration.group_spec import node_named  # noqa: PLC0415 - the same

    return node_named(configuration, given, os.environ, socket.gethostname())


def known_group(configuration: Configuration, name: str) -> str:
    """The name itself; raises UsageError with the nearest one when there is no such group."""
    if name not in configuration.groups:
        from agent.configuration.wording import nearest  # noqa: PLC0415 - the same

        known = ", ".join(sorted(configuration.groups)) or "none"
        raise UsageError(f"there is no group {name}{nearest(name, configuration.groups)}; known: {known}")
    return name


def say(line: str) -> None:
    """One line of the answer."""
    typer.echo(line)


def note(line: str) -> None:
    """One line beside the answer: progress, a warning."""
    typer.echo(line, err=True)


def say_json(value: object, *, indent: int | None = 2) -> None:
    """The answer as JSON. `value`: dataclasses, enums and plain values."""
    from pydantic_core import to_jsonable_python  # noqa: PLC0415 - slow; only for JSON

    say(json.dumps(to_jsonable_python(value, inf_nan_mode="constants"), indent=indent, ensure_ascii=False))


def console() -> Console:
    """Where tables go: coloured and as wide as the terminal, plain and wide in a pipe. Nothing in the data is taken for markup."""
    from rich.console import Console  # noqa: PLC0415 - slow; only for tables

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
    return Console(markup=False, emoji=False, highlight=False, width=width)
