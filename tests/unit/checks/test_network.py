from __future__ import annotations

import asyncio
import errno
import socket
import threading

import pytest

from checks.base import Result, RunLog, Status
from checks.network import ProbeFailed, Progress, Reason, Resolver, clean, explain_os_error, split_address, within


@pytest.mark.parametrize(
    ("address", "expected"),
    [("192.0.2.1:443", ("192.0.2.1", 443)), ("db.example.test:5432", ("db.example.test", 5432)), ("[2001:db8::1]:80", ("2001:db8::1", 80))],
)
def test_an_address_is_host_and_port(address: str, expected: tuple[str, int]) -> None:
    assert split_address(address) == expected


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:0", "host:65536", "host:http", "2001:db8::1:80", "host:٣", " h:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_address(address)


@pytest.mark.parametrize(
    ("number", "reason", "status"),
    [
        (errno.ECONNREFUSED, Reason.REFUSED, Status.UNHEALTHY),
        (errno.EHOSTUNREACH, Reason.UNREACHABLE, Status.UNHEALTHY),
        (errno.ETIMEDOUT, Reason.TIMEOUT, Status.UNHEALTHY),
        (errno.ECONNRESET, Reason.CLOSED, Status.UNHEALTHY),
        (errno.ENETUNREACH, Reason.LOCAL, Status.UNKNOWN),
        (errno.EMFILE, Reason.LOCAL, Status.UNKNOWN),
        (errno.ENOSPC, Reason.LOCAL, Status.UNKNOWN),
    ],
)
def test_an_error_of_the_socket_layer_is_the_targets_fault_or_ours(number: int, reason: Reason, status: Status) -> None:
    failure = explain_os_error(OSError(number, "words"), "192.0.2.1:80")
    assert (failure.reason, failure.status) == (reason, status)
    assert failure.sentence


def test_a_failed_lookup_is_ours() -> None:
    assert explain_os_error(socket.gaierror(socket.EAI_NONAME, "unknown"), "x").reason is Reason.UNRESOLVED


def test_text_from_outside_becomes_one_bounded_printable_line() -> None:
    assert clean("a\x00b\n\tc\x1b[31m") == "a b c [31m"
    assert len(clean("x" * 10_000)) == 200


async def test_the_steps_of_a_run_end_in_its_log() -> None:
    async def answer() -> Result:
        progress.enter("asking")
        return Result(Status.HEALTHY, "well")

    progress = Progress(RunLog())
    result = await within("x", 1.0, progress, answer())
    assert [line.split(": ", 1)[1] for line in result.log] == ["asking", "healthy: well"]
    assert result.latency_s > 0


async def test_a_deadline_in_a_lookup_is_ours_and_elsewhere_the_targets() -> None:
    async def hang(ours: Reason | None) -> Result:
        progress.enter("waiting", ours=ours)
        await asyncio.Event().wait()
        raise AssertionError

    progress = Progress(RunLog())
    assert (await within("x", 0.01, progress, hang(None))).status is Status.UNHEALTHY
    assert (await within("x", 0.01, progress, hang(Reason.UNRESOLVED))).status is Status.UNKNOWN


async def test_a_bug_in_a_check_is_a_result_too() -> None:
    async def stumble() -> Result:
        raise KeyError("secret")

    result = await within("x", 1.0, Progress(RunLog()), stumble())
    assert result.status is Status.UNKNOWN
    assert "KeyError" in result.sentence
    assert "secret" not in result.sentence


async def test_a_hung_name_service_is_asked_once_a_name_and_never_blocks_the_loop() -> None:
    gate, asked = threading.Event(), []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        gate.wait(10)
        return ["192.0.2.1"]

    resolver = Resolver(lookup)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await resolver.resolve("db.example.test")
    waiting = asyncio.create_task(resolver.resolve("db.example.test"))
    await asyncio.sleep(0)  # it begins to wait
    gate.set()
    assert await waiting == ["192.0.2.1"]
    assert asked == ["db.example.test"]


async def test_a_name_that_is_not_known_has_a_sentence_and_is_asked_anew() -> None:
    asked: list[str] = []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    resolver = Resolver(lookup)
    for _ in range(2):
        with pytest.raises(ProbeFailed, match=r"db\.example\.test cannot be resolved: Name or service not known"):
            await resolver.resolve("db.example.test")
    assert len(asked) == 2


@pytest.mark.parametrize("host", ["a..b", "x" * 300, "ü" * 80 + ".test"])
async def test_what_can_be_no_host_name_is_ours(host: str) -> None:
    with pytest.raises(ProbeFailed) as caught:
        await Resolver().resolve(host)
    assert caught.value.failure.reason is Reason.UNRESOLVED


async def test_an_address_needs_no_lookup() -> None:
    def lookup(_: str) -> list[str]:
        raise AssertionError

    assert await Resolver(lookup).resolve("2001:db8::1") == ["2001:db8::1"]


def test_a_lookup_that_outlives_its_loop_harms_nobody() -> None:
    gate, resolver = threading.Event(), Resolver(lambda _: ["192.0.2.1"] if gate.wait(10) else [])

    async def give_up() -> None:
        async with asyncio.timeout(0.01):
            await resolver.resolve("db.example.test")

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    gate.set()
    assert asyncio.run(resolver.resolve("db.example.test")) == ["192.0.2.1"]
