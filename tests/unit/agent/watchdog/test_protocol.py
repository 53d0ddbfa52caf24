"""Messages: what goes over comes back the same, and nothing else is believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent
from agent.watchdog import protocol
from agent.watchdog.protocol import (
    Acknowledged,
    Adopt,
    Answer,
    Done,
    Fenced,
    FenceNow,
    Greeting,
    GroupReport,
    HandOver,
    Hello,
    Malformed,
    Refused,
    Register,
    Release,
    Report,
    Request,
    Status,
    Suspend,
    decode_answer,
    decode_request,
    encode,
)

GROUP = GroupReport("g", "/data", 5, 0.5, "armed", 3, 10, 11, "n", 3, 2, 4.25)
REQUESTS: list[Request] = [
    Hello(),
    Register("g", "/data/\udcff", 0, 0.5),
    HandOver("g", 3, 1 << 62, 2, "n"),
    Adopt("g"),
    FenceNow("g"),
    Suspend("g", 3),
    Release("g"),
    Status(),
]
ANSWERS: list[Answer] = [
    Greeting(1, 2, 3, "b", 4, "yes", "yes", "no"),
    Done(),
    Acknowledged(1, 2, 3, "n"),
    Fenced(0, 7),
    GROUP,
    Report((GROUP, GROUP)),
    Report(()),
    Refused("passed", "it passed"),
]


@pytest.mark.parametrize("message", REQUESTS)
def test_a_request_comes_over_whole(message: Request) -> None:
    assert decode_request(encode(message)) == message


@pytest.mark.parametrize("message", ANSWERS)
def test_an_answer_comes_over_whole(message: Answer) -> None:
    assert decode_answer(encode(message)) == message


def test_the_version_is_the_agents() -> None:
    assert protocol.VERSION == agent.PROTOCOL_VERSION


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"is": []}',
        b'{"is": "explode"}',
        b'{"is": "done"}',
        b'{"is": "adopt"}',
        b'{"is": "adopt", "group": "g", "more": 1}',
        b'{"is": "adopt", "group": ""}',
        b'{"is": "adopt", "group": 1}',
        b'{"is": "suspend", "group": "g", "epoch": true}',
        b'{"is": "suspend", "group": "g", "epoch": -1}',
        b'{"is": "suspend", "group": "g", "epoch": 1.0}',
        b'{"is": "suspend", "group": "g", "epoch": 9223372036854775808}',
        b'{"is": "suspend", "group": "g", "epoch": ' + b"9" * 5000 + b"}",
        b"[" * 8000,
        json.dumps({"is": "adopt", "group": "g" * 9000}).encode(),
    ],
)
def test_nonsense_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(Malformed, match=r"^(the|adopt|suspend|data_dir|fence_budget_s) .*\w$"):
        decode_request(data)


@pytest.mark.parametrize(
    "path", ["", "data", "/", "//", "/.", "/./", "/../..", "/data/..", "/data/./../.", "/a\0b", "/" + "a" * 4095, "/\ud800"]
)
def test_a_folder_that_nobody_may_own_is_not_guarded(path: str) -> None:
    with pytest.raises(Malformed, match="data_dir"):
        decode_request(encode(Register("g", path, 0, 0.5)))


@pytest.mark.parametrize("budget", ["0", "-1", "61", "NaN", "Infinity", "1e400", "true", '"1"'])
def test_a_fence_budget_outside_its_bounds_is_refused(budget: str) -> None:
    with pytest.raises(Malformed, match="fence_budget_s"):
        decode_request(f'{{"is": "register", "group": "g", "data_dir": "/d", "uid": 0, "fence_budget_s": {budget}}}'.encode())


@given(st.binary(max_size=300))
def test_random_bytes_never_do_more_than_be_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_request(data)
    with pytest.raises(Malformed):
        decode_answer(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(kind=st.sampled_from([json.loads(encode(message)) for message in (*REQUESTS, *ANSWERS)]), key=st.integers(0, 20), value=JSON)
def test_a_message_with_a_wrong_field_is_refused_or_whole(kind: dict[str, object], key: int, value: object) -> None:
    fields = sorted(kind)
    broken = json.dumps({**kind, fields[key % len(fields)]: value}).encode()
    for decode in (decode_request, decode_answer):
        try:
            message = decode(broken)
        except Malformed:
            continue
        assert decode(encode(message)) == message


def test_addresses_may_be_left_out_and_must_be_addresses() -> None:
    """An agent without any speaks as it did before there were any, and an older one is understood."""
    plain = Register("g", "/data", 5, 0.5)
    assert "addresses" not in json.loads(encode(plain))
    assert decode_request(encode(plain)) == plain
    whole = plain._replace(addresses=("192.0.2.100/24", "2001:db8::64/64"))
    assert decode_request(encode(whole)) == whole
    for wrong in (("eth0",), ("192.0.2.100",), ("192.0.2.100/24",) * (protocol.MOST_ADDRESSES + 1)):
        with pytest.raises(Malformed, match="addresses are not at most"):
            decode_request(encode(plain._replace(addresses=wrong)))
    with pytest.raises(Malformed, match="the field addresses"):
        decode_request(json.dumps({**json.loads(encode(plain)), "addresses": [5]}).encode())
