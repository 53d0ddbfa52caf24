"""What every kind of check keeps, whatever it asks. A new kind joins by one row in OPTIONS; a kind without a row fails."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from checks.base import AnyCheck, Level, Result, RunLog, Status
from checks.loading import known_kinds, load_kind
from tests.polling import eventually_async
from tests.servers.misbehaving import GARBAGE, answering, blackhole, hung, refused

OPTIONS: Mapping[str, Callable[[str, int], dict[str, object]]] = {
    "consul": lambda host, port: {"url": f"http://{host}:{port}", "token": "hunter2"},
    "http": lambda host, port: {"url": f"http://{host}:{port}/health", "expect_text": "well"},
    "postgres": lambda host, port: {"dsn": f"host={host} port={port} user=quorate dbname=postgres", "password": "hunter2"},
    "redis": lambda host, port: {"host": host, "port": port, "user": "quorate", "password": "hunter2"},
    "tcp": lambda host, port: {"address": f"{host}:{port}"},
    "traefik": lambda host, port: {"url": f"http://{host}:{port}", "user": "quorate", "password": "hunter2"},
}
ONLY_CONNECTS = {"tcp"}
"""Kinds that say nothing and expect nothing to be said: for them a hung target is one that takes no connection."""
CASES = [(kind, level) for kind in OPTIONS for level in sorted(load_kind(kind).levels)]


def make(kind: str, level: Level, port: int, host: str = "127.0.0.1") -> AnyCheck:
    check_type = load_kind(kind)
    return check_type(level, check_type.options_model.model_validate(OPTIONS[kind](host, port)))


@asynccontextmanager
async def hung_target(kind: str) -> AsyncIterator[int]:
    if kind in ONLY_CONNECTS:
        with blackhole() as port:
            yield port
    else:
        async with hung() as port:
            yield port


async def probe(check: AnyCheck, timeout_s: float = 2.0) -> Result:
    try:
        return await check.probe(timeout_s, RunLog())
    finally:
        await check.close()


def assert_well_formed(result: Result) -> None:
    assert result.sentence
    assert result.sentence.isprintable()
    assert len(result.sentence) < 500
    assert result.log
    assert result.latency_s >= 0
    assert "hunter2" not in repr(result)


def descriptors() -> set[str]:
    """This process's open sockets, by inode."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            name = str(entry.readlink())
        except FileNotFoundError:
            continue
        if name.startswith("socket:"):
            found.add(name)
    return found


def test_every_kind_is_in_this_suite() -> None:
    own = {path.stem for path in (Path(__file__).parents[2] / "checks").glob("*.py")}
    assert {kind for kind in known_kinds() if kind in own} == set(OPTIONS)


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_kind_says_its_name_its_levels_and_its_options(kind: str) -> None:
    check_type = load_kind(kind)
    assert check_type.kind == kind
    assert check_type.levels
    assert check_type.options_model.__doc__


@pytest.mark.parametrize("kind", OPTIONS)
def test_an_unknown_option_is_refused(kind: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        load_kind(kind).options_model.model_validate({**OPTIONS[kind]("127.0.0.1", 1), "unknown_key": 1})


@pytest.mark.parametrize("kind", OPTIONS)
def test_options_do_not_change_and_show_no_secret(kind: str) -> None:
    options = make(kind, Level.LIVENESS, 1).options
    with pytest.raises(ValidationError):
        setattr(options, next(iter(type(options).model_fields)), "other")
    assert "hunter2" not in repr(options) + options.model_dump_json()


@pytest.mark.parametrize(("kind", "level"), CASES)
async def test_a_hung_target_is_unhealthy_at_the_deadline(kind: str, level: Level) -> None:
    async with hung_target(kind) as port:
        began = time.monotonic()
        result = await probe(make(kind, level, port), 0.3)
        took_s = time.monotonic() - began
    assert_well_formed(result)
    assert result.status is Status.UNHEALTHY
    assert "no answer within 0.3 s" in result.sentence
    assert 0.29 <= took_s < 2.0
    assert result.latency_s == pytest.approx(took_s, abs=0.5)


@pytest.mark.parametrize(("kind", "level"), CASES)
async def test_a_target_that_refuses_is_unhealthy(kind: str, level: Level) -> None:
    with refused() as port:
        result = await probe(make(kind, level, port))
    assert_well_formed(result)
    assert result.status is Status.UNHEALTHY
    assert "refuses connections" in result.sentence


@pytest.mark.parametrize(("kind", "level"), CASES)
async def test_a_name_that_cannot_be_resolved_is_our_fault(kind: str, level: Level) -> None:
    result = await probe(make(kind, level, 1, "no-such-host.invalid"), 5.0)
    assert_well_formed(result)
    assert result.status is Status.UNKNOWN
    assert "resolved" in result.sentence


@pytest.mark.parametrize(("kind", "level"), [case for case in CASES if case[0] not in ONLY_CONNECTS])
@pytest.mark.parametrize(
    ("said", "words"), [(GARBAGE, "does not answer as"), (b"", "closed the connection")], ids=["garbage", "closed in the middle"]
)
async def test_nonsense_and_silence_are_the_targets_fault(kind: str, level: Level, said: bytes, words: str) -> None:
    async with answering(said) as port:
        result = await probe(make(kind, level, port))
    assert_well_formed(result)
    assert result.status is Status.UNHEALTHY
    assert words in result.sentence


@pytest.mark.parametrize("every_byte", range(0, 256, 5))
@pytest.mark.parametrize("kind", sorted(set(OPTIONS) - ONLY_CONNECTS))
async def test_whatever_the_first_byte_there_is_a_result_in_time(kind: str, every_byte: int) -> None:
    async with answering(bytes([every_byte]) * 64) as port:
        result = await probe(make(kind, Level.LIVENESS, port), 1.0)
    assert_well_formed(result)
    assert result.status in {Status.UNHEALTHY, Status.UNKNOWN}


@pytest.mark.parametrize(("kind", "level"), CASES)
async def test_a_cancelled_probe_ends_at_once_and_leaves_nothing_behind(kind: str, level: Level) -> None:
    async with hung_target(kind) as port:
        before, tasks = descriptors(), asyncio.all_tasks()
        check, log = make(kind, level, port), RunLog()
        running = asyncio.create_task(check.probe(30.0, log))
        await eventually_async(lambda: any("connecting" in line for line in log.lines))
        running.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert time.monotonic() - began < 2.0
        await check.close()
        del running
        await eventually_async(lambda: len(descriptors() - before) <= served(kind), what="sockets closed")
        await eventually_async(lambda: len(asyncio.all_tasks() - tasks) <= served(kind), what="tasks ended")


def served(kind: str) -> int:
    """How many sockets (and tasks) the hung server itself holds for one client."""
    return 0 if kind in ONLY_CONNECTS else 1


@pytest.mark.parametrize(("kind", "level"), CASES)
async def test_a_check_may_be_used_again_after_a_failure_and_closed_twice(kind: str, level: Level) -> None:
    check = make(kind, level, 1)
    await check.close()
    first, second = await check.probe(1.0, RunLog()), await check.probe(1.0, RunLog())
    assert (first.status, first.sentence) == (second.status, second.sentence)
    await check.close()
    await check.close()


def test_the_package_and_its_base_import_no_client_library() -> None:
    script = (
        "import sys; import checks, checks.base, checks.loading, checks.network, checks.units, checks.secret_file, checks.tls_trust;"
        "print(sorted({'psycopg', 'aiohttp', 'redis', 'docker', 'agent', 'actions'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60).stdout
    assert said.strip() == "[]"
