"""The figures of a run, from what was written down."""

from __future__ import annotations

from tests.lab import measures
from tests.lab.measures import Acknowledged, Holder, read_ledger, read_samples

S = 1_000_000_000


def rows(*at_s: float) -> list[Acknowledged]:
    return [Acknowledged(number, int(at * S) - 1, int(at * S)) for number, at in enumerate(at_s)]


def took(member: str, *at_s: float) -> str:
    return "".join(f"took {member} {int(at * S)} {int(at * S) + 1000}\n" for at in at_s)


def test_the_outage_is_the_longest_gap_after_the_first_fault() -> None:
    assert measures.outage_s(rows(0, 5, 6, 6.5, 9, 9.5), 6 * S, 10 * S) == 2.5


def test_a_gap_that_the_fault_falls_into_counts_from_the_row_before() -> None:
    assert measures.outage_s(rows(0, 5.75, 7), 6 * S, 7 * S) == 1.25


def test_a_gap_before_the_fault_does_not_count() -> None:
    assert measures.outage_s(rows(0, 5, 5.5, 6), 5 * S, 6 * S) == 0.5


def test_an_outage_that_lasts_to_the_end_counts() -> None:
    assert measures.outage_s(rows(0, 1), 2 * S, 9 * S) == 8
    assert measures.outage_s([], 2 * S, 9 * S) == 7


def test_a_row_that_is_not_there_is_lost() -> None:
    assert measures.lost(rows(1, 2, 3), frozenset({0, 2, 99})) == [1]


def test_a_line_cut_short_by_a_kill_is_no_line() -> None:
    assert [row.identity for row in read_ledger("1 10 11\n2 12 1")] == [1]
    assert read_samples("took a 1 2\ntook a 3").spans["a"][0].last_sent_ns == 1


def test_one_after_the_other_is_no_overlap() -> None:
    text = took("a", 0, 1, 2) + f"ended a {2 * S + 5}\n" + took("b", 2.1, 3)
    assert measures.overlap_s(read_samples(text)) == 0


def test_two_at_a_time_overlap() -> None:
    text = took("a", 0, 1, 2, 3) + took("b", 2.0, 2.5, 4)
    assert abs(measures.overlap_s(read_samples(text)) - 1) < 0.001


def test_a_single_write_of_a_second_writer_is_an_overlap() -> None:
    text = took("a", 0, 1, 2, 3) + took("b", 1.5) + f"ended b {2 * S}\n"
    assert measures.overlap_s(read_samples(text)) > 0


def test_a_writer_that_stopped_in_between_does_not_overlap() -> None:
    text = took("a", 0, 1) + f"ended a {S + 1}\n" + took("b", 1.5, 2) + f"ended b {2 * S + 1}\n" + took("a", 3, 4)
    assert measures.overlap_s(read_samples(text)) == 0


def test_each_pair_of_three_writers_counts() -> None:
    text = took("a", 0, 2) + took("b", 0, 2) + took("c", 0, 2)
    assert abs(measures.overlap_s(read_samples(text)) - 6) < 0.001


def test_what_only_the_local_socket_sees_is_told_apart() -> None:
    network = read_samples(took("a", 0, 1))
    local = read_samples(took("a", 0, 0.5, 1, 1.5, 3))
    assert abs(measures.writable_locally_s(network, local, 0, 9 * S) - 1.85) < 0.001
    assert abs(measures.writable_locally_s(network, local, 2 * S, 9 * S) - 1) < 0.001
    assert measures.writable_locally_s(local, network, 0, 9 * S) == 0
    assert measures.writable_locally_s(network, local, 2 * S, 2 * S) == 0


def test_how_long_a_member_went_on_after_a_fault() -> None:
    samples = read_samples(took("a", 0, 3) + f"ended a {4 * S}\n" + took("b", 5, 6))
    assert abs((measures.fenced_after_s(samples, "a", 1 * S, 9 * S) or 0) - 2) < 0.001
    assert measures.fenced_after_s(samples, "b", 1 * S, 9 * S) == 0
    assert measures.fenced_after_s(samples, "c", 1 * S, 9 * S) == 0
    assert measures.fenced_after_s(samples, "b", 5 * S + 10, 6 * S) is None


def test_who_takes_the_own_lease_anew_is_no_other_leader() -> None:
    history = [Holder(1, 1, "a", "held"), Holder(2, 1, "a", "vacated"), Holder(3, 2, "a", "held"), Holder(4, 3, "b", "held")]
    assert measures.leader_changes(history) == 1
    assert measures.leader_changes([*history, Holder(5, 4, "a", "held")]) == 2
    assert measures.leader_changes([]) == 0


def test_the_longest_time_without() -> None:
    changes = [(0, True), (3 * S, False), (4 * S, True), (6 * S, False), (9 * S, True)]
    assert measures.longest_without_s(changes, 1 * S, 10 * S) == 3
    assert measures.longest_without_s(changes, 7 * S, 10 * S) == 2
    assert measures.longest_without_s(changes[:2], 1 * S, 10 * S) == 7
    assert measures.longest_without_s([(0, True)], 1 * S, 10 * S) == 0
