import pytest

from agent.coordination.coordinator import Operation, Transaction, Verb
from agent.coordination.shape import MAX_VALUES_BYTES, check_shape, writes
from agent.errors import CoordinationRefused

SET = Operation(Verb.SET, "pg/key", value=b"1")
LET_GO = Operation(Verb.UNLOCK, "pg/key", session="s")


@pytest.mark.parametrize(
    "transaction",
    [
        (SET,) * 64,
        (Operation(Verb.SET, "k" * 512, value=b""),),
        (Operation(Verb.SET, "pg/key", value=bytes(MAX_VALUES_BYTES)),),
        (Operation(Verb.UNLOCK, "pg/key", session="s", value=b""),),
        (LET_GO, Operation(Verb.LOCK, "pg/key", session="t", value=b"2")),
        (LET_GO, Operation(Verb.CHECK_NOT_EXISTS, "pg/else"), SET),
        (Operation(Verb.CAS, "pg/key", index=0, value=b""), Operation(Verb.DELETE_CAS, "pg/else", index=0)),
    ],
)
def test_taken(transaction: Transaction) -> None:
    check_shape(transaction)


@pytest.mark.parametrize(
    ("transaction", "why"),
    [
        ((), "1 to 64 operations, not 0"),
        ((SET,) * 65, "1 to 64 operations, not 65"),
        ((Operation(Verb.SET, "", value=b"1"),), r"operation 0 \(set\): a key has 1 to 512 printable characters"),
        ((Operation(Verb.SET, "k" * 513, value=b"1"),), "a key has"),
        ((Operation(Verb.SET, "a\nb", value=b"1"),), "a key has"),
        ((SET, Operation(Verb.CAS, "pg/key", value=b"1")), r"operation 1 \(cas\) needs its index"),
        ((Operation(Verb.LOCK, "pg/key", value=b"1"),), "needs its session"),
        ((Operation(Verb.SET, "pg/key"),), "needs its value"),
        ((LET_GO,), "nothing after it locks the key anew"),
        ((SET, LET_GO), "nothing after it locks the key anew"),
        ((LET_GO, Operation(Verb.SET, "pg/else", value=b"1")), "nothing after it locks the key anew"),
        ((LET_GO, Operation(Verb.CHECK_INDEX, "pg/key", index=1)), "nothing after it locks the key anew"),
        ((SET, Operation(Verb.SET, "pg/b", value=bytes(MAX_VALUES_BYTES))), "larger than 262144 bytes"),
    ],
)
def test_refused_with_a_sentence(transaction: Transaction, why: str) -> None:
    with pytest.raises(CoordinationRefused, match=why):
        check_shape(transaction)


def test_checks_alone_write_nothing() -> None:
    checks = (
        Operation(Verb.CHECK_INDEX, "k", index=1),
        Operation(Verb.CHECK_NOT_EXISTS, "l"),
        Operation(Verb.CHECK_SESSION, "k", session="s"),
    )
    assert not writes(checks)
    assert writes((*checks, Operation(Verb.DELETE_CAS, "k", index=1)))
    assert writes((SET,))
