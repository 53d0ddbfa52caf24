"""Questions as values: path, parameters and body, and what becomes of an answer."""

from __future__ import annotations

import base64
import json

import pytest

from agent.coordination.consul_requests import (
    NO_ANSWER_OF_CONSUL,
    Answer,
    KnownSession,
    Repeat,
    create_session,
    destroy_session,
    get_key,
    list_folder,
    list_sessions,
    raft_multiplier,
    renew_session,
    session_exists,
    transaction,
)
from agent.coordination.coordinator import Committed, Entry, Operation, Refused, Verb
from agent.errors import CoordinationRefused

INDEX = {"X-Consul-Index": "12"}


def answer(body: object, status: int = 200) -> Answer:
    return Answer(status, INDEX, body if isinstance(body, str) else json.dumps(body))


def test_a_folder() -> None:
    request = list_folder("quorate/dc", "pg/")
    assert (request.method, request.path, request.repeat) == ("GET", "/v1/kv/quorate/dc/pg/?recurse=1&consistent=1", Repeat.SAFE)
    items = [
        {"Key": "quorate/dc/pg/lease", "Value": base64.b64encode(b"\x00record").decode(), "ModifyIndex": 9, "Session": "s1"},
        {"Key": "quorate/dc/pg/empty", "Value": None, "ModifyIndex": 3},
    ]
    snapshot = request.read(answer(items))
    assert snapshot.index == 12
    assert snapshot.entries == {"pg/lease": Entry(b"\x00record", 9, "s1"), "pg/empty": Entry(b"", 3)}
    assert list_folder("quorate", "pg/").read(answer("", 404)).entries == {}


def test_waiting_for_a_folder() -> None:
    assert list_folder("q", "pg/", 12, 0.9).path == "/v1/kv/q/pg/?index=12&wait=900ms&recurse=1&consistent=1"
    assert "wait=1ms" in list_folder("q", "pg/", 12, 0.0).path, "without a time Consul would wait for 5 minutes"


def test_a_key_with_odd_characters_is_asked_for_as_it_is() -> None:
    assert get_key("q", "a b?c#d%/é").path == "/v1/kv/q/a%20b%3Fc%23d%25/%C3%A9?consistent=1"
    assert get_key("q", "k").read(answer([{"Key": "q/k", "Value": "MQ==", "ModifyIndex": 1}])) == b"1"
    assert get_key("q", "k").read(answer("", 404)) is None


def test_a_transaction() -> None:
    request = transaction(
        "q", (Operation(Verb.CHECK_INDEX, "pg/lease", index=7), Operation(Verb.LOCK, "pg/lease", session="s", value=b"\xff")), 2**64 - 1
    )
    assert (request.method, request.path, request.repeat) == ("PUT", "/v1/txn", Repeat.NEVER)
    assert json.loads(request.body) == [
        {"KV": {"Verb": "check-index", "Key": "q/pg/lease", "Index": 7}},
        {"KV": {"Verb": "lock", "Key": "q/pg/lease", "Session": "s", "Value": "/w==", "Flags": 2**64 - 1}},
    ]
    done = {"Results": [{"KV": {"ModifyIndex": 7}}, {"KV": {"ModifyIndex": 21}}], "Errors": None}
    assert request.read(answer(done)) == Committed(21)
    assert request.read(answer({"Results": None, "Errors": None})) == Committed(0)
    failed = {"Results": None, "Errors": [{"OpIndex": 1, "What": "invalid session"}, {"OpIndex": 2, "What": "else"}]}
    assert request.read(answer(failed, 409)) == Refused(1, "invalid session")
    with pytest.raises(CoordinationRefused, match="Permission denied: lacks key:write"):
        request.read(answer({"Errors": [{"OpIndex": 0, "What": "Permission denied: lacks key:write"}]}, 409))


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"Results": [{}]}', '{"Errors": []}', "null", "1"])
@pytest.mark.parametrize("status", [200, 409])
def test_an_answer_that_is_none(body: str, status: int) -> None:
    request = transaction("q", (Operation(Verb.SET, "k", value=b""),), 1)
    with pytest.raises(NO_ANSWER_OF_CONSUL):
        request.read(Answer(status, {}, body))


def test_sessions() -> None:
    create = create_session("quorate x")
    assert (create.method, create.path, create.repeat) == ("PUT", "/v1/session/create", Repeat.NEVER)
    assert json.loads(create.body) == {"name": "quorate x", "checks": [], "lockdelay": "0s", "ttl": "10s"}
    assert create.read(answer({"ID": "s1"})) == "s1"
    assert destroy_session("s1").repeat is renew_session("s1").repeat is Repeat.SAFE
    assert destroy_session("s1").read(answer("true")) is True
    assert renew_session("s1").read(answer([{"ID": "s1"}])) is True
    assert renew_session("s1").read(answer("Session id 's1' not found", 404)) is False
    assert session_exists("s1").read(answer([{"ID": "s1"}])) is True
    assert session_exists("s1").read(answer("[]")) is False
    assert "consistent=1" in session_exists("s1").path
    assert "consistent=1" in list_sessions().path
    assert list_sessions().read(answer([{"ID": "s1", "Name": "n"}, {"ID": "s2"}])) == (KnownSession("s1", "n"), KnownSession("s2", ""))
    assert list_sessions().read(answer("null")) == ()


@pytest.mark.parametrize(
    ("said", "server", "multiplier"),
    [("1s", True, 1), ("5s", True, 5), ("10s", True, 10), ("1s", False, None), ("500ms", True, None), ("", True, None)],
)
def test_how_slow_elections_are(said: str, server: bool, multiplier: int | None) -> None:
    body = {"Config": {"Server": server}, "DebugConfig": {"ConsulRaftElectionTimeout": said}}
    assert raft_multiplier().read(answer(body)) == multiplier
    assert raft_multiplier().read(answer({})) is None
