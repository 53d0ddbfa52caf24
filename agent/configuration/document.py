"""Text to a plain tree of values, strictly, with the line of everything. It knows YAML and `${ENV}`, and no key of quorate's.

YAML 1.1 reads `12:30` as 750, `NO` as false and `0755` as 493, and keeps the last of two equal keys. Here only `true` and `false` are
booleans, only plain decimal digits are whole numbers, all else is the text that was written; a key given twice is a problem. Everything is
bounded: depth, number of values (also through anchors) and length. Nothing here ever puts a value into a message: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

Tree: TypeAlias = dict[str, "Tree"] | list["Tree"] | str | int | bool | None
"""What a file holds once it is read."""
Path = tuple[str | int, ...]
"""Where in the tree: keys of mappings and places in lists, from the top."""

MAX_DEPTH = 20
MAX_VALUES = 20_000
MAX_CHARACTERS = 4 << 20
"""Of all values together, after anchors and environment variables are followed."""

_WHOLE_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_EMPTY = frozenset({"", "~", "null", "Null", "NULL"})
_VARIABLE = re.compile(r"\$(?:\$|\{([^{}]*)(\}?))")
_VARIABLE_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.ASCII | re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class UnreadableDocument(Exception):
    """The text is no document at all: `sentence` says why, `line` where."""

    def __init__(self, line: int, sentence: str) -> None:
        super().__init__(sentence)
        self.line = line
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong at `path`. `rests_on`: places whose own problems would make this one void; the path if not given.

    `line` is given only for what is not in the tree, such as the second of two equal keys.
    """

    path: Path
    sentence: str
    rests_on: tuple[Path, ...] = ()
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a value stands, and for a scalar the text as it is in the file, before environment variables."""

    line: int
    written: str | None = None


@dataclass(slots=True)
class Document:
    """A file's values, the spot of each, and what was wrong already. A value that could not be read is None, and one of `blanks`."""

    values: dict[str, Tree] = field(default_factory=dict)
    spots: dict[Path, Spot] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    blanks: set[Path] = field(default_factory=set)

    def line(self, path: Path) -> int:
        """The line of the nearest thing on the way to `path` that is in the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.spots:
                return self.spots[path[:length]].line
        return 1


def read_document(text: str, environment: Mapping[str, str]) -> Document:
    """The document in `text`. Raises UnreadableDocument when it is no YAML mapping; lesser mistakes are in `problems`."""
    node = _composed(text)
    if not isinstance(node, MappingNode):
        line = 1 if node is None else node.start_mark.line + 1
        raise UnreadableDocument(
            line, "expected keys and values, such as `nodes:`" if node is not None else "is empty; expected keys and values"
        )
    builder = _Builder(environment)
    builder.document.values = builder.mapping(node, ())
    return builder.document


# ------------------------------------------------------------------ YAML


class _BoundedComposer(Reader, Scanner, Parser, Composer, BaseResolver):
    """Nodes with their marks. No resolver: each scalar stays the text that was written."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if getattr(event, "tag", None) is not None:
            raise UnreadableDocument(line, "tags are not used here; put text that begins with `!` in quotes")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableDocument(line, f"is nested deeper than {MAX_DEPTH} levels")
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _composed(text: str) -> Node | None:
    try:
        node: Node | None = _BoundedComposer(text).get_single_node()
    except ReaderError as error:
        raise UnreadableDocument(text.count("\n", 0, error.position) + 1, "holds a character that YAML does not allow") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        hint = "; between { } and [ ] put `${…}` in quotes" if "${" in "".join(text.splitlines()[line - 1 : line]) else ""
        raise UnreadableDocument(line, _syntax_sentence(error) + hint) from None
    except (ValueError, OverflowError):  # an escape such as "\UFFFFFFFF" names no character
        raise UnreadableDocument(1, "holds an escape that names no character") from None
    return node


_SYNTAX = (
    ("undefined alias", "`*` refers to an anchor that is not in this file; put text that begins with `*` in quotes"),
    ("second occurrence", "this anchor is given twice"),
    ("found another document", "a second document begins here; one file holds one"),
    (r"character '\t'", "a tab cannot stand here; indent with spaces"),
    ("cannot start any token", "text that begins with this character must stand in quotes"),
    ("mapping values are not allowed", "`:` is not expected here; mind the indentation, and put text that holds `: ` in quotes"),
    ("could not find expected ':'", "expected `key: value`"),
    ("expected <block end>", "the indentation does not fit what stands above"),
    ("expected ',' or '}'", "expected `,` or `}`"),
    ("expected ',' or ']'", "expected `,` or `]`"),
    ("unexpected end of stream", "a quote is not closed"),
)
"""Pieces of PyYAML's problems, and what to say instead. Its own text would quote the file."""


def _syntax_sentence(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    for piece, sentence in _SYNTAX:
        if piece in problem:
            return sentence
    return "is no valid YAML: " + " ".join(re.sub(r"'[^']{2,}'", "something else", problem).split())


# ------------------------------------------------------------------ nodes to values


class _Builder:
    """Walks the nodes once, following anchors; keeps count so that a small file cannot become a big tree."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.document = Document()
        self.values = 0
        self.characters = 0

    def value(self, node: Node, path: Path) -> Tree:
        self._count(node, len(path))
        if isinstance(node, MappingNode):
            return self.mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._placed(item, item.start_mark.line, (*path, place)) for place, item in enumerate(node.value)]
        return self._scalar(node, path) if isinstance(node, ScalarNode) else None

    def mapping(self, node: MappingNode, path: Path) -> dict[str, Tree]:
        return {key: self._placed(value, line, (*path, key)) for key, (line, value) in self._pairs(node, path, 0).items()}

    def _placed(self, node: Node, line: int, path: Path) -> Tree:
        self.document.spots[path] = Spot(line + 1, str(node.value) if isinstance(node, ScalarNode) else None)
        return self.value(node, path)

    def _pairs(self, node: MappingNode, path: Path, depth: int) -> dict[str, tuple[int, Node]]:
        """Line of the key and value node by key: the mapping's own, and below those what `<<` merges into it."""
        own: dict[str, tuple[int, Node]] = {}
        merged: dict[str, tuple[int, Node]] = {}
        for key, value in node.value:
            self._count(key, depth)
            line = key.start_mark.line
            if not isinstance(key, ScalarNode) or _CONTROL.search(key.value):
                self._problem(path, line, "a key must be plain text")
            elif key.value == "<<" and key.style is None:
                for source in value.value if isinstance(value, SequenceNode) else [value]:
                    merged = {**self._source(source, path, depth), **merged}
            elif key.value in own:
                self._problem((*path, key.value), line, f"this key is given twice; the first is on line {own[key.value][0] + 1}")
            else:
                own[key.value] = (line, value)
        return {**merged, **own}

    def _source(self, node: Node, path: Path, depth: int) -> dict[str, tuple[int, Node]]:
        if isinstance(node, MappingNode):
            return self._pairs(node, path, depth + 1)
        self._problem(path, node.start_mark.line, "`<<` takes an anchored mapping or a list of them")
        return {}

    def _scalar(self, node: ScalarNode, path: Path) -> Tree:
        written = str(node.value)
        if node.style is None and written in _EMPTY:
            return self._blank(path, "has no value; give it one or delete the key")
        try:
            text = expand(written, self.environment)
        except ValueError as error:
            return self._blank(path, str(error))
        self.characters += len(text)
        if _CONTROL.search(text):
            return self._blank(path, "holds a control character")
        # Between { } and [ ] YAML wants `${PORT}` in quotes; it may be a number all the same.
        return _resolved(text) if node.style is None or _VARIABLE.fullmatch(written) else text

    def _count(self, node: Node, depth: int) -> None:
        self.values += 1
        line = node.start_mark.line + 1
        if self.values > MAX_VALUES or self.characters > MAX_CHARACTERS:
            raise UnreadableDocument(line, f"is too much: more than {MAX_VALUES} keys and values once its anchors are followed")
        if depth > MAX_DEPTH:
            raise UnreadableDocument(line, f"is nested deeper than {MAX_DEPTH} levels once its anchors are followed")

    def _blank(self, path: Path, sentence: str) -> Tree:
        self.document.blanks.add(path)
        self.document.problems.append(Problem(path, sentence))
        return None

    def _problem(self, path: Path, line: int, sentence: str) -> None:
        self.document.problems.append(Problem(path, sentence, line=line + 1))


def _resolved(text: str) -> Tree:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if _WHOLE_NUMBER.fullmatch(text) and text != "-0" else text


# ------------------------------------------------------------------ environment variables


def expand(text: str, environment: Mapping[str, str]) -> str:
    """`text` with `${NAME}`, `${NAME:-default}` and `$$` replaced, once. Raises ValueError with a sentence that holds no value."""

    def replacement(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        named = _VARIABLE_NAME.fullmatch(found[1])
        if named is None or not found[2]:
            raise ValueError("`${` does not begin a variable: write ${NAME} or ${NAME:-default}, and $$ for a dollar sign")
        given = environment.get(named[1], "")
        if not given and named[2] is None and named[1] not in environment:
            raise ValueError(f"the environment variable {named[1]} is not set; ${{{named[1]}:-default}} would give a default")
        return given or named[2] or ""

    return _VARIABLE.sub(replacement, text)


def dotted(path: Path) -> str:
    """The path as people write it: `groups.pg-main.witnesses[0]`. A key that does not look like one is shown as `?`."""
    return "".join(_steps(path)).removeprefix(".")


def _steps(path: Path) -> Iterator[str]:
    for step in path:
        if isinstance(step, int):
            yield f"[{step}]"
        else:
            yield "." + (step if looks_like_a_key(step) else "?")


def looks_like_a_key(text: str) -> bool:
    """Whether the text may be shown: a value in a key's place can be a secret (`password:abc` without the space)."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", text, re.ASCII) is not None
