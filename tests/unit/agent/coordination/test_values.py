from __future__ import annotations

import pytest

from agent.coordination.lease import Position
from agent.coordination.values import CheckValue, MemberValue, ObservationsValue, VoteValue, WordValue, decode, encode
from agent.decision.view import Branch, ServiceState

MEMBER = MemberValue(
    beat=7,
    incarnation="life-1",
    state=ServiceState.STANDBY,
    position=Position(2, 0x3000148),
    history=(Branch(1, 0x3000000),),
    stopped_for_epoch=3,
    upstream="pg2",
    receiving=True,
    system_identifier="7400000000000000000",
    problem="nothing",
    paused_epoch=3,
    standing=("seal",),
    version="0.1.0",
)
VALUES = (
    MEMBER,
    MemberValue(1, "x", ServiceState.UNKNOWN),
    VoteValue(3, down=True, evidence="it is down"),
    WordValue("life-1", None, None),
    WordValue("life-1", Position(1, 5), "7", (Branch(1, 2),)),
    ObservationsValue((CheckValue("a", "healthy", "ok"),)),
)


@pytest.mark.parametrize("value", VALUES)
def test_what_is_stored_is_read_back_as_it_was(value: object) -> None:
    assert decode(type(value), encode(value)) == value


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"epoch":"3","down":true}',
        b'{"epoch":3,"down":1}',
        b'{"epoch":3,"down":true,"more":1}',
        b'{"epoch":true,"down":true}',
        b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_as_if_it_were_not_there(stored: bytes) -> None:
    assert decode(VoteValue, stored) is None


def test_a_value_of_another_kind_is_not_read() -> None:
    assert decode(MemberValue, encode(VALUES[2])) is None


def test_what_was_read_before_is_not_read_again() -> None:
    """A group's folder is read anew whenever one of its keys changes."""
    stored = encode(MEMBER)
    assert decode(MemberValue, stored) is decode(MemberValue, bytes(bytearray(stored)))
    assert decode(VoteValue, stored) is None, "the same bytes may be asked for as something else"
