from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from agent.lean import without

UNUSED = "xdrlib_of_a_test"


@pytest.fixture(autouse=True)
def unused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that nobody has imported."""
    (tmp_path / f"{UNUSED}.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, UNUSED, raising=False)


def test_a_library_that_is_left_out_cannot_be_imported_until_afterwards() -> None:
    with without(UNUSED), pytest.raises(ImportError):
        import_module(UNUSED)
    assert import_module(UNUSED) is sys.modules[UNUSED]


def test_nor_is_it_lost_by_an_error() -> None:
    with pytest.raises(KeyError), without(UNUSED):
        raise KeyError
    import_module(UNUSED)


def test_one_that_is_there_already_stays() -> None:
    before = import_module(UNUSED)
    with without(UNUSED):
        assert import_module(UNUSED) is before
    assert import_module(UNUSED) is before


def test_an_agent_imports_only_what_its_configuration_asks_for(tmp_path: Path) -> None:
    """What each kind brings along comes with the kind; what is for people at a terminal comes never."""
    command = [sys.executable, "-X", "importtime", "-m", "agent", "agent", "--config", str(tmp_path / "nowhere.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {name.partition(".")[0] for name in names if "." in name}  # an import that was refused is named, too, without parts
    assert {"structlog", "pydantic"} <= imported
    heavy = {"rich", "pygments", "requests", "aiohttp", "psycopg", "pyroute2", "redis", "sqlite3", "docker"}
    assert imported & heavy == set()
