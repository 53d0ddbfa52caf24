from __future__ import annotations

from dataclasses import replace

import pytest

from agent.decision import orders
from agent.decision.command import CastVote, Command, FenceService
from agent.decision.picture import BEGIN, END, draw, redraw
from agent.decision.picture import orders as ordered_by
from agent.decision.rules import TABLE, Concern
from tests.scenarios.reading import load_all, play

BY_NAME = {rule.name: rule for rule in TABLE}


@pytest.mark.parametrize(
    ("rule", "commands"),
    [
        ("renew", {"RenewLease"}),
        ("retake-own", {"TakeLease"}),
        ("fence-late", {"FenceService"}),
        ("fence-failed-promotion", {"FenceService"}),
        ("start", {"StartService"}),
        ("call-down", {"CastVote"}),
        ("lease-busy", set()),
    ],
)
def test_a_row_names_the_commands_it_can_order(rule: str, commands: set[str]) -> None:
    assert ordered_by(BY_NAME[rule]) == commands


def test_no_row_orders_what_the_picture_does_not_name() -> None:
    for scenario in load_all():
        for _, decision in play(scenario):
            named = {name for rule in decision.rules for name in ordered_by(rule)}
            assert {type(c).__name__ for c in decision.commands} <= named


def test_commands_inside_closures_are_found() -> None:
    kind: type[Command] = CastVote
    rule = replace(BY_NAME["renew"], commands=lambda ctx: (kind(0, down=True, over_index=0, evidence=str(ctx)),))  # type: ignore[call-arg]
    assert ordered_by(rule) == {"CastVote"}
    stop = orders.fence("x")
    assert ordered_by(replace(rule, commands=lambda ctx: stop(ctx))) == {FenceService.__name__}  # noqa: PLW0108  # a closure is the point


def test_the_picture_has_every_row_in_its_order() -> None:
    picture = draw()
    for concern in Concern:
        names = [rule.name for rule in TABLE if rule.concern is concern]
        rows = [f"| {number} | `{name}` | {BY_NAME[name].sentence} |" for number, name in enumerate(names, start=1)]
        places = [picture.index(row) for row in rows]
        assert places == sorted(places)
    assert picture.startswith("```mermaid\n")
    assert picture.endswith("|\n")


def test_a_page_gets_the_picture_between_its_marks() -> None:
    page = f"# Top\n{BEGIN}\nold\n{END}\nend\n"
    assert redraw(page) == f"# Top\n{BEGIN}\n{draw()}{END}\nend\n"
    assert redraw(redraw(page)) == redraw(page)


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_one_pair_of_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="must have one"):
        redraw(page)
