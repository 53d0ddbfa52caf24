from __future__ import annotations

from agent.configuration.loader import parse
from agent.configuration.model import Configuration
from agent.observation.catalogue import catalogue_of
from checks.base import Level
from checks.http import HttpCheck
from checks.tcp import TcpCheck
from tests.unit.agent.configuration.conftest import BASE

CHECKS = """\
defaults: {every: 7s, timeout: 3s, rise: 4, fall: 5}
checks:
  web: {type: http, url: "http://127.0.0.1:1/", every: 1s, timeout: 500ms, rise: 1, fall: 2, requires: [gate]}
  gate: {type: tcp, address: "127.0.0.1:1", on: [pg1, pg2]}
  far: {type: tcp, address: "127.0.0.1:2", on: [pg2]}
"""


def configured(text: str = CHECKS) -> Configuration:
    return parse(BASE + text, "base.yaml", {})


def test_a_node_runs_what_names_it_and_what_names_nobody() -> None:
    configuration = configured()
    assert [c.name for c in catalogue_of(configuration, "pg1")] == ["gate", "web"]
    assert [c.name for c in catalogue_of(configuration, "pg2")] == ["far", "gate", "web"]
    assert catalogue_of(parse(BASE, "f", {}), "pg1") == ()


def test_only_what_was_asked_for() -> None:
    assert [c.name for c in catalogue_of(configured(), "pg1", only=frozenset({"gate", "far"}))] == ["gate"]


def test_its_own_schedule_goes_before_the_defaults() -> None:
    gate, web = catalogue_of(configured(), "pg1")
    assert (gate.every_s, gate.timeout_s, gate.rise, gate.fall, gate.requires) == (7, 3, 4, 5, ())
    assert (web.every_s, web.timeout_s, web.rise, web.fall, web.requires) == (1, 0.5, 1, 2, ("gate",))


def test_each_is_of_its_kind_with_its_options() -> None:
    gate, web = catalogue_of(configured(), "pg1")
    assert isinstance(gate.check, TcpCheck)
    assert isinstance(web.check, HttpCheck)
    assert gate.check.level is Level.LIVENESS
    assert gate.check.options.address == "127.0.0.1:1"


def test_the_same_file_gives_the_same_catalogue() -> None:
    for first, second in zip(catalogue_of(configured(), "pg1"), catalogue_of(configured(), "pg1"), strict=True):
        assert first.is_same(second)
