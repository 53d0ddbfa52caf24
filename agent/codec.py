"""Frozen dataclasses to plain JSON and back, exactly. For what is kept on disk and for what a person opens in an editor.

Knows dataclasses, enums, tuples, frozensets, mappings, optionals, bytes (base64) and plain scalars; nothing else. A dataclass that has a
dataclass as its base (a Command) carries its class name under "class": so a field of type `Command` gets back the very command.
Reading is strict: a wrong type, an unknown or a missing field is one `CodecError` with the path to it. A missing field that has a
default takes it, so that older files stay readable.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar

CLASS = "class"
"""The key of a class name; a Python keyword, so no field has it."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
T = TypeVar("T")


class CodecError(ValueError):
    """The value is none of the type asked for. The text begins with the path to the place."""


# ------------------------------------------------------------------ writing


def to_json(value: object) -> Json:
    """The value as plain JSON. Raises `CodecError` for a type that the codec does not know, and for NaN and infinity."""
    if isinstance(value, Enum):
        return to_json(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CodecError(f"{value} has no place in JSON")
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return _compound(value)


def _compound(value: object) -> Json:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields: dict[str, Json] = {CLASS: type(value).__name__} if _is_tagged(type(value)) else {}
        return fields | {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, frozenset):
        return sorted((to_json(item) for item in value), key=json.dumps)
    if isinstance(value, Mapping):
        pairs = [(to_json(key), to_json(item)) for key, item in value.items()]
        if all(isinstance(key, str) for key, _ in pairs):
            return {str(key): item for key, item in pairs}
        return [[key, item] for key, item in pairs]
    raise CodecError(f"{type(value).__name__} is none of the types that are stored")


def dumps(value: object, indent: int | None = None) -> bytes:
    """The value as JSON text, in one line unless `indent` is given."""
    separators = (",", ":") if indent is None else None
    return json.dumps(to_json(value), ensure_ascii=False, allow_nan=False, indent=indent, separators=separators).encode(
        "utf-8", "surrogatepass"
    )


# ------------------------------------------------------------------ reading


def loads(kind: type[T], text: bytes) -> T:
    """The value in JSON text. Raises `CodecError`."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"no JSON: {error}") from error
    return from_json(kind, raw)


def from_json(kind: type[T], raw: object, path: str = "$") -> T:
    """The value of type `kind` in plain JSON. Raises `CodecError`."""
    wanted: Any = kind
    value: T = _reader(wanted)(raw, path)
    return value


Reader = Callable[[object, str], Any]


@cache
def _reader(kind: Any) -> Reader:
    """How a value of this type is read. Made once for each type; dataclasses look into their fields only when first used."""
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        return _union_reader(typing.get_args(kind))
    if origin is not None:
        return _generic_reader(origin, typing.get_args(kind))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return lambda raw, path: _read_dataclass(kind, raw, path)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda raw, path: _read_enum(kind, raw, path)
    scalar = _SCALARS.get(kind)
    if scalar is None:
        raise CodecError(f"{kind} is none of the types that are stored")
    return scalar


def _generic_reader(origin: Any, arguments: tuple[Any, ...]) -> Reader:
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return lambda raw, path: tuple(_read_items(arguments[0], raw, path))
    if origin is tuple:
        return lambda raw, path: _read_fixed(arguments, raw, path)
    if origin is frozenset:
        return lambda raw, path: frozenset(_read_items(arguments[0], raw, path))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return lambda raw, path: _read_mapping(arguments[0], arguments[1], raw, path)
    raise CodecError(f"{origin} is none of the types that are stored")


def _union_reader(members: tuple[Any, ...]) -> Reader:
    def read(raw: object, path: str) -> Any:
        if raw is None and type(None) in members:
            return None
        found, problems = [], []
        for member in members:
            try:
                found.append(_reader(member)(raw, path))
            except CodecError as error:
                problems.append(str(error))
        if len(found) != 1:
            raise CodecError(f"{path}: fits several types" if found else problems[0])
        return found[0]

    return read


def _read_items(kind: Any, raw: object, path: str) -> Iterable[Any]:
    if not isinstance(raw, list):
        raise CodecError(f"{path}: {_shown(raw)} is no list")
    reader = _reader(kind)
    return [reader(item, f"{path}[{number}]") for number, item in enumerate(raw)]


def _read_fixed(kinds: tuple[Any, ...], raw: object, path: str) -> tuple[Any, ...]:
    if not isinstance(raw, list) or len(raw) != len(kinds):
        raise CodecError(f"{path}: {_shown(raw)} is no list of {len(kinds)}")
    return tuple(_reader(kind)(item, f"{path}[{number}]") for number, (kind, item) in enumerate(zip(kinds, raw, strict=True)))


def _read_mapping(key_kind: Any, value_kind: Any, raw: object, path: str) -> dict[Any, Any]:
    pairs = (
        list(raw.items())
        if isinstance(raw, dict)
        else [_read_fixed((object, object), pair, path) for pair in _read_items(object, raw, path)]
    )
    read_key, read_value = _reader(key_kind), _reader(value_kind)
    return {read_key(key, f"{path}.{key} (key)"): read_value(item, f"{path}.{key}") for key, item in pairs}


def _read_dataclass(kind: type[Any], raw: object, path: str) -> Any:
    if not isinstance(raw, dict):
        raise CodecError(f"{path}: {_shown(raw)} is no {kind.__name__}")
    kind = _class_of(kind, raw, path)
    values: dict[str, Any] = {}
    unknown = sorted(set(raw) - {CLASS} - {field.name for field in dataclasses.fields(kind)})
    if unknown:
        raise CodecError(f"{path}.{unknown[0]}: {kind.__name__} has no such field")
    for field in dataclasses.fields(kind):
        if field.name in raw:
            values[field.name] = _reader(_hint(kind, field.name))(raw[field.name], f"{path}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise CodecError(f"{path}.{field.name}: {kind.__name__} needs it")
    return kind(**values)


def _class_of(kind: type[Any], raw: dict[str, object], path: str) -> type[Any]:
    known = {kind.__name__: kind} | {c.__name__: c for c in _descendants(kind)}
    if len(known) == 1 and not _is_tagged(kind):
        if CLASS in raw:
            raise CodecError(f"{path}.{CLASS}: {kind.__name__} has no such field")
        return kind
    name = raw.get(CLASS, kind.__name__ if not _is_tagged(kind) else None)
    if not isinstance(name, str) or name not in known:
        raise CodecError(f"{path}.{CLASS}: {_shown(name)} is no kind of {kind.__name__}")
    return known[name]


def _descendants(kind: type[Any]) -> Iterable[type[Any]]:
    """All subclasses; of two with one name the later, for `slots=True` makes a class anew."""
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


def _is_tagged(kind: type[Any]) -> bool:
    return any(dataclasses.is_dataclass(base) for base in kind.__mro__[1:])


def _hint(kind: Any, name: str) -> Any:
    return _hints(kind)[name]


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read_enum(kind: type[Enum], raw: object, path: str) -> Enum:
    for member in kind:
        if member.value == raw and type(member.value) is type(raw):
            return member
    raise CodecError(f"{path}: {_shown(raw)} is none of {', '.join(str(m.value) for m in kind)}")


def _read_scalar(accepted: tuple[type, ...], name: str) -> Reader:
    def read(raw: object, path: str) -> Any:
        if not isinstance(raw, accepted) or (isinstance(raw, bool) and bool not in accepted):
            raise CodecError(f"{path}: {_shown(raw)} is no {name}")
        return raw

    return read


def _read_float(raw: object, path: str) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        with contextlib.suppress(OverflowError):
            if math.isfinite(raw):
                return float(raw)
    raise CodecError(f"{path}: {_shown(raw)} is no number")


def _read_bytes(raw: object, path: str) -> bytes:
    try:
        return base64.b64decode(_read_scalar((str,), "base64")(raw, path), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CodecError(f"{path}: {_shown(raw)} is no base64") from error


def _shown(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."


_SCALARS: dict[Any, Reader] = {
    type(None): _read_scalar((type(None),), "null"),
    bool: _read_scalar((bool,), "true or false"),
    int: _read_scalar((int,), "whole number"),
    float: _read_float,
    str: _read_scalar((str,), "text"),
    bytes: _read_bytes,
    object: lambda raw, _: raw,
}
