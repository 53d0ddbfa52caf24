"""A small right file, and all problems of a text. Tests add to the file or replace in it."""

import textwrap
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import pytest

from agent.configuration.loader import parse
from agent.configuration.model import Configuration
from agent.errors import ConfigurationError

BASE = """\
coordination:
  local: {path: /var/lib/quorate/coordination.sqlite}
nodes:
  pg1: {api: 127.0.0.1:8481}
  pg2: {api: 127.0.0.1:8482}
groups:
  pg-main:
    engine: postgres
    members:
      pg1: {port: 5433, data_dir: /srv/pg1}
      pg2: {port: 5434, data_dir: /srv/pg2, priority: 90}
    postgres: {socket_dir: /run/postgresql}
"""


class Problems(Protocol):
    def __call__(self, text: str, environment: Mapping[str, str] = ...) -> tuple[str, ...]: ...


@pytest.fixture
def base() -> str:
    """A small right file; tests add to it or replace in it."""
    return BASE


@pytest.fixture
def configuration() -> Configuration:
    return parse(BASE, "base.yaml", {})


@pytest.fixture
def problems() -> Problems:
    """Every problem of a text, without the file's name; empty when it loads."""

    def judged(text: str, environment: Mapping[str, str] = MappingProxyType({})) -> tuple[str, ...]:
        try:
            parse(textwrap.dedent(text), "f", environment)
        except ConfigurationError as error:
            return tuple(problem.removeprefix("f:") for problem in error.problems)
        return ()

    return judged
