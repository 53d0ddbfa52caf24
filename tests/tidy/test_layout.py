"""Where things are: the top folders, the stages, unit tests that mirror the code file by file, and nothing big or foreign in between."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import PurePosixPath

from tests.tidy import code
from tests.tidy.code import Module

LAYOUT = {"pyproject.toml", "Makefile", "README.md", "agent", "checks", "actions", "config", "alerts", "grafana", "tests"}
HOUSE = {"LICENSE", "CHANGELOG.md", "requirements.lock", ".gitignore", ".ci"}
OPTIONAL = {"Dockerfile", ".dockerignore", "compose.yaml"}
STAGES = {
    *("configuration", "observation", "coordination", "decision", "execution", "reporting", "web", "cli", "watchdog", "simulation"),
    "demo",
}
TIERS = {"unit", "scenarios", "contract", "simulation", "integration", "lab", "bench", "tidy"}
TEST_HELP = {"servers", "plugins", "install"}

LARGEST_BYTES = 1_000_000

NO_UNIT_FILE: Mapping[str, str] = {
    "agent/__main__.py": "three lines that call the command line; every integration test goes through it",
    "agent/errors.py": "names; the one field it sets is used in every test of the loader",
    "agent/execution/postgres_service.py": "wiring of reader and actions; every integration test of a group goes through it",
}
"""Modules with logic and without a unit test of their own, each with its reason."""

NO_CHECK: Mapping[str, str] = {
    "port": "the agent reads it back with each renewal, and `quorate_fence_stands` tells",
    "vip": "the agent looks at it each renew period and asks the link, and `quorate_route_present` and `_conflict` tell",
    "program": "no system: what all actions share that run a program",
    "hook": "a command of the operator's: its failure is an event, and nobody can look at what it did",
}
"""Actions without a check of their noun, each with its reason."""


def names_in(folder: str) -> set[str]:
    """What is right below a folder of the repository ("" = the top)."""
    prefix = f"{folder}/" if folder else ""
    return {path.removeprefix(prefix).split("/")[0] for path in code.files() if path.startswith(prefix)}


def folders_in(folder: str) -> set[str]:
    return {name for name in names_in(folder) if (code.ROOT / folder / name).is_dir()}


def has_logic(module: Module) -> bool:
    """Whether a module does anything: values, names and contracts alone need no test."""
    return any(not _is_promise(function) for function in code.functions(module))


def _is_promise(function: code.Function) -> bool:
    return all(
        isinstance(line, ast.Pass) or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)) for line in function.body
    )


def unit_file(path: str) -> str:
    """The mirrored path: agent/decision/rules.py -> tests/unit/agent/decision/test_rules.py."""
    pure = PurePosixPath(path)
    return str(PurePosixPath("tests/unit") / pure.parent / f"test_{pure.stem.strip('_')}.py")


def test_the_top_is_as_the_layout_says() -> None:
    code.want_none(f"{name}: not part of the layout" for name in sorted(names_in("") - LAYOUT - HOUSE - OPTIONAL))
    code.want_none(f"{name}: part of the layout, and missing" for name in sorted((LAYOUT | HOUSE) - names_in("")))


def test_the_stages_are_as_the_layout_says() -> None:
    code.want_none(f"agent/{name}: no stage of the layout" for name in sorted(folders_in("agent") - STAGES))


def test_the_tiers_are_as_the_layout_says() -> None:
    code.want_none(f"tests/{name}: no tier of the layout" for name in sorted(folders_in("tests") - TIERS - TEST_HELP))


def test_each_module_has_its_unit_tests() -> None:
    paths = set(code.files())
    lacking = [module.path for module in code.modules(*code.PRODUCT) if has_logic(module) and unit_file(module.path) not in paths]
    code.want_none(f"{path}: has no {unit_file(path)}" for path in lacking if path not in NO_UNIT_FILE)


def test_no_exception_outlives_its_reason() -> None:
    paths = set(code.files())
    code.want_none(f"{path}: has a unit file now, take it off the list" for path in NO_UNIT_FILE if unit_file(path) in paths)


def test_each_unit_file_mirrors_a_module() -> None:
    mirrored = {unit_file(module.path) for module in code.modules(*code.PRODUCT)}
    found = [path for path in code.files() if path.startswith("tests/unit/") and PurePosixPath(path).name.startswith("test_")]
    aspects = tuple(path.removesuffix(".py") + "_" for path in mirrored)  # a second file, where one would be too long
    code.want_none(f"{path}: mirrors no module" for path in found if path not in mirrored and not path.startswith(aspects))


def test_the_same_noun_everywhere() -> None:
    """What has an action has a check; what the catalogue names has one, too."""
    checks = {module.path.removeprefix("checks/").removesuffix(".py") for module in code.modules("checks")}
    helpers = {"base", "loading"}
    nouns = {module.path.removeprefix("actions/").removesuffix(".py").split("_")[0].split("/")[0] for module in code.modules("actions")}
    nouns |= {name.removesuffix(".yaml") for name in names_in("config/catalog")}
    code.want_none(
        f"{noun}: has an action or a catalogue and no checks/{noun}.py" for noun in sorted(nouns - checks - helpers - NO_CHECK.keys())
    )


def test_nothing_big() -> None:
    sizes = {path: (code.ROOT / path).stat().st_size for path in code.files() if (code.ROOT / path).exists()}
    code.want_none(f"{path}: {size} bytes; {LARGEST_BYTES} at most" for path, size in sizes.items() if size > LARGEST_BYTES)


def test_what_has_logic_is_told_from_what_has_none() -> None:
    assert has_logic(Module("agent/x.py", "def f() -> int:\n    return 1\n"))
    assert not has_logic(
        Module("agent/x.py", 'class P:\n    """Words."""\n    a: int\n    def f(self) -> int:\n        """Promise."""\n        ...\n')
    )
    assert unit_file("agent/decision/rules.py") == "tests/unit/agent/decision/test_rules.py"
    assert unit_file("agent/__main__.py") == "tests/unit/agent/test_main.py"
