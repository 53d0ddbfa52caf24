"""The house rules that one module alone can break. Each takes a module and yields a line for each place where it is broken.

test_rules.py runs them over the repository, and each over a bad example: a rule that cannot fail is no rule.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from tests.tidy import code
from tests.tidy.code import Module

FUNCTION_LINES = 60
MODULE_LINES = 500

CLOCK_HOMES = ("agent/clock.py", "agent/watchdog/", "agent/simulation/")
CLOCK_READERS = re.compile(
    r"time\.(time|monotonic|perf_counter|process_time|thread_time|clock_gettime)(_ns)?"
    r"|(datetime\.)?datetime\.(now|utcnow|today)|(datetime\.)?date\.today"
    r"|random(\..+)?|secrets(\..+)?|uuid\.uuid[14]|os\.urandom|os\.getrandom"
)
PRINT_HOMES = ("agent/cli/", "agent/__main__.py", "agent/watchdog/__main__.py")
SKIPS = re.compile(
    r"pytest\.(skip|xfail|importorskip|mark\.(skip|skipif|xfail))|unittest\.(skip|skipIf|skipUnless|SkipTest|case\.SkipTest)"
)
SKIP_HOME = "tests/plugins/left_out.py"
WAIT_HOMES = ("tests/polling.py", "tests/lab/")
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")

Rule = Callable[[Module], Iterator[str]]


def short_functions(module: Module) -> Iterator[str]:
    """A function has at most 60 lines without its docstring."""
    for function in code.functions(module):
        if (lines := code.length(function)) > FUNCTION_LINES:
            yield f"{module.at(function)}: {function.name} has {lines} lines; {FUNCTION_LINES} at most"


def short_modules(module: Module) -> Iterator[str]:
    """A module has at most 500 lines."""
    if (lines := module.text.count("\n")) > MODULE_LINES:
        yield f"{module.path}: {lines} lines; {MODULE_LINES} at most"


def docstring_on_top(module: Module) -> Iterator[str]:
    """Every module says what it is for; a unit test file says it by its place: it mirrors a module."""
    is_mirror = module.path.startswith("tests/unit/") and "/test_" in module.path
    if not is_mirror and not ast.get_docstring(module.tree):
        yield f"{module.path}: no docstring on top (purpose, what it must never do, why)"


def public_docstrings(module: Module) -> Iterator[str]:
    """In a contract every public class and function says what is promised."""
    for node in module.tree.body:
        is_public = isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_")
        if is_public and not ast.get_docstring(node):  # type: ignore[arg-type]  # is_public says what it is
            yield f"{module.at(node)}: {node.name} is part of a contract and has no docstring"  # type: ignore[attr-defined]


def no_clocks(module: Module) -> Iterator[str]:
    """Only agent/clock.py, the watchdog and the simulator read clocks or chance; a check may measure with time.monotonic."""
    if module.path.startswith(CLOCK_HOMES):
        return
    known = code.origins(module)
    for node in module.nodes:
        name = code.real_name(node, known) if isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Load) else ""
        if CLOCK_READERS.fullmatch(name) and not (module.path.startswith("checks/") and name == "time.monotonic"):
            yield f"{module.at(node)}: {name}: take a Clock instead (agent/clock.py)"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "time"
            and not (node.args or node.keywords)
        ):
            yield f"{module.at(node)}: an event loop's time(): take a Clock instead (agent/clock.py)"


def no_prints(module: Module) -> Iterator[str]:
    """Only the command line and the watchdog's start print."""
    if module.path.startswith(PRINT_HOMES):
        return
    for node in module.nodes:
        if isinstance(node, ast.Call) and code.called_name(node) == "print":
            yield f"{module.at(node)}: print: log it, or return it"


def no_swallowed_errors(module: Module) -> Iterator[str]:
    """`except Exception: pass` hides the error that was not thought of; so does contextlib.suppress(Exception)."""
    broad = {"", "Exception", "BaseException"}
    for node in module.nodes:
        if isinstance(node, ast.ExceptHandler) and all(
            isinstance(line, (ast.Pass, ast.Continue)) or _is_ellipsis(line) for line in node.body
        ):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or code.dotted(kind) in broad for kind in caught):
                yield f"{module.at(node)}: an error of any kind is swallowed"
        suppressed = node.args if isinstance(node, ast.Call) and code.called_name(node).endswith("suppress") else []
        if any(code.dotted(kind) in broad - {""} for kind in suppressed):
            yield f"{module.at(node)}: an error of any kind is swallowed"


def _is_ellipsis(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...


def nothing_unfinished(module: Module) -> Iterator[str]:
    """What is not done is not there."""
    for number, line in enumerate(module.text.splitlines(), start=1):
        if UNFINISHED.search(line):
            yield f"{module.path}:{number}: unfinished: {line.strip()}"


def no_fixed_sleeps(module: Module) -> Iterator[str]:
    """Tests poll (tests/polling.py) or move a fake clock; only the lab may wait for real time to pass."""
    if module.path.startswith(WAIT_HOMES):
        return
    known = code.origins(module)
    for node in module.nodes:
        name = code.real_name(node.func, known) if isinstance(node, ast.Call) else ""
        if name == "time.sleep" or (name == "asyncio.sleep" and isinstance(node, ast.Call) and _waits(node)):
            yield f"{module.at(node)}: {name}: use tests.polling (eventually, eventually_async), or an Event that nobody sets"


def _waits(call: ast.Call) -> bool:
    return bool(call.args) and isinstance(call.args[0], ast.Constant) and bool(call.args[0].value)


def no_silent_skips(module: Module) -> Iterator[str]:
    """A test is left out through tests/plugins/left_out.py, so that the run says so, or it is not left out."""
    if module.path == SKIP_HOME:
        return
    known = code.origins(module)
    for node in module.nodes:
        if isinstance(node, (ast.Attribute, ast.Name)) and SKIPS.fullmatch(code.real_name(node, known)):
            yield f"{module.at(node)}: {code.real_name(node, known)}: use left_out, require_part or does_not_apply of {SKIP_HOME}"


EVERYWHERE: tuple[Rule, ...] = (short_functions, short_modules, docstring_on_top, no_swallowed_errors, nothing_unfinished)
"""Rules of every Python file."""
IN_PRODUCT: tuple[Rule, ...] = (no_clocks, no_prints)
"""Rules of what users install."""
IN_TESTS: tuple[Rule, ...] = (no_fixed_sleeps, no_silent_skips)
"""Rules of tests/."""
IN_CONTRACTS: tuple[Rule, ...] = (public_docstrings,)
"""Rules of the modules that others build on."""
