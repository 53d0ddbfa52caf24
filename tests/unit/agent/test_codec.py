from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.codec import CodecError, dumps, from_json, loads, to_json


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1


class Answer(Enum):
    YES = True


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: float = 0.5


@dataclass(frozen=True, slots=True)
class Shape:
    sides: ClassVar[int] = 0
    name: str


@dataclass(frozen=True, slots=True)
class Circle(Shape):
    centre: Point


@dataclass(frozen=True, slots=True)
class Ring(Circle):
    width: int | None = None


@dataclass(frozen=True, slots=True)
class Everything:
    flag: bool
    text: str
    raw: bytes
    colour: Colour
    size: Size
    answer: Answer
    maybe: Point | None
    either: int | str
    points: tuple[Point, ...]
    pair: tuple[int, str]
    pairs: tuple[tuple[int, int], ...]
    colours: frozenset[Colour]
    by_name: Mapping[str, Point]
    by_colour: Mapping[Colour, int]
    by_number: Mapping[int, str]
    shape: Shape
    shapes: tuple[Shape, ...]
    extra: dict[str, int] = field(default_factory=dict)


points = st.builds(Point, st.integers(), st.floats(allow_nan=False, allow_infinity=False))
shapes = st.one_of(
    st.builds(Shape, st.text()),
    st.builds(Circle, st.text(), points),
    st.builds(Ring, st.text(), points, st.none() | st.integers()),
)
everything = st.builds(
    Everything,
    flag=st.booleans(),
    text=st.text(),
    raw=st.binary(),
    colour=st.sampled_from(Colour),
    size=st.sampled_from(Size),
    answer=st.sampled_from(Answer),
    maybe=st.none() | points,
    either=st.integers() | st.text(),
    points=st.lists(points, max_size=3).map(tuple),
    pair=st.tuples(st.integers(), st.text()),
    pairs=st.lists(st.tuples(st.integers(), st.integers()), max_size=3).map(tuple),
    colours=st.frozensets(st.sampled_from(Colour)),
    by_name=st.dictionaries(st.text(), points, max_size=3),
    by_colour=st.dictionaries(st.sampled_from(Colour), st.integers()),
    by_number=st.dictionaries(st.integers(), st.text(), max_size=3),
    shape=shapes,
    shapes=st.lists(shapes, max_size=3).map(tuple),
    extra=st.dictionaries(st.text(), st.integers(), max_size=2),
)


@given(everything)
def test_everything_comes_back_as_it_was_and_of_the_same_class(value: Everything) -> None:
    back = loads(Everything, dumps(value))
    assert back == value
    assert type(back.shape) is type(value.shape)
    assert dumps(back) == dumps(value)


def test_a_derived_dataclass_carries_its_class_and_a_plain_one_does_not() -> None:
    assert to_json(Circle("c", Point(1))) == {"class": "Circle", "name": "c", "centre": {"x": 1, "y": 0.5}}
    assert to_json(Shape("s")) == {"name": "s"}


def test_a_derived_class_is_found_below_any_of_its_bases_only() -> None:
    ring = {"class": "Ring", "name": "r", "centre": {"x": 1}, "width": None}
    assert from_json(Circle, ring) == from_json(Shape, ring) == from_json(Ring, ring) == Ring("r", Point(1))
    with pytest.raises(CodecError, match=r"\$\.class: 'Circle' is no kind of Ring"):
        from_json(Ring, {"class": "Circle", "name": "c", "centre": {"x": 1}})


def test_a_missing_field_takes_its_default() -> None:
    assert from_json(Point, {"x": 1}) == Point(1, 0.5)


@pytest.mark.parametrize(
    ("kind", "raw", "message"),
    [
        (int, "1", "$: '1' is no whole number"),
        (int, True, "$: True is no whole number"),
        (int, 1.0, "$: 1.0 is no whole number"),
        (bool, 1, "$: 1 is no true or false"),
        (str, 1, "$: 1 is no text"),
        (float, "1", "$: '1' is no number"),
        (float, True, "$: True is no number"),
        (float, 10**400, "is no number"),
        (float, float("nan"), "$: nan is no number"),
        (bytes, "!", "$: '!' is no base64"),
        (bytes, 7, "$: 7 is no base64"),
        (Colour, "green", "$: 'green' is none of red, blue"),
        (Size, True, "$: True is none of 1"),
        (Point, [], "$: [] is no Point"),
        (Point, {"y": 1}, "$.x: Point needs it"),
        (Point, {"x": 1, "z": 1}, "$.z: Point has no such field"),
        (Point, {"x": 1, "class": "Point"}, "$.class: Point has no such field"),
        (Circle, {"name": "c", "centre": {"x": 1}}, "$.class: None is no kind of Circle"),
        (Circle, {"class": "Circle", "name": "c", "centre": {"x": "1"}}, "$.centre.x: '1' is no whole number"),
        (Shape, {"class": "Square", "name": "s"}, "$.class: 'Square' is no kind of Shape"),
        (Shape, {"class": [], "name": "s"}, "$.class: [] is no kind of Shape"),
        (tuple[int, ...], {}, "$: {} is no list"),
        (tuple[int, ...], [1, "2"], "$[1]: '2' is no whole number"),
        (tuple[int, str], [1], "$: [1] is no list of 2"),
        (Mapping[str, int], {"a": "b"}, "$.a: 'b' is no whole number"),
        (Mapping[int, int], {"a": 1}, "$.a (key): 'a' is no whole number"),
        (Mapping[str, int], 7, "$: 7 is no list"),
        (int | None, "x", "$: 'x' is no whole number"),
        (int | float, 1, "$: fits several types"),
        (str, 10**100, "..."),
        (type(None), 0, "$: 0 is no null"),
    ],
    ids=str,
)
def test_what_is_not_of_the_type_is_refused_with_the_place(kind: type[object], raw: object, message: str) -> None:
    with pytest.raises(CodecError) as error:
        from_json(kind, raw)
    assert message in str(error.value)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000], ids=["empty", "torn", "binary", "deep"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(CodecError, match="no JSON"):
        loads(Point, text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, [1], object(), Point])
def test_what_has_no_place_in_json_is_not_written(value: object) -> None:
    with pytest.raises(CodecError):
        to_json(value)


@pytest.mark.parametrize("kind", [complex, list[int], set[int]])
def test_types_that_are_not_stored_are_not_read(kind: type[object]) -> None:
    with pytest.raises(CodecError, match="none of the types"):
        from_json(kind, [])


def test_an_indent_is_for_people() -> None:
    assert json.loads(dumps(Point(1), indent=1)) == {"x": 1, "y": 0.5}
    assert b"\n" in dumps(Point(1), indent=1)
    assert b"\n" not in dumps(Point(1))
