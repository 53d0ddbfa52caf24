from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.options import known_group, load_configuration, own_node, say_json
from agent.errors import ConfigurationError, UsageError
from agent.reporting.status import from_json
from tests.unit.agent.cli.conftest import write_config
from tests.unit.agent.reporting.samples import document


def test_the_own_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = load_configuration(write_config(tmp_path, 1, 2, 3))
    monkeypatch.setenv("QUORATE_NODE", "pg2")
    assert (own_node(configuration, None), own_node(configuration, "pg1")) == ("pg2", "pg1")
    monkeypatch.delenv("QUORATE_NODE")
    with pytest.raises(UsageError, match="no such node"):
        own_node(configuration, "pg9")


def test_an_unknown_group_is_told_its_nearest_name(tmp_path: Path) -> None:
    configuration = load_configuration(write_config(tmp_path, 1, 2, 3))
    assert known_group(configuration, "pg-main") == "pg-main"
    with pytest.raises(UsageError, match=r"there is no group pg-mian.*pg-main"):
        known_group(configuration, "pg-mian")


def test_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_configuration(tmp_path / "nowhere.yaml")


def test_json_is_what_the_api_says(capfd: pytest.CaptureFixture[str]) -> None:
    say_json(document())
    assert from_json(capfd.readouterr().out) == document()
