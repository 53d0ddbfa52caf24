"""Every module keeps the house rules (rules.py), and every rule can fail: each has an example that breaks it."""

from __future__ import annotations

import pytest

from tests.tidy import code, rules
from tests.tidy.code import Module
from tests.tidy.rules import Rule

CONTRACTS = (
    "agent/instant.py",
    "agent/clock.py",
    "agent/errors.py",
    "agent/coordination/coordinator.py",
    "agent/coordination/lease.py",
    "agent/decision/view.py",
    "agent/decision/command.py",
    "agent/decision/situation.py",
    "agent/decision/engines/base.py",
    "checks/base.py",
    "actions/base.py",
)

BROKEN: tuple[tuple[Rule, str, str], ...] = (
    (rules.short_functions, "agent/x.py", "def f():\n" + "    a = 1\n" * 60),
    (rules.short_modules, "agent/x.py", "a = 1\n" * 501),
    (rules.docstring_on_top, "agent/x.py", "import os\n"),
    (rules.public_docstrings, "agent/x.py", "def promised() -> None: ...\n"),
    (rules.public_docstrings, "agent/x.py", "class Promised:\n    a: int\n"),
    (rules.no_clocks, "agent/x.py", "import time\nnow = time.monotonic()\n"),
    (rules.no_clocks, "agent/x.py", "import time as t\nread = t.time_ns\n"),
    (rules.no_clocks, "agent/x.py", "from time import perf_counter\nnow = perf_counter()\n"),
    (rules.no_clocks, "agent/x.py", "import datetime\nnow = datetime.datetime.now(datetime.UTC)\n"),
    (rules.no_clocks, "agent/x.py", "from datetime import datetime\nnow = datetime.now()\n"),
    (rules.no_clocks, "agent/x.py", "import random\nn = random.random()\n"),
    (rules.no_clocks, "agent/x.py", "from secrets import token_hex\nn = token_hex()\n"),
    (rules.no_clocks, "agent/x.py", "import asyncio\nnow = asyncio.get_running_loop().time()\n"),
    (rules.no_clocks, "actions/x.py", "import time\nnow = time.monotonic()\n"),
    (rules.no_clocks, "checks/x.py", "import time\nnow = time.time()\n"),
    (rules.no_prints, "agent/x.py", "print(1)\n"),
    (rules.no_swallowed_errors, "agent/x.py", "try:\n    f()\nexcept Exception:\n    pass\n"),
    (rules.no_swallowed_errors, "agent/x.py", "try:\n    f()\nexcept:\n    ...\n"),
    (rules.no_swallowed_errors, "agent/x.py", "import contextlib\nwith contextlib.suppress(Exception):\n    f()\n"),
    (rules.nothing_unfinished, "agent/x.py", "# TO" + "DO: the rest\n"),
    (rules.no_fixed_sleeps, "tests/unit/x.py", "import time\ntime.sleep(1)\n"),
    (rules.no_fixed_sleeps, "tests/unit/x.py", "from time import sleep\nsleep(1)\n"),
    (rules.no_fixed_sleeps, "tests/unit/x.py", "import asyncio\nasync def f():\n    await asyncio.sleep(0.1)\n"),
    (rules.no_silent_skips, "tests/unit/x.py", "import pytest\npytest.skip('no')\n"),
    (rules.no_silent_skips, "tests/unit/x.py", "import pytest\n@pytest.mark.skipif(True, reason='no')\ndef test(): ...\n"),
    (rules.no_silent_skips, "tests/unit/x.py", "from pytest import importorskip\nimportorskip('x')\n"),
)

KEPT: tuple[tuple[Rule, str, str], ...] = (
    (rules.short_functions, "agent/x.py", 'def f():\n    """' + "words\n" * 70 + '    """\n' + "    a = 1\n" * 55),
    (rules.public_docstrings, "agent/x.py", "def _own() -> None: ...\n"),
    (rules.docstring_on_top, "tests/unit/agent/test_x.py", "def test_a_promise_is_kept(): ...\n"),
    (rules.no_clocks, "agent/clock.py", "import time\nnow = time.monotonic()\n"),
    (rules.no_clocks, "checks/x.py", "import time\nbegan_s = time.monotonic()\n"),
    (rules.no_clocks, "agent/x.py", "import time\ntext = time.strftime('%H', time.gmtime(5))\n"),
    (rules.no_prints, "agent/cli/x.py", "print(1)\n"),
    (rules.no_swallowed_errors, "agent/x.py", "try:\n    f()\nexcept OSError:\n    pass\n"),
    (rules.no_fixed_sleeps, "tests/unit/x.py", "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n"),
    (rules.no_fixed_sleeps, "tests/lab/x.py", "import time\ntime.sleep(1)\n"),
)


def complaints(rule: Rule, modules: tuple[Module, ...]) -> list[str]:
    return [complaint for module in modules for complaint in rule(module)]


def name_of(rule: Rule) -> str:
    return rule.__name__


@pytest.mark.parametrize("rule", rules.EVERYWHERE, ids=name_of)
def test_every_module_keeps(rule: Rule) -> None:
    code.want_none(complaints(rule, code.modules(*code.PRODUCT, "tests")))


@pytest.mark.parametrize("rule", rules.IN_PRODUCT, ids=name_of)
def test_the_product_keeps(rule: Rule) -> None:
    code.want_none(complaints(rule, code.modules(*code.PRODUCT)))


@pytest.mark.parametrize("rule", rules.IN_TESTS, ids=name_of)
def test_tests_keep(rule: Rule) -> None:
    code.want_none(complaints(rule, code.modules("tests")))


@pytest.mark.parametrize("rule", rules.IN_CONTRACTS, ids=name_of)
def test_contracts_keep(rule: Rule) -> None:
    code.want_none(complaints(rule, tuple(code.module(path) for path in CONTRACTS)))


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN, ids=[f"{rule.__name__}-{number}" for number, (rule, _, _) in enumerate(BROKEN)])
def test_a_rule_sees_what_breaks_it(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Module(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), KEPT, ids=[f"{rule.__name__}-{number}" for number, (rule, _, _) in enumerate(KEPT)])
def test_a_rule_lets_what_keeps_it_be(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Module(path, text))) == []


def test_every_rule_has_an_example_that_breaks_it() -> None:
    every = {*rules.EVERYWHERE, *rules.IN_PRODUCT, *rules.IN_TESTS, *rules.IN_CONTRACTS}
    assert every == {rule for rule, _, _ in BROKEN}
