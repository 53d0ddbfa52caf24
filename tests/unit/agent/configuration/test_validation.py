from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.configuration.document import Tree
from agent.configuration.validation import Section, place_of, validate


class Colour(StrEnum):
    RED = "red"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: int
    text: str = "x"
    ratio: float = 0.5


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner | None = None
    choice: Literal["all"] | tuple[Colour, ...] = "all"
    names: dict[Annotated[str, Field(pattern="^[a-z]+$")], Inner] = {}


def judged(values: dict[str, Tree]) -> tuple[Outer | None, list[tuple[str | int, ...]], tuple[tuple[str | int, ...], ...]]:
    result = validate(Outer, values, Section({}))
    return result.model, [problem.path for problem in result.problems], result.cut


def test_what_is_right_has_no_problem_and_nothing_cut() -> None:
    model, problems, cut = judged({"inner": {"number": 5}, "choice": ["red"]})
    assert model == Outer(inner=Inner(number=5), choice=(Colour.RED,))
    assert (problems, cut) == ([], ())


def test_text_and_fractions_are_what_was_written() -> None:
    model, problems, _ = judged({"inner": {"number": 5, "text": 12, "ratio": "0.25"}, "names": {"a": {"number": 1, "text": True}}})
    assert problems == []
    assert model is not None
    assert model.inner == Inner(number=5, text="12", ratio=0.25)
    assert model.names["a"].text == "true"


def test_text_is_never_a_number() -> None:
    assert judged({"inner": {"number": "5", "ratio": "1e3"}})[1] == [("inner", "number"), ("inner", "ratio")]


def test_a_wrong_optional_value_is_cut_and_the_rest_is_used() -> None:
    model, problems, cut = judged({"inner": {"number": 5, "text": []}, "choice": "all"})
    assert model == Outer(inner=Inner(number=5))
    assert problems == [("inner", "text")]
    assert cut == (("inner", "text"),)


def test_a_section_that_misses_a_key_is_cut_whole_but_told_once() -> None:
    model, problems, cut = judged({"inner": {"text": "y"}, "names": {"a": {"number": "x"}, "b": {"number": 1}}})
    assert problems == [("inner", "number"), ("names", "a", "number")]
    assert model == Outer(names={"b": Inner(number=1)})
    assert {("inner",), ("names", "a")} <= set(cut)


def test_of_a_choice_the_branch_that_came_furthest_speaks() -> None:
    assert judged({"choice": ["red", "blue"]})[1] == [("choice", 1)]
    assert judged({"choice": "none"})[1] == [("choice",)]
    assert judged({"choice": ["red", "blue"]})[2] == (("choice",),)


def test_a_wrong_name_is_at_its_key() -> None:
    assert judged({"names": {"A": {"number": 1}}})[1] == [("names", "A")]


def test_a_missing_key_is_not_told_beside_its_misspelling() -> None:
    assert judged({"inner": {"numbre": 5}})[1] == [("inner", "numbre")]


def test_a_root_that_misses_a_key_is_nothing() -> None:
    result = validate(Inner, {"text": "x"}, Section({}, ("at",)))
    assert result.model is None
    assert [problem.path for problem in result.problems] == [("at", "number")]


def test_a_place_passes_over_pydantics_own_names() -> None:
    assert place_of({"choice": ["red"]}, ("choice", "tuple[Colour, ...]", 0)) == ("choice", 0)
