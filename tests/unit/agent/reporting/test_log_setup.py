from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from agent.reporting.log_setup import MASK, MAX_FIELDS, MAX_TEXT, LineWriter, LogFormat, LogLevel, bound, configure_logging, hide_secrets


class Pipe:
    """A pipe whose reading end a test looks at."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()
        self.writer: LineWriter | None = None

    def lines(self) -> list[dict[str, object]]:
        assert self.writer is not None
        assert self.writer.flush(5)
        return [json.loads(line) for line in os.read(self.reads, 1 << 20).decode().splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    before = logging.root.handlers[:], logging.root.level
    yield made
    structlog.reset_defaults()
    logging.root.handlers[:], logging.root.level = before
    for descriptor in (made.reads, made.writes):
        os.close(descriptor)


@pytest.fixture
def json_log(pipe: Pipe) -> Pipe:
    pipe.writer = configure_logging(LogFormat.JSON, LogLevel.INFO, pipe.writes)
    return pipe


def test_a_line_is_one_event(json_log: Pipe) -> None:
    log = structlog.get_logger()
    log.debug("too.little")
    log.info("lease.renewed", group="pg-main", epoch=3)
    (line,) = json_log.lines()
    assert (line["event"], line["level"], line["group"], line["epoch"]) == ("lease.renewed", "info", "pg-main", 3)
    assert str(line["timestamp"]).endswith("Z")


def test_a_mistake_of_ours_brings_its_traceback(json_log: Pipe) -> None:
    try:
        raise ValueError("password=hunter2 is wrong")
    except ValueError:
        structlog.get_logger().exception("request.failed")
    (line,) = json_log.lines()
    assert "test_log_setup.py" in str(line["exception"])
    assert "ValueError" in str(line["exception"])
    assert "hunter2" not in json.dumps(line)


def test_libraries_speak_through_the_same_log(json_log: Pipe) -> None:
    logging.getLogger("asyncio").warning("slow: %s", "token=abcdef")
    logging.getLogger("asyncio").info("not worth a line")
    ours = next(h for h in logging.root.handlers if "log_setup" in type(h).__module__)  # pytest's own handler breaks on this one
    ours.handle(logging.LogRecord("asyncio", logging.ERROR, "", 0, "bad format %d", ("x",), None))
    first, second = json_log.lines()
    assert (first["event"], first["library"], first["level"]) == ("library.logged", "asyncio", "warning")
    assert first["sentence"] == f"slow: token={MASK}"
    assert "not formatted" in str(second["sentence"])


def test_for_people_there_is_text_without_colours_in_a_pipe(pipe: Pipe) -> None:
    writer = configure_logging(LogFormat.CONSOLE, LogLevel.INFO, pipe.writes)
    structlog.get_logger().info("lease.taken", group="pg-main", sentence="a\x1b[31mb\nc")
    assert writer.flush(5)
    text = os.read(pipe.reads, 1 << 16).decode()
    assert "lease.taken" in text
    assert "\x1b" not in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("host=127.0.0.1 password=hunter2 user=q", f"host=127.0.0.1 password={MASK} user=q"),
        ("password = 'hun ter2' user=q", f"password = {MASK} user=q"),
        ("postgres://quorate:hunter2@192.0.2.1/db", f"postgres://quorate:{MASK}@192.0.2.1/db"),
        ("Authorization: Bearer abcdef0123456789", f"Authorization: Bearer {MASK}"),
        ('{"token": "abc"}', '{"token": "abc"}'),
        ("the password is missing", "the password is missing"),
        ("http://192.0.2.1:8500/v1", "http://192.0.2.1:8500/v1"),
    ],
)
def test_secrets_in_texts_are_hidden(text: str, hidden: str) -> None:
    assert hide_secrets(text) == hidden


def test_secrets_under_their_names_are_hidden_at_any_depth() -> None:
    assert bound({"login": {"password": "x", "token": 5, "user": "q"}, "dsn": "a", "password_file": "/etc/x", "secret": None}) == {
        "login": {"password": MASK, "token": MASK, "user": "q"},
        "dsn": MASK,
        "password_file": "/etc/x",
        "secret": None,
    }


def test_everything_is_bounded() -> None:
    assert len(str(bound("x" * 100_000))) < MAX_TEXT + 50
    bounded = bound({f"k{n}": 1 for n in range(1000)})
    assert isinstance(bounded, dict)
    assert len(bounded) == MAX_FIELDS
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    assert len(json.dumps(bound(deep))) < MAX_TEXT
    assert bound(["\r\n", object]) == ["\\x0d\\x0a", "<class 'object'>"]


def test_nobody_reads_and_nobody_waits(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writes, limit=10)
    for _ in range(20):
        writer.write("x" * 50_000)  # a pipe holds 64 KiB: the thread hangs in the second line, the queue is full after ten more
    assert not writer.flush(0.05)
    os.set_blocking(pipe.reads, False)
    read = b""
    while not writer.flush(0.01):
        with contextlib.suppress(BlockingIOError):
            read += os.read(pipe.reads, 1 << 20)
    with contextlib.suppress(BlockingIOError):
        read += os.read(pipe.reads, 1 << 20)
    assert re.search(rb'^{"event": "log.dropped", "level": "warning", "lines": \d+}$', read, re.MULTILINE)


def test_a_reader_that_went_away_ends_nothing() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    writer = LineWriter(writes)
    writer.write("nobody hears this")
    assert writer.flush(5)
    os.close(writes)
    writer = LineWriter(writes)
    writer.write("nor this, into a closed descriptor")
    assert writer.flush(5)


def test_a_number_that_was_closed_and_given_away_gets_no_lines() -> None:
    """Were it not so, log lines would go down whatever connection has the number next."""
    reads, writes = os.pipe()
    writer = LineWriter(writes)
    os.close(writes)
    other_reads, other_writes = os.pipe()
    assert writes in (other_reads, other_writes)
    writer.write("for the log alone")
    assert writer.flush(5)
    assert os.read(reads, 100) == b"for the log alone\n"
    os.set_blocking(other_reads, False)
    with pytest.raises(BlockingIOError):
        os.read(other_reads, 100)
    for descriptor in (reads, other_reads, other_writes):
        os.close(descriptor)


def test_the_last_line_of_a_process_is_written() -> None:
    program = "import structlog; from agent.reporting.log_setup import *; configure_logging(); structlog.get_logger().info('agent.stopped')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=True)
    assert json.loads(done.stderr)["event"] == "agent.stopped"


@pytest.mark.timeout(20)
def test_a_full_log_does_not_hold_its_agent(pipe: Pipe) -> None:
    configure_logging(LogFormat.JSON, LogLevel.INFO, pipe.writes)
    for _ in range(3000):
        structlog.get_logger().info("check.changed", sentence="y" * 500)
