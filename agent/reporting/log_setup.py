"""Log lines on standard error: JSON, or coloured text where a person looks. Every line is one event, named `noun.verb_past`.

Three things must never happen: a secret in a line, a line without bounds, and an agent that stands still because nobody reads its log. So
values are masked and cut, and a thread of its own does the writing: when the reader is slow lines are dropped and counted, when it is gone
the agent goes on without a log.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import Any

import structlog

from agent.configuration.secrets import is_secret_key

MAX_TEXT = 2000
MAX_FIELDS = 40
MAX_ITEMS = 50
MAX_DEPTH = 4
QUEUE_LINES = 2000
FLUSH_S = 1.0
"""How long the end of the process waits for the last lines to be written."""
MASK = "********"

_SECRET_TEXT = re.compile(
    r"""(?ix) ( \b (?: password | passwd | pwd | token | secret ) \s* [=:] \s* ) ( '(?:[^'\\]|\\.)*' | "[^"]*" | [^\s&,;]+ )
      | ( \b (?: bearer | basic ) \s+ ) ( [A-Za-z0-9._~+/=-]{8,} )
      | ( :// [^/\s:@]* : ) ( [^/\s@]+ ) (?= @ )"""
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

EventDict = MutableMapping[str, Any]


class LogFormat(StrEnum):
    """How lines look. AUTO: CONSOLE when standard error is a terminal, else JSON."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least important lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


# ------------------------------------------------------------------ values


def hide_secrets(text: str) -> str:
    """The text without passwords in connection strings and URLs, and without tokens."""

    def mask(found: re.Match[str]) -> str:
        return f"{found[1] or found[3] or found[5]}{MASK}"

    return _SECRET_TEXT.sub(mask, text)


def bound(value: object, depth: int = 0) -> object:
    """The value as plain JSON values, masked and cut; a control character is shown by its number, so that a line stays a line."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        pairs = list(value.items())[:MAX_FIELDS]
        return {str(name): MASK if _is_secret(str(name), item) else bound(item, depth + 1) for name, item in pairs}
    if isinstance(value, list | tuple | set | frozenset) and depth < MAX_DEPTH:
        return [bound(item, depth + 1) for item in list(value)[:MAX_ITEMS]]
    text = str(value)
    cut = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} characters)"
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", hide_secrets(cut))


def _is_secret(name: str, value: object) -> bool:
    return value is not None and not isinstance(value, bool) and is_secret_key(name)


def _bound_values(_logger: object, _method: str, event: EventDict) -> EventDict:
    """The last step before a line: a traceback keeps its lines and its END, which says most."""
    trace = event.pop("exception", None)
    bounded = bound(dict(event))
    assert isinstance(bounded, dict)
    if isinstance(trace, str):
        bounded["exception"] = "\n".join(str(bound(line)) for line in trace[-MAX_TEXT:].splitlines())
    return bounded


# ------------------------------------------------------------------ writing


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own. `write` never waits and never raises.

    It keeps a copy of the descriptor: were the number closed and given to a connection, lines would go down that connection.
    """

    def __init__(self, descriptor: int, limit: int = QUEUE_LINES) -> None:
        self._descriptor = _copy_of(descriptor)
        self._lines: queue.Queue[str] = queue.Queue(limit)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue a line (without its newline); drop it when too many wait."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until what was queued is written, at most `timeout_s`; whether it is."""
        with self._lines.all_tasks_done:
            return self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, timeout_s)

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            dropped, self._dropped = self._dropped, 0
            complaint = f'{{"event": "log.dropped", "level": "warning", "lines": {dropped}}}\n' if dropped else ""
            self._put(f"{complaint}{line}\n".encode("utf-8", "replace"))
            self._lines.task_done()

    def _put(self, text: bytes) -> None:
        """Write all of it. A reader that is gone, no descriptor, a full disk: the line is lost and nothing else."""
        while text and self._descriptor is not None:
            try:
                text = text[os.write(self._descriptor, text) :]
            except BlockingIOError:  # somebody else made it non-blocking
                time.sleep(0.01)
            except OSError:
                return


def _copy_of(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:
        return None


class _Logger:
    """What structlog calls with each finished line."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def msg(self, line: str) -> None:
        self._writer.write(line)

    debug = info = warning = error = critical = exception = msg


class _FromLibraries(logging.Handler):
    """Lines of libraries that use logging, as events named library.logged."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception as error:  # noqa: BLE001 a library's bad format string must not end the agent
            text = f"{record.msg} (not formatted: {error!r})"
        level = record.levelname.lower() if record.levelno <= logging.CRITICAL else "critical"
        method = {"debug": "debug", "info": "info", "warning": "warning"}.get(level, "error")
        fields: dict[str, object] = {"library": record.name, "sentence": text}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        getattr(structlog.get_logger(), method)("library.logged", **fields)


# ------------------------------------------------------------------ the one way in


def configure_logging(log_format: LogFormat = LogFormat.AUTO, level: LogLevel = LogLevel.INFO, descriptor: int = 2) -> LineWriter:
    """Have all log lines of this process written to `descriptor`; the writer, to be flushed at the end. Call it once."""
    writer = LineWriter(descriptor)
    console = log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and _is_terminal(descriptor))
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    if console:
        renderer = structlog.dev.ConsoleRenderer(colors=_is_terminal(descriptor) and "NO_COLOR" not in os.environ)
    threshold = logging.getLevelNamesMapping()[level.value.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _bound_values,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _Logger(writer),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=max(threshold, logging.WARNING), force=True)
    atexit.register(writer.flush)
    return writer


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
