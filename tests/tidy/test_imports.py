"""The import rule: data goes one way (observe, share, decide, act, report), and the core knows nothing of the outside.

Each row of LAYERS says what a folder may import beside itself. What is not in the table (the stages that wire things) is free, except
that nobody reaches into the edges (EDGES) or into the wiring, and nobody imports a package that pyproject.toml does not declare.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.tidy import code
from tests.tidy.code import Module

PURE = frozenset(
    {
        *("__future__", "abc", "base64", "bisect", "collections", "contextlib", "copy", "dataclasses", "enum", "fractions", "functools"),
        *("hashlib", "heapq", "itertools", "json", "math", "operator", "re", "statistics", "string", "textwrap", "types", "typing"),
    }
)
"""The standard library without the outside: no files, no network, no clock, no chance, no threads."""
STDLIB = frozenset(sys.stdlib_module_names)


@dataclass(frozen=True)
class Layer:
    """A folder (or module) by dotted name, the libraries it may import, and the modules of ours."""

    home: str
    libraries: frozenset[str]
    ours: tuple[str, ...] = ()
    strangers: bool = False
    """Its systems do not know each other: a file may only import files of its own noun, and what `ours` names."""

    def allows(self, importer: Module, name: str) -> bool:
        if self.strangers and name.startswith(f"{self.home}."):
            return _noun(name) == _noun(importer.name) or name in self.ours
        return name.split(".", maxsplit=1)[0] in self.libraries or any(is_below(name, each) for each in (self.home, *self.ours))


def _noun(name: str) -> str:
    """`postgres` for checks.postgres, checks.postgres_client and checks.postgres.client."""
    return re.split(r"[._]", name)[1] if "." in name else ""


def is_below(name: str, home: str) -> bool:
    """Whether a dotted name is this module or one inside it."""
    return name == home or name.startswith(f"{home}.")


LIBRARIES = frozenset({"aiohttp", "yarl", "psycopg", "pydantic", "pyroute2", "redis"})
"""The client libraries of checks and actions."""
SHARED_BY_CHECKS = (
    "checks.base",
    "checks.network",
    "checks.units",
    "checks.secret_file",
    "checks.tls_trust",
    "checks.http_client",
)
"""What checks of several kinds share: it knows of no kind."""
CORE = ("agent.instant", "agent.coordination.coordinator", "agent.coordination.lease", "agent.coordination.failsafe_rules")

LAYERS = (
    Layer("agent.instant", PURE),
    Layer("agent.errors", PURE),
    Layer("agent.coordination.coordinator", PURE),
    Layer("agent.coordination.lease", PURE, ("agent.instant", "agent.coordination.coordinator")),
    Layer("agent.coordination.failsafe_rules", PURE, CORE),
    Layer("agent.observation.rise_fall", PURE, ("checks.base", "agent.instant")),
    Layer("agent.decision", PURE, CORE),
    Layer("agent.watchdog", STDLIB),
    Layer("agent.simulation", STDLIB, (*CORE, "agent.clock", "agent.decision", "agent.observation.rise_fall", "agent.watchdog.deadline")),
    Layer("checks.base", STDLIB | {"pydantic"}),
    Layer("checks", STDLIB | LIBRARIES, SHARED_BY_CHECKS, strangers=True),
    Layer("actions.base", STDLIB | {"pydantic"}),
    Layer("actions.program", STDLIB),
    Layer("actions", STDLIB | LIBRARIES, ("actions.base", "actions.program"), strangers=True),
)
EDGES = {"agent.web": ("agent.app",), "agent.app": ("agent.__main__", "agent.cli"), "agent.cli": ("agent.__main__",)}
"""Who may import what stands at the outside: the wiring imports the pages, the command line the wiring."""


def broken_layers(module: Module) -> Iterator[str]:
    """What a module imports against the table."""
    layers = [layer for layer in LAYERS if is_below(module.name, layer.home)]
    if not layers:
        return
    layer = max(layers, key=lambda each: len(each.home))
    for node, name in code.imports(module):
        if not layer.allows(module, name):
            yield f"{module.at(node)}: {layer.home} may not import {name}"


def broken_edges(module: Module) -> Iterator[str]:
    """Imports of the outermost parts by anybody but those who wire them."""
    for node, name in code.imports(module):
        for edge, allowed in EDGES.items():
            if is_below(name, edge) and not any(is_below(module.name, home) for home in (edge, *allowed)):
                yield f"{module.at(node)}: {name} is only for {' and '.join(allowed)}"


def undeclared(module: Module) -> Iterator[str]:
    """Libraries that came along with another one and may go with it."""
    for node, name in code.imports(module):
        top = name.split(".", maxsplit=1)[0]
        if top not in STDLIB and top not in code.PRODUCT and IMPORT_NAMES.get(top, top) not in declared():
            yield f"{module.at(node)}: {top} is not in pyproject.toml's dependencies"


IMPORT_NAMES = {"yaml": "pyyaml", "yarl": "aiohttp", "pydantic_core": "pydantic"}
"""Import names that are not the package's own name: yarl's URL and pydantic_core's errors are part of what their parents document."""


def declared() -> frozenset[str]:
    """The names that pyproject.toml depends on, as imports spell them; what not everybody needs is an extra."""
    project = tomllib.loads(code.text_of("pyproject.toml"))["project"]
    extras = (each for name, packages in project["optional-dependencies"].items() if name != "test" for each in packages)
    wanted = [*project["dependencies"], *extras]
    names = {re.split(r"[\[<>=~! ;]", each)[0].lower() for each in wanted}
    return frozenset(names | {name.replace("-", "_") for name in names})


BROKEN = (
    (broken_layers, "agent/decision/x.py", "import asyncio\n"),
    (broken_layers, "agent/decision/x.py", "from agent.configuration import model\n"),
    (broken_layers, "agent/decision/x.py", "from agent.coordination import local\n"),
    (broken_layers, "agent/decision/engines/x.py", "import time\n"),
    (broken_layers, "agent/decision/x.py", "def late():\n    import logging\n"),
    (broken_layers, "agent/coordination/lease.py", "from agent.decision.view import View\n"),
    (broken_layers, "agent/watchdog/x.py", "from agent.instant import Instant\n"),
    (broken_layers, "agent/watchdog/x.py", "from ..instant import Instant\n"),
    (broken_layers, "agent/watchdog/x.py", "import structlog\n"),
    (broken_layers, "checks/x.py", "from agent.clock import Clock\n"),
    (broken_layers, "checks/x.py", "from checks.tcp import Tcp\n"),
    (broken_layers, "checks/x.py", "import structlog\n"),
    (broken_layers, "actions/x.py", "from checks.base import Status\n"),
    (broken_edges, "agent/control_loop.py", "from agent.web import health\n"),
    (broken_edges, "agent/reporting/x.py", "import agent.app\n"),
    (broken_edges, "agent/app.py", "from agent.cli import status\n"),
    (undeclared, "agent/x.py", "import requests\n"),
)
KEPT = (
    (broken_layers, "agent/decision/x.py", "from agent.coordination import lease\nfrom agent.decision.view import View\n"),
    (broken_layers, "agent/watchdog/x.py", "import os\nfrom agent.watchdog.deadline import Deadline\n"),
    (broken_layers, "checks/x.py", "import aiohttp\nfrom checks.base import Check\n"),
    (broken_edges, "agent/app.py", "from agent.web import health\n"),
    (undeclared, "agent/x.py", "import yaml\nimport prometheus_client\n"),
)
RULES = (broken_layers, broken_edges, undeclared)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_import_rule_is_kept(rule: Callable[[Module], Iterator[str]]) -> None:
    code.want_none(complaint for module in code.modules(*code.PRODUCT) for complaint in rule(module))


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN)
def test_it_sees_what_breaks_it(rule: Callable[[Module], Iterator[str]], path: str, text: str) -> None:
    assert list(rule(Module(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), KEPT)
def test_it_lets_what_keeps_it_be(rule: Callable[[Module], Iterator[str]], path: str, text: str) -> None:
    assert list(rule(Module(path, text))) == []


def test_every_layer_is_there() -> None:
    homes = {layer.home.replace(".", "/") for layer in LAYERS if layer.home not in PLANNED}
    assert [home for home in sorted(homes) if not any(path.startswith((f"{home}/", f"{home}.py")) for path in code.files())] == []


PLANNED = {"agent.simulation", "agent.observation.rise_fall"}
"""Rows that stand before their code does."""
