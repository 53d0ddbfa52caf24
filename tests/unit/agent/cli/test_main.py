from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from agent import __version__
from agent.cli import main
from agent.cli.options import NobodyAnswered, Refused
from agent.errors import AlreadyRunning, ConfigurationError, CoordinationError, CoordinationRefused, UsageError
from tests.unit.agent.cli.conftest import Run

pytestmark = pytest.mark.slow


def commands() -> Iterator[list[str]]:
    def below(app: typer.Typer, path: list[str]) -> Iterator[list[str]]:
        for command in app.registered_commands:
            assert command.callback is not None
            yield [*path, command.name or command.callback.__name__]
        for group in app.registered_groups:
            assert group.typer_instance is not None
            yield from below(group.typer_instance, path if not isinstance(group.name, str) else [*path, group.name])

    return below(main._app(), [])


def test_the_commands_of_the_interface_are_there() -> None:
    found = {" ".join(command) for command in commands()}
    wanted = {"agent", "watchdog", "check", "status", "explain", "history", "switchover", "pause", "resume", "demo"}
    assert wanted | {"config check", "config show", "config schema"} <= found


@pytest.mark.parametrize("command", [c for c in commands() if c != ["watchdog"]], ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str], quorate: Run) -> None:
    ran = quorate(*command, "--help")
    assert ran.code == 0
    assert "Example: quorate " + " ".join(command) in ran.out
    assert ran.err == ""


def test_version(quorate: Run) -> None:
    assert quorate("--version").out == f"quorate {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["status", "--bogus"], "No such option"),
        (["switchover"], "Missing argument 'GROUP'. (see: quorate switchover --help)"),
        (["status", "--output", "xml"], "quorate status --help"),
    ],
)
def test_wrong_usage_is_one_line(argv: list[str], sentence: str, quorate: Run) -> None:
    ran = quorate(*argv)
    assert (ran.code, ran.out, ran.err.count("\n")) == (64, "", 1)
    assert sentence in ran.err


def test_without_a_command_the_help_is_shown(quorate: Run) -> None:
    ran = quorate()
    assert ran.code == 64
    assert ran.err.startswith("Usage: quorate")
    assert "switchover" in ran.err


def test_a_bad_file_is_all_its_problems(quorate: Run, tmp_path: Path) -> None:
    file = tmp_path / "quorate.yaml"
    file.write_text("nodes: {pg1: {adress: x}}\ncoordination: {}\n")
    ran = quorate("status", "--config", file)
    assert (ran.code, ran.out) == (78, "")
    assert all(line.startswith(f"{file}:") for line in ran.err.splitlines())
    assert "address" in ran.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError(("a:1: b",)), 78),
        (UsageError("x"), 64),
        (Refused("x"), 1),
        (AlreadyRunning("x"), 1),
        (CoordinationRefused("x"), 1),
        (CoordinationError("x"), 3),
        (NobodyAnswered("x"), 3),
        (KeyboardInterrupt(), 130),
        (typer.Abort(), 130),
        (BrokenPipeError(), 1),
        (typer.Exit(2), 2),
    ],
)
def test_what_becomes_of_errors(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, quorate: Run) -> None:
    app = typer.Typer()

    @app.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(main, "_app", lambda: app)
    ran = quorate()
    assert ran.code == code
    assert ran.err.count("\n") == (0 if code in (130, 2) or isinstance(error, BrokenPipeError) else 1)


def test_help_is_quick_to_import() -> None:
    program = (
        "import sys; from agent.cli.main import run; run(['--help']); "
        "slow = {'psycopg', 'aiohttp', 'rich', 'prometheus_client', 'structlog'} & set(sys.modules); sys.exit(', '.join(sorted(slow)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_whole_way_as_a_process(tmp_path: Path) -> None:
    def code(*argv: str) -> int:
        return subprocess.run([sys.executable, "-m", "agent", *argv], capture_output=True, timeout=30, check=False).returncode

    assert code("--version") == 0
    assert code("bogus") == 64
    assert code("check", "--config", str(tmp_path / "nowhere.yaml")) == 78


UNFLUSHED = "import sys; from agent.cli import main; main._app = lambda: lambda *_, **__: print('x'); sys.exit(main.run([]))"


@pytest.mark.parametrize(
    "argv", [["-m", "agent", "config", "schema"], ["-m", "agent", "--help"], ["-c", UNFLUSHED]], ids=["long", "help", "unflushed"]
)
def test_a_reader_that_has_enough_is_no_traceback(argv: list[str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as gone:
        done = subprocess.run([sys.executable, *argv], stdout=gone, stderr=subprocess.PIPE, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
