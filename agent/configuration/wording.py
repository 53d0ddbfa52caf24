"""What pydantic found, in a sentence for the person who wrote the file. Pure.

A sentence says what was expected, what was written where that cannot be a secret, and the nearest name that would have been right. What was
written is quoted as it stands in the file, never after environment variables were put in. Nothing of pydantic's vocabulary gets through.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from agent.configuration.document import Path, Tree, looks_like_a_key
from agent.configuration.model import NAME_PATTERN
from agent.configuration.secrets import is_secret_key

LONGEST_QUOTE = 40
_NAME_WANTED = "expected a name of lower-case letters, digits, - and _ (at most 63, a letter or digit at both ends)"

LATER_KEYS = (
    ("alerts",),
    ("notify",),
    ("groups", "*", "follows_leader", "*", "dns"),
    ("groups", "*", "follows_leader", "*", "consul_service"),
)
"""Keys of quorate's plan that this version does not know yet. `*` is any name."""
LATER_VALUES: dict[str, tuple[str, ...]] = {
    "engine": ("redis", "sentinel", "service", "cloudspace"),
    "control": ("systemd", "docker", "commands"),
    "durability": ("quorum",),
}

_TYPES = {
    "string_type": "expected text",
    "path_type": "expected a path",
    "int_type": "expected a whole number in plain digits",
    "int_parsing": "expected a whole number in plain digits",
    "int_from_float": "expected a whole number in plain digits",
    "float_type": "expected a number in plain digits",
    "float_parsing": "expected a number in plain digits",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "dict_type": "expected keys and values",
    "model_type": "expected keys and values",
    "model_attributes_type": "expected keys and values",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "set_type": "expected a list",
    "frozen_set_type": "expected a list",
}
_LIMITS = {
    "greater_than": ("gt", "expected more than {}"),
    "greater_than_equal": ("ge", "expected at least {}"),
    "less_than": ("lt", "expected less than {}"),
    "less_than_equal": ("le", "expected at most {}"),
    "string_too_short": ("min_length", "expected at least {} character(s)"),
    "string_too_long": ("max_length", "expected at most {} characters"),
    "too_short": ("min_length", "expected at least {} entry"),
    "too_long": ("max_length", "expected at most {} entries"),
}


def sentence_of(fault: ErrorDetails, path: Path, written: str | None, value: Tree, known: Iterable[str]) -> str:
    """One sentence on `fault`. `known`: the keys that may stand there.

    `written`: the scalar as in the file, if it is one; `value`: what became of it, which is never shown.
    """
    kind, context = fault["type"], fault.get("ctx", {})
    if fault["loc"] and fault["loc"][-1] == "[key]":
        return _NAME_WANTED
    if kind == "extra_forbidden":
        return unknown_key(path, known)
    if kind == "missing":
        return "this key is missing"
    if kind in ("literal_error", "enum"):
        if isinstance(value, dict) and len(value) == 1:  # `control: {systemd: UNIT}`
            written = next(iter(value))
        return _choice(path, written, tuple(re.findall(r"'([^']*)'", str(context.get("expected", "")))))
    if kind == "string_pattern_mismatch":
        wanted = _NAME_WANTED if context.get("pattern") == NAME_PATTERN else "is not of the expected form"
    elif kind in _LIMITS:
        key, sentence = _LIMITS[kind]
        wanted = sentence.format(_plain(context.get(key)))
    elif kind == "value_error":
        wanted = _own_words(str(context.get("error", "")), value)
    else:
        wanted = _TYPES.get(kind) or _own_words(fault["msg"], value)
    return wanted + quoted(path, written) + _plain_hint(kind, written)


def unknown_key(path: Path, known: Iterable[str]) -> str:
    """What to say of a key that may not stand at `path`, where these may."""
    if any(len(path) == len(later) and all(b in ("*", a) for a, b in zip(path, later, strict=True)) for later in LATER_KEYS):
        return "is not available in this version of quorate"
    names = sorted(known)
    hint = nearest(str(path[-1]), names) if path else ""
    if not hint and 0 < len(names) <= 12:
        hint = f"; known here: {', '.join(names)}"
    return f"unknown key{hint}"


def not_yet(written: str, choices: Iterable[str]) -> str:
    """What to say of a value of quorate's plan that this version does not know yet."""
    return f"{written} is not available in this version of quorate; expected {' or '.join(choices)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` with the plain known name that is most like this one, or nothing (a name in the file may be anything)."""
    by_form = {candidate.lower().replace("-", "_"): candidate for candidate in known if looks_like_a_key(candidate)}
    near = difflib.get_close_matches(name.lower().replace("-", "_")[:100], tuple(by_form), n=1, cutoff=0.6)
    return f" (did you mean {by_form[near[0]]}?)" if near else ""


def quoted(path: Path, written: str | None) -> str:
    """`, not 'what was written'`, where that is short, plain and no secret."""
    if written is None or any(isinstance(step, str) and is_secret_key(step) for step in path):
        return ""
    if not re.fullmatch(r"[ -~]+", written, re.ASCII) or len(written) > LONGEST_QUOTE or "://" in written or "=" in written:
        return ""
    return f", not '{written}'"


def _choice(path: Path, written: str | None, choices: tuple[str, ...]) -> str:
    later = LATER_VALUES.get(next((step for step in reversed(path) if isinstance(step, str)), ""), ())
    choices = tuple(choice for choice in choices if choice not in later)
    if written in later:
        return not_yet(written, choices)
    wanted = f"expected {choices[0]}" if len(choices) == 1 else f"expected one of {', '.join(choices)}"
    return wanted + quoted(path, written) + (nearest(written, choices) if written else "")


def _plain_hint(kind: str, written: str | None) -> str:
    """What another YAML would have taken, or what quotes hide."""
    word = (written or "").lower()
    if kind.startswith("bool"):
        meant = {"yes": "true", "on": "true", "true": "true", "y": "true", "no": "false", "off": "false", "false": "false", "n": "false"}
        hidden, near = written in ("true", "false"), meant.get(word)
        return " (write it without quotes)" if hidden else f" (did you mean {near}?)" if near else ""
    hidden = kind.startswith("int") and re.fullmatch(r"0|[1-9][0-9]*", word, re.ASCII) is not None
    return " (write it without quotes)" if hidden else ""


def _own_words(message: str, value: Tree) -> str:
    """A validator's own sentence on one line; nothing of it when it repeats a piece of the value, which may be a secret."""
    plain = " ".join(message.removeprefix("Value error, ").replace("Input should be", "expected").split())
    pieces = re.split(r"[\s:@/'\"]+", re.sub(r"\w+\s*=", " ", value)) if isinstance(value, str) else ["" if value is None else str(value)]
    if not plain or any(piece in plain for piece in pieces if len(piece) > 2):
        return "is not valid"
    return (plain[:1].lower() + plain[1:])[:300]


def _plain(number: object) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


# ------------------------------------------------------------------ which keys may stand where


def known_keys(model: type[BaseModel], path: Path) -> tuple[str, ...]:
    """The keys that may stand in the section at `path` below `model`; none if it is not a section."""
    places = [model]
    for step in path:
        places = [inner for place in places for inner in _below(place, step)]
    return tuple(sorted({key for place in places for key in _fields(place)}))


def _fields(annotation: object) -> tuple[str, ...]:
    return tuple(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else ()


def _below(annotation: object, step: str | int) -> list[type]:
    """The types that may stand at `step` inside a value of this type."""
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(step))
        return [] if field is None else _choices(field.annotation)
    arguments = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    return _choices(arguments[-1]) if arguments and get_origin(annotation) in (dict, list, tuple, set, frozenset) else []


def _choices(annotation: object) -> list[type]:
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [one for argument in get_args(annotation) if argument is not NoneType for one in _choices(argument)]
    return [annotation]  # type: ignore[list-item]
