"""What must not be written anywhere: paths of one machine, hosts of package registries, anybody's tools; and what must be: reasons."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import pytest

from tests.tidy import code

MACHINE = re.compile(r"(?<![\w./}])/(root/|home/\w|Users/\w|work/|opt/wheels)|/tmp/" + "(brief|q-house)")
REGISTRIES = re.compile(
    "|".join(
        re.escape(host)
        for host in (
            *("py" + "pi.org", "python" + "hosted.org", "proxy." + "golang.org", "sum." + "golang.org", "npm" + "js.com", "npm" + "js.org"),
            *("crates" + ".io", "gh" + "cr.io", "quay" + ".io", "registry-1.docker" + ".io", "hub.docker" + ".com", "deb.debian" + ".org"),
        )
    )
)
TOOLING = re.compile("issues " + "show|sessions? " + "helper|before-" + "stop", re.IGNORECASE)
UNREASONED = re.compile(r'^\s*"[A-Z]+\d*",?\s*$')
"""A rule switched off in pyproject.toml without a comment behind it."""


def lines(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.search(line):
            yield number, line.strip()[:100]


def complaints(pattern: re.Pattern[str], why: str) -> Iterator[str]:
    for path in code.files():
        for number, line in lines(pattern, code.text_of(path)):
            yield f"{path}:{number}: {why}: {line}"


@pytest.mark.parametrize(
    ("pattern", "why"),
    [(MACHINE, "a path of one machine"), (REGISTRIES, "a registry's host: pip and apt know their own"), (TOOLING, "somebody's tools")],
    ids=["machine", "registries", "tooling"],
)
def test_nothing_foreign_is_named(pattern: re.Pattern[str], why: str) -> None:
    code.want_none(complaints(pattern, why))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (MACHINE, "path = '/ro" + "ot/.venv'"),
        (MACHINE, "see /wo" + "rk/main"),
        (MACHINE, "/ho" + "me/ann/x"),
        (REGISTRIES, "https://py" + "pi.org/simple"),
        (TOOLING, "run `issues " + "show 3`"),
    ],
)
def test_the_patterns_see_what_they_look_for(pattern: re.Pattern[str], text: str) -> None:
    assert list(lines(pattern, text))


@pytest.mark.parametrize("text", ["net/work/x", "~/.cache/quorate", "/etc/quorate/quorate.yaml", "tests/lab/home/", "${HOME}/work/"])
def test_they_let_the_rest_be(text: str) -> None:
    assert not list(lines(MACHINE, text))


def test_each_rule_that_is_off_says_why() -> None:
    text = code.text_of("pyproject.toml")
    ruff = text[text.index("[tool.ruff]") :].replace('select = ["ALL"]', "")
    code.want_none(f"pyproject.toml: {line.strip()} is off without a reason" for line in ruff.splitlines() if UNREASONED.match(line))
    assert UNREASONED.match('    "D203",')
    assert not UNREASONED.match('    "D203",  # a reason')


def test_checks_of_types_and_warnings_stay_strict() -> None:
    tools = tomllib.loads(code.text_of("pyproject.toml"))["tool"]
    assert tools["mypy"]["strict"] is True
    assert tools["ruff"]["lint"]["select"] == ["ALL"]
    assert tools["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    assert "--strict-markers" in tools["pytest"]["ini_options"]["addopts"]
    assert tools["pytest"]["ini_options"]["xfail_strict"] is True


def test_the_lock_pins_what_pyproject_asks_for_and_names_no_host() -> None:
    project = tomllib.loads(code.text_of("pyproject.toml"))["project"]
    wanted = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    names = {re.split(r"[\[<>=~! ;]", each)[0].lower().replace("_", "-") for each in wanted}
    lock = code.text_of("requirements.lock")
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lock.splitlines() if "==" in line}
    code.want_none(f"requirements.lock: {name} is missing; its first lines say how to renew it" for name in sorted(names - pinned))
    assert not re.search(r"https?:|^\s*-", lock, re.MULTILINE)
