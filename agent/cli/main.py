"""The command line: one typer app out of one file per verb group, and what becomes of errors.

Exit codes: 0 done or true, 1 no or refused, 3 nobody can tell, 64 wrong usage, 78 bad configuration, 130 interrupted; `check` has its own.
A user's mistake is one clear line on standard error, never a traceback. `--help` imports no client library.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated

import typer

from agent import __version__
from agent.cli import agent_commands, check_commands, operator_commands, status_commands
from agent.cli.options import NobodyAnswered
from agent.errors import ConfigurationError, CoordinationError, CoordinationRefused, QuorateError, UsageError

OK = 0
NO = 1
CANNOT_TELL = 3
USAGE = 64
CONFIGURATION = 78
INTERRUPTED = 130


def run(argv: list[str]) -> int:
    """Run one command line (without the program's name); its exit code. Never raises for a user's mistake."""
    try:
        code = _app()(argv, prog_name="quorate", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # whoever read us has enough (the library sees it first, and leaves)
        _drop_output()
        return NO
    except typer.TyperException as error:
        return _say_usage(error)
    except QuorateError as error:
        return _say_error(error)
    return code if isinstance(code, int) else OK


def _drop_output() -> None:
    """What is still in the buffer goes nowhere: the interpreter would complain of the broken pipe once more as it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _app() -> typer.Typer:
    from agent.cli import config_commands  # noqa: PLC0415 - it reads the configuration's model, which is slow

    app = typer.Typer(
        name="quorate",
        help="Monitoring and automated failover that acts only when it is quorate.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_everywhere)
    for group in (status_commands.app, operator_commands.app, check_commands.app, agent_commands.app):
        app.add_typer(group)
    app.add_typer(config_commands.app, name="config")
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"quorate {__version__}")
        raise typer.Exit


def _everywhere(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)] = False
) -> None:
    """Monitoring and automated failover that acts only when it is quorate."""


def _say_usage(error: typer.TyperException) -> int:
    """What is wrong with the command line, and where its help is; for want of a command, the help itself."""
    format_message = getattr(error, "format_message", None)
    message = str(format_message()) if callable(format_message) else str(error)
    if message.startswith("Usage:"):
        _complain(message, prefix="")
        return USAGE
    command = getattr(getattr(error, "ctx", None), "command_path", "quorate")
    _complain(f"{' '.join(message.split())} (see: {command} --help)")
    return USAGE


def _say_error(error: QuorateError) -> int:
    if isinstance(error, ConfigurationError):
        for problem in error.problems:
            _complain(problem, prefix="")
        return CONFIGURATION
    _complain(str(error))
    if isinstance(error, UsageError):
        return USAGE
    is_unknown = isinstance(error, (NobodyAnswered, CoordinationError)) and not isinstance(error, CoordinationRefused)
    return CANNOT_TELL if is_unknown else NO


def _complain(sentence: str, prefix: str = "quorate: ") -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"{prefix}{sentence}", file=sys.stderr)  # noqa: T201 - the command line's own voice
