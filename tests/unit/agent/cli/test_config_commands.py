import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from agent.cli.config_commands import app
from agent.configuration.schema import schema
from agent.errors import ConfigurationError

CONFIG = Path(__file__).parents[4] / "config"
FILE = str(CONFIG / "examples/postgres-single-host/quorate.yaml")
BAD = str(Path(__file__).parents[1] / "configuration/bad/many_at_once.yaml")

SHIPPED = [CONFIG / "quorate.yaml", *sorted(CONFIG.glob("catalog/*.yaml")), *sorted(CONFIG.glob("examples/*/quorate.yaml"))]

runner = CliRunner()


def test_check_prints_one_line_for_a_right_file() -> None:
    result = runner.invoke(app, ["check", FILE])
    assert (result.exit_code, result.stdout) == (0, f"{FILE}: right: 3 nodes, 4 checks, 1 group\n")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(CONFIG)))
def test_every_file_that_quorate_ships_is_right_without_a_caution(file: Path) -> None:
    result = runner.invoke(app, ["check", str(file)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{file}: right: ")


@pytest.mark.parametrize("command", ["check", "show"])
def test_a_bad_file_is_raised_with_all_its_problems_for_main_to_print(command: str) -> None:
    result = runner.invoke(app, [command, BAD])
    assert isinstance(result.exception, ConfigurationError)
    assert len(result.exception.problems) > 10
    assert result.stdout == ""


def test_the_file_may_come_from_the_environment() -> None:
    assert runner.invoke(app, ["check"], env={"QUORATE_CONFIG": FILE}).exit_code == 0
    missing = runner.invoke(app, ["check"], env={"QUORATE_CONFIG": "/none/quorate.yaml"}).exception
    assert isinstance(missing, ConfigurationError)
    assert missing.problems == ("/none/quorate.yaml: cannot be read: No such file or directory",)


def test_schema_prints_the_schema() -> None:
    assert json.loads(runner.invoke(app, ["schema"]).stdout) == schema()


@pytest.mark.parametrize(
    ("options", "reader"), [([], yaml.safe_load), (["--output", "json"], json.loads), (["-o", "yaml"], yaml.safe_load)]
)
def test_show_prints_the_configuration_in_force(options: list[str], reader) -> None:  # noqa: ANN001 two functions of different types
    tree = reader(runner.invoke(app, ["show", *options, FILE]).stdout)
    assert tree["groups"]["pg-main"]["members"]["pg1"]["port"] == 5433
    assert tree["defaults"]["every"] == "5s"


def test_wrong_usage_exits_with_2_which_main_turns_into_64() -> None:
    assert runner.invoke(app, ["show", "--output", "xml", FILE]).exit_code == 2


@pytest.mark.parametrize("command", ["check", "schema", "show"])
def test_each_command_has_an_example(command: str) -> None:
    assert f"Example: quorate config {command}" in runner.invoke(app, [command, "--help"]).stdout
