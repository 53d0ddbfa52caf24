from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli import check_commands
from agent.cli.check_commands import EXIT_CODES
from checks.base import Result, RunLog, Status
from checks.tcp import TcpCheck
from tests.unit.agent.cli.conftest import Run


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> dict[str, Result]:
    """What the checks of type tcp say, by the last part of their address; those that are not here really connect."""
    said: dict[str, Result] = {}
    real = TcpCheck.probe

    async def probe(self: TcpCheck, timeout_s: float, log: RunLog) -> Result:
        return said.get(self.options.address) or said.get("*") or await real(self, timeout_s, log)

    monkeypatch.setattr(TcpCheck, "probe", probe)
    return said


def test_a_healthy_check(quorate: Run, config: Path) -> None:
    ran = quorate("check", "--config", config, "--node", "pg1")
    assert (ran.code, ran.err) == (0, "")
    assert [word in ran.out for word in ("answers", "tcp", "liveness", "healthy")] == [True] * 4


def test_an_unhealthy_check(quorate: Run, config: Path) -> None:
    ran = quorate("check", "silent", "--config", config, "--node", "pg2", "--output", "json")
    assert ran.code == 2
    told = json.loads(ran.out)
    assert (told["status"], [c["name"] for c in told["checks"]]) == ("unhealthy", ["silent"])


@pytest.mark.parametrize("status", list(Status))
def test_exit_codes_are_those_of_monitoring_plugins(status: Status, quorate: Run, config: Path, says: dict[str, Result]) -> None:
    says["*"] = Result(status, "it says | so\nin two lines", 0.25)
    ran = quorate("check", "--config", config, "--node", "pg1", "--output", "nagios")
    assert ran.code == EXIT_CODES[status.value]
    first, second = ran.out.splitlines()
    assert first.startswith(f"QUORATE {('OK', 'WARNING', 'CRITICAL', 'UNKNOWN')[ran.code]} - ")
    assert first.endswith(" | 'answers'=0.250000s;;;0;2")
    assert second.endswith(": answers: it says / so in two lines")


def test_what_is_down_weighs_more_than_what_nobody_could_ask() -> None:
    order = check_commands._WORSE
    assert order.index("unhealthy") > order.index("unknown") > order.index("degraded") > order.index("healthy")
    assert set(order) == set(EXIT_CODES) == {status.value for status in Status}


def test_a_check_that_does_not_end_is_ended(quorate: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> Result:
        import asyncio  # noqa: PLC0415 - beside its one use

        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(TcpCheck, "probe", hang)
    monkeypatch.setattr(check_commands, "GRACE_S", -1.9)
    ran = quorate("check", "--config", config, "--node", "pg1")
    assert ran.code == 3
    assert "did not end within 0.1 s" in ran.out


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("anwers", "there is no check anwers"), ("silent", "silent does not run on pg1 but on pg2; say which with --node")],
)
def test_a_check_that_is_not_ours(name: str, sentence: str, quorate: Run, config: Path) -> None:
    ran = quorate("check", name, "--config", config, "--node", "pg1")
    assert (ran.code, ran.out) == (64, "")
    assert sentence in ran.err


def test_no_check_at_all_is_unknown(quorate: Run, config: Path) -> None:
    config.write_text(config.read_text().replace("on: [pg1]", "on: [pg2]"))
    ran = quorate("check", "--config", config, "--node", "pg1")
    assert (ran.code, ran.out) == (3, "no check runs on this node\n")
