"""What a machine cannot test is said, counted and explained; with CI=true it fails. Real pytest runs on files of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests import run
from tests.install import needs
from tests.install.parts import Missing, Part
from tests.tidy import code

pytestmark = pytest.mark.slow

CONFTEST = 'pytest_plugins = ["tests.plugins.left_out"]\n'
CONFIGURATION = '[tool.pytest.ini_options]\naddopts = "--import-mode=importlib --strict-markers"\nmarkers = ["alone: asserts a duration"]\n'
PASSES = "def test_passes():\n    pass\n"
FAILS = "def test_fails():\n    assert False\n"
LEAVES_OUT = 'from tests.plugins.left_out import left_out\n\ndef test_left_out():\n    left_out("no moon", "wait for night")\n'
ALONE = "import pytest\n\n@pytest.mark.alone\ndef test_alone():\n    pass\n"
FIXTURE_LEAVES_OUT = (
    "import pytest\nfrom tests.plugins.left_out import left_out\n\n"
    '@pytest.fixture(scope="session")\ndef moon():\n    left_out("no moon", "wait for night")\n\n'
    "def test_one(moon): ...\n\ndef test_two(moon): ...\n"
)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository that the runner works on; the plugins come from this one."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(CONFIGURATION, encoding="utf-8")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(code.ROOT))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a second less a run
    for name in ("CI", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(house: Path, tier: str, **texts: str) -> run.Tier:
    """A tier with these test files."""
    folder = house / "tests" / tier
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"test_{name}.py").write_text(text, encoding="utf-8")
    return run.Tier(tier, workers=1)


def closing(outcomes: list[run.Outcome], capfd: pytest.CaptureFixture[str], missing: tuple[Missing, ...] = ()) -> tuple[int, list[str]]:
    """The exit code and the last two lines."""
    capfd.readouterr()
    exit_code = run.report(outcomes, missing)
    return exit_code, capfd.readouterr().out.splitlines()[-2:]


@pytest.mark.slow
def test_what_is_left_out_is_the_last_line(house: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With workers, whose reports travel to the process that counts, and without."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    tiers = [replace(write(house, "unit", a=PASSES, b=LEAVES_OUT), workers=2), write(house, "lab", c=PASSES, d=FIXTURE_LEAVES_OUT)]
    assert closing(run.run(tiers), capfd) == (0, ["2 passed, 0 failed, 3 skipped", "LEFT OUT: no moon (wait for night)"])


def test_nothing_left_out_is_said_too(house: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert closing(run.run([write(house, "unit", a=PASSES)]), capfd) == (0, ["1 passed, 0 failed", "Nothing was left out."])


def test_a_skip_by_other_means_is_said_and_what_does_not_apply_is_not(house: Path, capfd: pytest.CaptureFixture[str]) -> None:
    skips = "import pytest\n\n@pytest.mark.skipif(True, reason='no sun')\ndef test_skipped(): ...\n"
    applies_not = 'from tests.plugins.left_out import does_not_apply\n\ndef test_promise():\n    does_not_apply("it flies")\n'
    lines = closing(run.run([write(house, "unit", a=skips, b=applies_not, c=PASSES)]), capfd)[1]
    assert lines[0] == "1 passed, 0 failed, 2 skipped"
    assert lines[1] == "LEFT OUT: no sun (skipped without a way to get it: tests/unit/test_a.py::test_skipped)"


def test_with_ci_it_fails(house: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    outcomes = run.run([write(house, "unit", a=PASSES, b=LEAVES_OUT)])
    assert "nothing may be missing: no moon (wait for night)" in capfd.readouterr().out
    assert closing(outcomes, capfd) == (1, ["1 passed, 1 failed", "Nothing was left out."])


def test_a_part_that_cannot_be_had_is_left_out_and_with_ci_fails(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part("sextant", "find the way", "buy one", lambda: None, lambda _: None, "nothing")
    missing = (Missing(part, "sold out"),)
    outcomes = [run.Outcome("unit", counts={"unit": {"passed": 1}})]
    monkeypatch.delenv("CI", raising=False)
    left_out = "LEFT OUT: sextant, needed to find the way (buy one)"
    assert closing(outcomes, capfd, missing) == (0, ["1 passed, 0 failed", left_out])
    monkeypatch.setenv("CI", "true")
    assert closing(outcomes, capfd, missing) == (1, ["1 passed, 1 failed", left_out])


def test_a_failure_is_counted_and_is_the_exit_code(house: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiers = [write(house, "unit", a=FAILS), write(house, "lab", b=PASSES)]
    assert closing(run.run(tiers), capfd) == (1, ["1 passed, 1 failed", "Nothing was left out."])


def test_a_file_that_cannot_be_read_is_a_failure(house: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exit_code, lines = closing(run.run([write(house, "unit", a=PASSES, b="import nowhere\n")]), capfd)
    assert exit_code != 0
    assert not lines[0].endswith(" 0 failed")


@pytest.mark.parametrize("texts", [{}, {"a": "# no test here\n"}], ids=["no file", "no test"])
def test_an_empty_tier_is_an_error(house: Path, capfd: pytest.CaptureFixture[str], texts: dict[str, str]) -> None:
    exit_code, lines = closing(run.run([write(house, "lab", x=PASSES), write(house, "unit", **texts)]), capfd)
    assert exit_code != 0
    assert lines[0] == "1 passed, 1 failed"


def test_an_optional_tier_may_be_absent(house: Path) -> None:
    assert [each.name for each in run.run([write(house, "unit", a=PASSES), run.Tier("lab", 1, optional=True)])] == ["unit"]


def test_what_must_be_alone_runs_last_and_once(house: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = run.run([write(house, "unit", a=PASSES, b=ALONE), write(house, "lab", c=ALONE)])
    assert [(each.name, each.total("passed"), each.exit_code) for each in outcomes] == [("unit", 1, 0), ("lab", 0, 0), ("alone", 2, 0)]
    assert closing(outcomes, capfd)[1][0] == "3 passed, 0 failed"


def test_a_part_that_a_test_requires(house: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(house))
    monkeypatch.setenv("XDG_CACHE_HOME", str(house))
    requires = 'from tests.plugins.left_out import require_part\n\ndef test_rules():\n    require_part("promtool")\n'
    part = needs.PARTS["promtool"]
    outcomes = run.run([write(house, "unit", a=PASSES, b=requires)])
    once = f"LEFT OUT: {part.left_out} ({part.how})"
    assert closing(outcomes, capfd, (Missing(part, "no network"),))[1] == ["1 passed, 0 failed, 1 skipped", once]


def test_ctrl_c_lets_tests_clean_up(house: Path) -> None:
    """The runner as `make test` starts it: SIGINT to the group, and a fixture's teardown still runs."""
    slow = (
        "import pathlib, threading, pytest\n\n@pytest.fixture\ndef server():\n"
        "    pathlib.Path('up').touch()\n    yield\n    pathlib.Path('cleaned').touch()\n\n"
        "def test_waits(server):\n    threading.Event().wait(30)\n"
    )
    write(house, "unit", a=slow)
    script = (
        "import os, signal, sys, threading, time, pathlib\nfrom tests import run\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job begins with SIGINT ignored
        f"run.ROOT = pathlib.Path({str(house)!r})\nos.chdir(run.ROOT)\nos.setpgid(0, 0)\n"
        "def interrupt():\n"
        "    while not pathlib.Path('up').exists():\n        threading.Event().wait(0.02)\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "try:\n    run.run([run.Tier('unit', 1)])\nexcept KeyboardInterrupt:\n    sys.exit(run.INTERRUPTED)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=30, capture_output=True, env=os.environ | {"CI": ""})
    assert done.returncode == run.INTERRUPTED
    assert (house / "cleaned").exists()
