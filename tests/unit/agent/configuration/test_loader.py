import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.configuration.engine_section import postgres_of
from agent.configuration.loader import MAX_FILE_BYTES, load, parse
from agent.configuration.model import Configuration
from agent.configuration.shown import shown
from agent.errors import ConfigurationError

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
SECRET = "hunter2"
Problems = Callable[[str], tuple[str, ...]]
REPOSITORY = Path(__file__).parents[4]


def test_the_bad_examples_are_there() -> None:
    assert len(BAD) >= 80
    assert {file.stem for file in BAD} == {file.stem for file in (Path(__file__).parent / "bad").glob("*.expected")}


@pytest.mark.parametrize("file", BAD, ids=lambda file: str(file.stem))
def test_a_bad_example_gives_exactly_its_lines(file: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(file.read_text(encoding="utf-8"), file.name, {"WORD": SECRET})
    assert "\n".join(refused.value.problems) + "\n" == file.with_suffix(".expected").read_text(encoding="utf-8")
    for problem in refused.value.problems:
        assert re.match(rf"{file.name}:[1-9][0-9]*: \S", problem)
        assert "\n" not in problem
        assert SECRET not in problem
        assert not re.search(
            r"(?i)pydantic|input should|extra inputs|field required|value error|dictionary|tuple|nonetype|str\b|int\b", problem
        )


def test_a_right_file_loads(tmp_path: Path, base: str) -> None:
    file = tmp_path / "quorate.yaml"
    file.write_text("\ufeff" + base, encoding="utf-8")
    configuration = load(file, {})
    assert list(configuration.nodes) == ["pg1", "pg2"]
    assert configuration.groups["pg-main"].members["pg2"].priority == 90


PLACES = ("quorate.yaml", "catalog/*.yaml", "examples/*/quorate.yaml")
FILES = sorted(file for place in PLACES for file in (REPOSITORY / "config").glob(place))


def test_the_examples_are_there() -> None:
    found = {str(file.parent.relative_to(REPOSITORY / "config")) for file in FILES}
    assert {".", "catalog", "examples/postgres-local-demo", "examples/postgres-single-host", "examples/postgres-three-hosts"} <= found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_the_examples_load_and_name_the_schema(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None
    assert (file.parent / named[1]).resolve() == REPOSITORY / "config/schema.json"
    assert isinstance(load(file, {}), Configuration)


def one_line(path: Path) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load(path, {})
    assert len(refused.value.problems) == 1
    assert "\n" not in refused.value.problems[0]
    return refused.value.problems[0]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    assert one_line(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"


def test_a_folder_and_a_pipe_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert one_line(tmp_path) == f"{tmp_path}: is not a file"
    assert one_line(tmp_path / "pipe") == f"{tmp_path}/pipe: is not a file"


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "loop.yaml"
    file.symlink_to(file)
    assert one_line(file).startswith(f"{file}: cannot be read: ")


def test_too_big_a_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    file.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert one_line(file) == f"{file}: is longer than 256 KiB: this is no configuration"


def test_bytes_that_are_no_text_are_told_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"nodes:\n  pg1: {site: M\xfcnchen}\n")
    assert one_line(file) == f"{file}:2: is not UTF-8 text"


def test_text_is_given_back_as_it_was_written(base: str) -> None:
    written = base.replace("8481}", "8481, site: 12:30}").replace("8482}", "8482, site: 007}")
    sites = [node.site for node in parse(written, "f", {}).nodes.values()]
    assert sites == ["12:30", "007"]


@pytest.mark.parametrize("written", ["12", "true", "0.50"])
def test_a_plain_word_where_text_is_wanted_is_that_text(base: str, written: str) -> None:
    assert parse(base.replace("8481}", f"8481, site: {written}}}"), "f", {}).nodes["pg1"].site == written


def test_a_password_of_digits_from_the_environment_is_text(base: str) -> None:
    text = base.replace("socket_dir:", 'admin: {user: postgres, password: "${PASSWORD}"}, socket_dir:')
    configuration = parse(text, "f", {"PASSWORD": "12345678"})
    assert "12345678" not in repr(configuration)


def test_problems_inside_a_thing_do_not_make_references_to_it_wrong(base: str, problems: Problems) -> None:
    text = base.replace("pg2: {api: 127.0.0.1:8482}", "pg2: {api: 127.0.0.1:8482, sit: x}\n  pg3: 5")
    assert [line.partition(": ")[2] for line in problems(text + "    witnesses: [pg3]\n")] == [
        "nodes.pg2.sit: unknown key (did you mean site?)",
        "nodes.pg3: expected keys and values, not '5'",
    ]


@pytest.mark.parametrize(
    ("old", "new", "only"),
    [
        ("local: {path: /var/lib/quorate/coordination.sqlite}", "local: {path: relative}", "coordination.local.path"),
        ("local: {path: /var/lib/quorate/coordination.sqlite}", "local: {path: }", "coordination.local.path"),
        ("    postgres: {socket_dir: /run/postgresql}", "    postgres: 5", "groups.pg-main.postgres"),
        ("engine: postgres", "engine: postgres\n    lease: {ttl: 5, renew: 4s}", "groups.pg-main.lease.ttl"),
        ("engine: postgres", "engine: postgres\n    lease: {ttl: 500s, renew: 1s}\n    cooldown: 5", "groups.pg-main.cooldown"),
        ("pg2: {api: 127.0.0.1:8482}", "pg2: {api: 5}", "nodes.pg2.api"),
        ("port: 5434", "port: x", "groups.pg-main.members.pg2.port"),
        ("priority: 90}", "priority: x}", "groups.pg-main.members.pg2.priority"),
    ],
)
def test_one_mistake_is_told_once(base: str, problems: Problems, old: str, new: str, only: str) -> None:
    assert old in base
    assert [line.split(": ")[1] for line in problems(base.replace(old, new))] == [only]


# ------------------------------------------------------------------ any text is a configuration or lines

SEEDS = [file.read_text(encoding="utf-8") for file in sorted((Path(__file__).parent / "bad").glob("*.yaml"))]
SEEDS += [(REPOSITORY / "config/quorate.yaml").read_text(encoding="utf-8")]
SEEDS += [file.read_text(encoding="utf-8") for file in sorted((REPOSITORY / "config/examples").glob("*/quorate.yaml"))]
TOKENS = [
    "{",
    "}",
    "[",
    "]",
    ": ",
    ", ",
    "- ",
    "\n",
    "  ",
    "*a",
    "&a ",
    "!!int ",
    '"',
    "'",
    "#",
    "|",
    ">",
    "%",
    "~",
    "<<: ",
    "${X}",
    "$${",
    "${",
    "?",
    "\t",
]
TOKENS += [
    "true",
    "NO",
    "0755",
    "12:30",
    "5s",
    "1e9",
    "-1",
    "9" * 30,
    ".inf",
    "\x00",
    "\ud800",
    "\U0001f600",
    '"\\x00"',
    "---\n",
    "pg1",
    "on",
    "null",
    "[[[",
]
ENVIRONMENT = {"X": "5432", "QUORATE_DEMO": "/tmp/\udcff"}


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([0, 0, 1, 2, 5, 20]))
        text = text[:start] + draw(st.sampled_from(TOKENS) | st.text(max_size=4)) + text[start + length :]
    return text


@st.composite
def one_value_changed(draw: st.DrawFn) -> str:
    """A whole value replaced by another form: gets past YAML, into the judgement."""
    lines = draw(st.sampled_from(SEEDS)).splitlines()
    place = draw(st.integers(0, len(lines) - 1))
    other = st.sampled_from(["5", "true", "[]", "{}", "[1, {a: b}]", "{a: [b]}", "x", "''", "&z {<<: *z}", "12:30", "${X}", "-0.5"])
    lines[place] = re.sub(r": [^,{}\[\]]+", lambda _: ": " + draw(other), lines[place], count=draw(st.integers(1, 3)))
    return "\n".join(lines) + "\n"


def judge(text: str) -> None:
    try:
        configuration = parse(text, "quorate.yaml", ENVIRONMENT)
    except ConfigurationError as error:
        problems = error.problems
    else:
        shown(configuration)
        for group in configuration.groups.values():
            for node in group.members:
                postgres_of(group, node)
        return
    assert problems
    for problem in problems:
        assert re.fullmatch(r"quorate\.yaml:[1-9][0-9]*: [^\n\r]+", problem), problem
        assert len(problem) < 700
        assert problem.isprintable()


@settings(max_examples=300, deadline=None)
@given(mutated())
def test_mutated_text_is_a_configuration_or_lines(text: str) -> None:
    judge(text)


@settings(max_examples=300, deadline=None)
@given(one_value_changed())
def test_a_changed_value_is_a_configuration_or_lines(text: str) -> None:
    judge(text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_lines(text: str) -> None:
    judge(text)
