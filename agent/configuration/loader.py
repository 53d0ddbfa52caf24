"""A file to a Configuration, or to all that is wrong with it in one go: one line each, `FILE:LINE: path.to.key: what was expected`.

Nothing is half taken: a file with one problem gives no Configuration. It reads the one file it is given and never the process's
environment: that is handed in. No value of the file gets into a message except short ones under keys that cannot hold a secret.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.configuration.document import Document, Problem, UnreadableDocument, dotted, read_document
from agent.configuration.document import Path as Place
from agent.configuration.model import Configuration
from agent.configuration.references import judge
from agent.configuration.validation import Section, validate
from agent.errors import ConfigurationError

MAX_FILE_BYTES = 256 << 10


def load(path: Path, environment: Mapping[str, str]) -> Configuration:
    """The configuration in the file. Raises ConfigurationError with every problem of it; never anything else."""
    return parse(_text(path), str(path), environment)


def parse(text: str, name: str, environment: Mapping[str, str]) -> Configuration:
    """The configuration in `text`, which messages call `name`. Raises ConfigurationError with every problem of it."""
    try:
        document = read_document(text, environment)
    except UnreadableDocument as error:
        raise ConfigurationError((f"{name}:{error.line}: {error.sentence}",)) from None
    validated = validate(Configuration, document.values, Section(document.spots))
    problems = [*document.problems, *(problem for problem in validated.problems if not _below_any(problem.path, document.blanks))]
    if validated.model is not None:
        spoiled = {*validated.cut, *document.blanks}
        problems += [problem for problem in judge(validated.model, document) if not _is_void(problem, spoiled)]
    if problems or validated.model is None:
        raise ConfigurationError(_lines(name, document, problems))
    return validated.model


def _text(path: Path) -> str:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError((f"{path}: is not a file",))
            content = file.read(MAX_FILE_BYTES + 1)
    except IsADirectoryError:
        raise ConfigurationError((f"{path}: is not a file",)) from None
    except OSError as error:
        raise ConfigurationError((f"{path}: cannot be read: {error.strerror or 'the system refused'}",)) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationError((f"{path}: is longer than {MAX_FILE_BYTES >> 10} KiB: this is no configuration",))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError((f"{path}:{line}: is not UTF-8 text",)) from None


def _without_waiting(path: str, flags: int) -> int:
    """For a pipe that nobody writes to: opening it must not wait."""
    return os.open(path, flags | os.O_NONBLOCK)


def _lines(name: str, document: Document, problems: Iterable[Problem]) -> tuple[str, ...]:
    """The problems as lines, in the order of the file, each once."""
    placed = sorted({(problem.line or document.line(problem.path), dotted(problem.path), problem.sentence) for problem in problems})
    return tuple(f"{name}:{line}: {path + ': ' if path else ''}{sentence}" for line, path, sentence in placed)


def _is_void(problem: Problem, spoiled: Iterable[Place]) -> bool:
    """Whether a judgement rests on a place that is itself at fault, in it or around it."""
    grounds = problem.rests_on or (problem.path,)
    return any(_is_on_the_way(ground, place) or _is_on_the_way(place, ground) for ground in grounds for place in spoiled)


def _below_any(path: Place, places: Iterable[Place]) -> bool:
    return any(_is_on_the_way(place, path) for place in places)


def _is_on_the_way(short: Place, long: Place) -> bool:
    return long[: len(short)] == short
