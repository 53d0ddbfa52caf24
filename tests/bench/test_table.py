"""Runs to table: medians, ranges, what has no end, what nobody counted, and the marks of the README. Starts nothing."""

from __future__ import annotations

import dataclasses

import pytest

from tests.bench import table
from tests.bench.contenders import CONTENDERS
from tests.bench.faults import Fault
from tests.bench.results import Run, by_cell
from tests.bench.table import Circumstances

RUN = Run(
    contender="quorate",
    fault=Fault.HOST_DEAD,
    outage_s=3.0,
    recovered=True,
    overlap_s=0.0,
    overlap_went_on=False,
    acknowledged=400,
    lost=0,
    blind_s=0.0,
    load=1.0,
    at="2026-11-21T12:00:00+00:00",
)
FAULTS = list(Fault)


def runs(*outages_s: float) -> list[Run]:
    return [dataclasses.replace(RUN, outage_s=outage_s) for outage_s in outages_s]


def only_row(*found: Run) -> table.Row:
    (row,) = table.rows(CONTENDERS.values(), FAULTS, by_cell(found))
    return row


def test_a_cell_is_the_median_and_the_range() -> None:
    assert table.outage_cell(runs(9.04, 2.0, 3.0)) == "3.0 (2.0-9.0)"


def test_a_single_run_has_no_range() -> None:
    assert table.outage_cell(runs(3.04)) == "3.0"


def test_what_was_not_measured_is_no_number() -> None:
    assert table.outage_cell([]) == "-"
    assert table.safety_cell([]) == "-"


def test_an_outage_without_an_end_is_no_number_of_seconds() -> None:
    endless = dataclasses.replace(RUN, outage_s=80.1, recovered=False)
    assert table.outage_cell([endless]) == "> 60"
    assert table.outage_cell([*runs(3.0, 4.0), endless]) == "4.0 (3.0-> 60)"
    assert table.outage_cell([*runs(3.0), endless]) == "> 60 (3.0-> 60)", "half of them never ended: there is no middle"


def test_a_late_end_is_told_as_it_was() -> None:
    assert table.outage_cell(runs(66.6)) == "66.6"


def test_of_safety_the_worst_run_is_told() -> None:
    worst = dataclasses.replace(RUN, overlap_s=8.16, overlap_went_on=True)
    lossy = dataclasses.replace(RUN, lost=7)
    assert table.safety_cell([RUN, worst, lossy]) == "**8.2 and more**; lost **7**"
    assert table.safety_cell([RUN]) == "0; lost 0"


def test_an_overlap_too_short_for_a_digit_is_not_told_as_none() -> None:
    assert table.safety_cell([dataclasses.replace(RUN, overlap_s=0.01)]) == "**0.01**; lost 0"


def test_lost_rows_that_nobody_could_count_are_not_told_as_none() -> None:
    assert table.safety_cell([dataclasses.replace(RUN, lost=None)]) == "0; lost unknown"
    assert table.safety_cell([dataclasses.replace(RUN, lost=None), dataclasses.replace(RUN, lost=3)]) == "0; lost **3** and unknown"


def test_the_row_says_how_many_runs_a_cell_has() -> None:
    killed = dataclasses.replace(RUN, fault=Fault.SERVICE_KILLED)
    assert only_row(*runs(1.0, 2.0)).cells[-1] == "2"
    assert only_row(*runs(1.0, 2.0), killed).cells[-1] == "1-2"


def test_a_blind_run_is_not_counted() -> None:
    assert only_row(*runs(3.0), dataclasses.replace(RUN, outage_s=50.0, blind_s=1.5)).cells[1] == "3.0"


def test_the_outages_faults_show_their_own_safety() -> None:
    bad = dataclasses.replace(RUN, overlap_s=2.0, lost=4)
    assert only_row(RUN, bad).cells[-2] == "**2.0**; lost **4**"


def test_consuls_leader_says_nothing_about_who_uses_no_consul() -> None:
    row = only_row(dataclasses.replace(RUN, contender="repmgrd-fast"))
    assert row.cells[FAULTS.index(Fault.HOST_DEAD_CONSUL_LEADER)] == table.DOES_NOT_APPLY


def test_who_was_not_measured_has_no_row() -> None:
    assert table.rows(CONTENDERS.values(), FAULTS, {}) == []


def test_every_line_of_the_table_has_as_many_cells() -> None:
    text = table.markdown([only_row(RUN)], FAULTS)
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_only_what_is_between_the_marks_is_replaced() -> None:
    section = table.section([only_row(RUN)], FAULTS, Circumstances("2026-11-21", "2 cores", "Consul 1.19.2"), ["a note"])
    renewed = table.replace_section(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", section)
    assert renewed.startswith(f"before\n{table.BEGIN}\n")
    assert renewed.endswith(f"- a note\n{table.END}\nafter\n")
    assert "old" not in renewed
    assert "Measured 2026-11-21 on 2 cores." in renewed
    assert table.replace_section(renewed, section) == renewed


def test_a_readme_without_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="marks"):
        table.replace_section("nothing here", "new")
