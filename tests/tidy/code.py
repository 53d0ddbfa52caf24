"""The repository as the house rules see it: its files, and its Python modules as syntax trees. Reads files only; runs nothing of them."""

from __future__ import annotations

import ast
import fnmatch
import functools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("agent", "checks", "actions")
"""The packages that users install."""


@dataclass(frozen=True)
class Module:
    """One Python file: its path relative to the repository, its text and its tree."""

    path: str
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @functools.cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """The whole tree, walked once for all rules."""
        return tuple(ast.walk(self.tree))

    @property
    def name(self) -> str:
        """The dotted name: `agent/decision/rules.py` is agent.decision.rules, `agent/web/__init__.py` is agent.web."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")

    def at(self, node: ast.AST) -> str:
        """`path:line` of a node, for messages."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


@functools.cache
def ignored_patterns() -> tuple[str, ...]:
    """What .gitignore lists, without the closing slashes; and git's own folder."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return (".git", *(line.strip().rstrip("/").lstrip("/") for line in lines if line.strip() and not line.startswith("#")))


def is_ignored(name: str) -> bool:
    """Whether git would not keep a file or folder of this name."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in ignored_patterns())


@functools.cache
def files() -> tuple[str, ...]:
    """Every file that git would keep, relative to the repository. Walks, so that a checkout of another user works too."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        found += [str((Path(folder) / name).relative_to(ROOT)) for name in sorted(names) if not is_ignored(name)]
    return tuple(found)


@functools.cache
def modules(*folders: str) -> tuple[Module, ...]:
    """The Python files below these folders that say anything."""
    paths = [path for path in files() if path.endswith(".py") and path.split("/")[0] in folders]
    return tuple(module for module in map(module_at, paths) if module.text.strip())


@functools.cache
def module_at(path: str) -> Module:
    """One file, read and parsed once for all rules."""
    return Module(path, text_of(path))


def module(path: str) -> Module:
    """One module by its path; AssertionError if it is not there."""
    return Module(path, existing_text(path))


def existing_text(path: str) -> str:
    """A file's text; AssertionError if it is not there."""
    assert (ROOT / path).is_file(), f"{path} is missing"
    return text_of(path)


def text_of(path: str) -> str:
    """A file's text; what is not UTF-8, or was somebody's passing file, reads as nothing."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except (UnicodeDecodeError, FileNotFoundError):
        return ""


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(module: Module) -> Iterator[Function]:
    """Every function and method of a module."""
    for node in module.nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def length(function: Function) -> int:
    """Lines of a function from `def` to its end, without its docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None and first.end_lineno is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def imports(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """Every module that is imported anywhere in it, by its absolute name; `from a import b` is a.b where that is a module of ours."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            names = {f"{base}.{alias.name}" for alias in node.names}
            yield from ((node, name if _is_ours(name) else base) for name in sorted(names))


def _is_ours(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + int(module.is_package)]
    return ".".join([*parts, *([node.module] if node.module else [])])


def called_name(call: ast.Call) -> str:
    """`time.sleep` for `time.sleep(1)`; empty for what has no dotted name."""
    return dotted(call.func)


def dotted(node: ast.AST) -> str:
    """A dotted name as text; empty when the expression is something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def origins(module: Module) -> dict[str, str]:
    """What each imported name really is: {"sleep": "time.sleep"} after `from time import sleep`, {"t": "time"} after `import time as t`."""
    known: dict[str, str] = {}
    for node in module.nodes:
        if isinstance(node, ast.Import):
            known |= {
                alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0] for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return known


def real_name(node: ast.AST, known: dict[str, str]) -> str:
    """The dotted name of an expression with its first part replaced by what was imported under it; empty for what was not imported."""
    first, dot, rest = dotted(node).partition(".")
    return f"{known[first]}{dot}{rest}" if first in known else ""


def want_none(complaints: Iterable[str]) -> None:
    """Fail the test with all complaints, a line each, if there is one."""
    if found := list(complaints):
        pytest.fail("\n".join(found), pytrace=False)
