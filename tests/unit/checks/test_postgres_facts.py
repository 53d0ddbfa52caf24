from __future__ import annotations

import pytest

from checks.network import ProbeFailed, Reason
from checks.postgres_facts import _FACTS_TYPE, _parse, without_password


def test_a_conninfo_loses_its_password_and_nothing_else() -> None:
    kept = without_password("host=192.0.2.1 password=hunter2 user=replicator")
    assert sorted(kept.split()) == ["host=192.0.2.1", "user=replicator"]


def test_what_cannot_be_read_is_not_passed_on() -> None:
    assert without_password("password='hunter2") == ""


@pytest.mark.parametrize("answer", ["", "{}", '{"in_recovery": "perhaps"}', "null"])
def test_facts_that_make_no_sense_are_garbage(answer: str) -> None:
    with pytest.raises(ProbeFailed) as caught:
        _parse(_FACTS_TYPE, answer, "x")
    assert caught.value.failure.reason is Reason.GARBAGE
