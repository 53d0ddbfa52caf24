import pytest

from agent.configuration.document import (
    MAX_VALUES,
    Document,
    Path,
    Tree,
    UnreadableDocument,
    dotted,
    expand,
    looks_like_a_key,
    read_document,
)


def told(document: Document) -> list[tuple[int, str, str]]:
    return [(problem.line or document.line(problem.path), dotted(problem.path), problem.sentence) for problem in document.problems]


@pytest.mark.parametrize(
    "written", ["12:30", "NO", "yes", "on", "0755", "0x10", "1_000", "1e3", ".inf", "+5", "-0", "2026-11-21", "True", "0.5", "9" * 19]
)
def test_what_yaml_1_1_would_change_is_the_text_that_was_written(written: str) -> None:
    document = read_document(f"key: {written}\n", {})
    assert document.values == {"key": written}
    assert not document.problems


@pytest.mark.parametrize(
    ("written", "value"), [("true", True), ("false", False), ("0", 0), ("-5", -5), ("5432", 5432), ('"5432"', "5432"), ("'true'", "true")]
)
def test_only_two_words_and_plain_digits_are_more_than_text(written: str, value: Tree) -> None:
    assert read_document(f"key: {written}\n", {}).values == {"key": value}


def test_each_thing_knows_its_line() -> None:
    document = read_document("a:\n  b: 1\n  c:\n    - x\n    - y\nd: {e: 2}\n", {})
    lines: list[tuple[Path, int]] = [(("a",), 1), (("a", "b"), 2), (("a", "c"), 3), (("a", "c", 1), 5), (("d", "e"), 6)]
    assert [(path, document.line(path)) for path, _ in lines] == lines
    assert document.line(("a", "missing", "deeper")) == 1
    assert document.line(()) == 1


def test_a_key_given_twice_is_told_where_both_are_and_the_first_counts() -> None:
    document = read_document("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n", {})
    assert document.values == {"a": 1, "b": {"c": 1}}
    assert told(document) == [
        (5, "a", "this key is given twice; the first is on line 1"),
        (4, "b.c", "this key is given twice; the first is on line 3"),
    ]


def test_a_key_that_is_no_text_is_a_problem() -> None:
    assert told(read_document("a: {[1, 2]: 3}\n", {})) == [(1, "a", "a key must be plain text")]


@pytest.mark.parametrize("nothing", ["", "~", "null", "NULL"])
def test_a_key_without_value_is_a_problem(nothing: str) -> None:
    document = read_document(f"a:\n  b: {nothing}\n", {})
    assert told(document) == [(2, "a.b", "has no value; give it one or delete the key")]
    assert document.blanks == {("a", "b")}


def test_anchors_and_merges_share_values_and_lines() -> None:
    document = read_document("a: &a {x: 1, y: 2}\nb: *a\nc: {y: 3, <<: *a}\nd:\n  <<: [{x: 9}, *a]\n", {})
    assert document.values == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}, "d": {"x": 9, "y": 2}}
    assert document.line(("b", "x")) == 1
    assert document.line(("c", "y")) == 3
    assert not document.problems


def test_a_merge_of_something_else_is_a_problem() -> None:
    assert told(read_document("a:\n  <<: [5]\n", {})) == [(2, "a", "`<<` takes an anchored mapping or a list of them")]


@pytest.mark.parametrize(
    ("text", "line", "piece"),
    [
        ("", 1, "is empty"),
        ("# only this\n", 1, "is empty"),
        ("- a\n", 1, "expected keys and values"),
        ("word\n", 1, "expected keys and values"),
        ("a: 1\nb: [1\n", 3, "expected `,` or `]`"),
        ("a: 1\n\tb: 2\n", 2, "a tab cannot stand here"),
        ("a: b: c\n", 1, "`:` is not expected here"),
        ("a: 'b\n", 2, "a quote is not closed"),
        ("a:\n  b: 1\n c: 2\n", 3, "the indentation does not fit"),
        ("a: 1\nb\nc: 2\n", 3, "expected `key: value`"),
        ("a: @b\n", 1, "must stand in quotes"),
        ("a: *hunter2\n", 1, "`*` refers to an anchor"),
        ("a: !hunter2 x\n", 1, "tags are not used"),
        ("a: 1\n---\nb: 2\n", 2, "a second document begins here"),
        ("a: &x 1\nb: &x 2\n", 2, "this anchor is given twice"),
        ("a: 1\nb: \x01\n", 2, "holds a character that YAML does not allow"),
        ('a: "\\UFFFFFFFF"\n', 1, "holds an escape that names no character"),
        ('a: "\\hunter2"\n', 1, "unknown escape character"),
        ("%YAML 2.0\n---\na: 1\n", 1, "is no valid YAML"),
        ("a: " + "[" * 25 + "]" * 25, 1, "is nested deeper than 20 levels"),
        ("a: " + "[" * 20000, 1, "is nested deeper than 20 levels"),
        ("a: {b: ${PORT}}\n", 1, "put `${…}` in quotes"),
    ],
)
def test_what_is_no_document_is_one_sentence_with_its_line(text: str, line: int, piece: str) -> None:
    with pytest.raises(UnreadableDocument) as refused:
        read_document(text, {})
    assert refused.value.line == line
    assert piece in refused.value.sentence
    assert "hunter2" not in refused.value.sentence


@pytest.mark.parametrize("text", ["a: &a {b: *a}\n", "a: &a {<<: *a}\n", "a: &a [*a]\n"])
def test_an_anchor_inside_itself_ends(text: str) -> None:
    with pytest.raises(UnreadableDocument, match="once its anchors are followed"):
        read_document(text, {})


@pytest.mark.parametrize(("first", "row"), [("[x, x]", "[{}]"), ("{x: 1}", "{{<<: [{}]}}")])
def test_a_billion_laughs_are_cut_short(first: str, row: str) -> None:
    lines = [f"a0: &a0 {first}"] + [f"a{level}: &a{level} " + row.format(", ".join([f"*a{level - 1}"] * 10)) for level in range(1, 15)]
    with pytest.raises(UnreadableDocument, match=f"more than {MAX_VALUES} keys and values"):
        read_document("\n".join(lines), {})


def test_a_long_variable_cannot_be_repeated_without_end() -> None:
    text = "a: [" + ", ".join(['"${X}"'] * 2000) + "]\n"
    with pytest.raises(UnreadableDocument, match="is too much"):
        read_document(text, {"X": "x" * 100_000})


# ------------------------------------------------------------------ environment variables


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${A}", "one"),
        ("x-${A}-${A}", "x-one-one"),
        ("${NONE:-default}", "default"),
        ("${NONE:-}", ""),
        ("${EMPTY:-default}", "default"),
        ("${EMPTY}", ""),
        ("${NONE:-a:-b $c}", "a:-b $c"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$A $ 5$", "$A $ 5$"),
        ("${NESTED}", "${A}"),
    ],
)
def test_variables_are_replaced_once(text: str, result: str) -> None:
    assert expand(text, {"A": "one", "EMPTY": "", "NESTED": "${A}"}) == result


@pytest.mark.parametrize("text", ["${", "${}", "${9}", "${A-x}", "${A", "${A b}", "${Ä}", "${A:-x{y}}"])
def test_a_wrong_variable_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="does not begin a variable"):
        expand(text, {"A": "hunter2"})


def test_a_variable_that_is_not_set_is_a_sentence_with_its_name() -> None:
    with pytest.raises(ValueError, match="the environment variable NONE is not set"):
        expand("${NONE}", {})


def test_a_variable_may_be_a_number_also_in_quotes_when_it_stands_alone() -> None:
    document = read_document('a: ${P}\nb: {c: "${P}"}\nd: "x${P}"\ne: ${E}\nf: ${T}\n', {"P": "5432", "E": "", "T": "null"})
    assert document.values == {"a": 5432, "b": {"c": 5432}, "d": "x5432", "e": "", "f": "null"}


def test_a_variable_cannot_bring_structure() -> None:
    assert read_document("a: ${X}\n", {"X": "{b: 1}\nc: 2"}).values == {"a": "{b: 1}\nc: 2"}


@pytest.mark.parametrize("text", ["a: ${X}\n", 'a: "\\0"\n', 'a: "\\ud800"\n'])
def test_a_control_character_is_a_problem(text: str) -> None:
    assert told(read_document(text, {"X": "a\udcffb"})) == [(1, "a", "holds a control character")]


# ------------------------------------------------------------------ paths


def test_a_path_is_shown_as_people_write_it() -> None:
    assert dotted(("groups", "pg-main", "witnesses", 0)) == "groups.pg-main.witnesses[0]"
    assert dotted(()) == ""


def test_a_key_that_may_be_a_value_is_not_shown() -> None:
    assert dotted(("nodes", "password:hunter2")) == "nodes.?"
    assert not looks_like_a_key("a\nb")
    assert not looks_like_a_key("x" * 64)
