"""`quorate config check|schema|show`: judge the file, describe it, print it as it is in force. They read one file and change nothing.

What is wrong with the file is raised as ConfigurationError; `main` prints its lines and exits 78.
"""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import yaml

from agent.configuration.failsafe import cautions
from agent.configuration.loader import load
from agent.configuration.model import Configuration
from agent.configuration.schema import schema as schema_of_file
from agent.configuration.shown import shown

DEFAULT_FILE = Path("/etc/quorate/quorate.yaml")

app = typer.Typer(help="Judge, describe and print the configuration file.", no_args_is_help=True)

File = Annotated[
    Path, typer.Argument(envvar="QUORATE_CONFIG", metavar="FILE", help="The configuration file.", show_default=str(DEFAULT_FILE))
]


class Output(StrEnum):
    """How `show` prints."""

    YAML = "yaml"
    JSON = "json"


@app.command()
def check(file: File = DEFAULT_FILE) -> None:
    """Say everything that is wrong with the file, one line each; exit 0 when nothing is, 78 otherwise.

    What is right and yet costs something, such as no failsafe for want of a peer key, is a caution on standard error.

    Example: quorate config check /etc/quorate/quorate.yaml
    """
    configuration = load(file, os.environ)
    for caution in cautions(configuration):
        typer.echo(f"{file}: caution: {caution}", err=True)
    typer.echo(f"{file}: right: {_summary(configuration)}")


@app.command()
def schema() -> None:
    """Print the file's JSON Schema, with the options of every kind of check, for editors.

    Example: quorate config schema > schema.json
    """
    typer.echo(json.dumps(schema_of_file(), indent=2, ensure_ascii=False))


@app.command()
def show(
    file: File = DEFAULT_FILE,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print it.")] = Output.YAML,
) -> None:
    """Print the configuration as it is in force: with every default, every member's whole section, and ******** for each secret.

    Example: quorate config show --output json /etc/quorate/quorate.yaml
    """
    tree = shown(load(file, os.environ))
    if output is Output.JSON:
        typer.echo(json.dumps(tree, indent=2, ensure_ascii=False))
    else:
        typer.echo(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=140), nl=False)


def _summary(configuration: Configuration) -> str:
    counted = ((configuration.nodes, "node"), (configuration.checks, "check"), (configuration.groups, "group"))
    return ", ".join(f"{len(things)} {noun}{'' if len(things) == 1 else 's'}" for things, noun in counted)
