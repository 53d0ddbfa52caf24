from __future__ import annotations

import pytest
from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from checks.network import Reason
from checks.redis_client import Refused, Target, explain, parse_url


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("redis://h", Target("Redis at h:6379", "h")),
        ("redis://h:7/3", Target("Redis at h:7", "h", 7, db=3)),
        ("rediss://h/", Target("Redis at h:6379", "h", tls=True)),
        ("redis://[2001:db8::1]:7", Target("Redis at [2001:db8::1]:7", "2001:db8::1", 7)),
        ("unix:///run/redis.sock", Target("Redis at /run/redis.sock", "", socket="/run/redis.sock")),
    ],
)
def test_addresses(url: str, target: Target) -> None:
    assert parse_url(url) == target


@pytest.mark.parametrize(
    "url",
    ["", "h:1", "http://h", "redis://", "redis:///0", "redis://h/x", "redis://h:99999", "redis://h?a=b", "unix://h/x", "redis://[::1"],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected an address such as redis://"):
        parse_url(url)


@pytest.mark.parametrize("url", ["redis://me:secret@h", "redis://:secret@h"])
def test_a_login_in_an_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="without a login") as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (BusyLoadingError("Redis is loading the dataset in memory", status_code="LOADING"), Reason.STARTING, "is loading its data"),
        (AuthenticationError("Authentication required.", status_code="NOAUTH"), Reason.LOGIN, "demands a password"),
        (AuthenticationError("invalid username-password pair", status_code="WRONGPASS"), Reason.LOGIN, "wrong user or password"),
        (ResponseError("READONLY You can't write against a read only replica."), Reason.READ_ONLY, "takes no writes"),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), Reason.FAILED, "cannot save its data"),
        (ResponseError("MOVED 3999 127.0.0.1:6381"), Reason.LOCAL, "another member of its cluster"),
        (ResponseError("DENIED Redis is running in protected mode"), Reason.LOGIN, "protected mode"),
        (RedisConnectionError("max number of clients reached"), Reason.FULL, "has no connection left"),
        (ResponseError("ERR DB index is out of range"), Reason.NO_DATABASE, "has no database of this number"),
        (ResponseError("ERR what\nnow"), Reason.FAILED, "answered with an error: ERR what now"),
    ],
)
def test_the_servers_own_words_have_their_meaning(error: RedisError, reason: Reason, words: str) -> None:
    failed = explain(error, "x")
    assert isinstance(failed, Refused)
    assert failed.failure.reason is reason
    assert failed.failure.sentence.startswith("x ")
    assert words in failed.failure.sentence


@pytest.mark.parametrize("error", [InvalidResponse("Protocol Error: b'x'"), ValueError("x"), RecursionError()])
def test_what_is_no_redis_is_garbage(error: Exception) -> None:
    assert explain(error, "x").failure.sentence == "x does not answer as Redis"


def test_a_broken_connection_says_why_if_it_is_known() -> None:
    assert explain(RedisConnectionError("Connection closed by server."), "x", " (why?)").failure.sentence == (
        "x closed the connection in the middle (why?)"
    )
    error = RedisConnectionError("x")
    error.__cause__ = ConnectionRefusedError(111, "refused")
    assert explain(error, "x").failure.reason is Reason.REFUSED
