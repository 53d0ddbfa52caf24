from __future__ import annotations

import pytest
from pydantic import ValidationError

from checks.base import Level, Status
from checks.consul import Autopilot, ConsulCheck, ConsulFacts, ConsulOptions, ServerHealth, _judge_code
from checks.http_client import Answer
from checks.network import ProbeFailed, Reason

THREE = ("192.0.2.1:8300", "192.0.2.2:8300", "192.0.2.3:8300")


def server(name: str, *, is_healthy: bool = True) -> ServerHealth:
    return ServerHealth(Name=name, Healthy=is_healthy, Voter=True, SerfStatus="alive" if is_healthy else "failed")


def judged(facts: ConsulFacts, **options: object) -> tuple[Status, str]:
    check = ConsulCheck(Level.DEEP, ConsulOptions.model_validate({"url": "http://x", **options}))
    result = check._judge(facts)
    return result.status, result.sentence.removeprefix("Consul at http://x sees the leader 192.0.2.1:8300 and ")


def facts(autopilot: Autopilot | None = None, latency_s: float | None = None, multiplier: float | None = None) -> ConsulFacts:
    return ConsulFacts(THREE[0], THREE, autopilot, latency_s, multiplier)


def test_the_number_of_servers() -> None:
    assert judged(facts()) == judged(facts(), peers=3) == (Status.HEALTHY, "3 server(s)")
    assert judged(facts(), peers=5) == (Status.DEGRADED, "3 server(s); there should be 5")


def test_what_autopilot_says() -> None:
    well = Autopilot(Healthy=True, FailureTolerance=1, Servers=(server("a"), server("b"), server("c")))
    ill = Autopilot(Healthy=False, FailureTolerance=0, Servers=(server("a"), server("b", is_healthy=False)))
    assert judged(facts(well))[0] is Status.HEALTHY
    assert judged(facts(ill)) == (Status.DEGRADED, "3 server(s); server b is not healthy (failed); not one more server may fail")


def test_one_server_alone_needs_no_tolerance() -> None:
    alone = Autopilot(Healthy=True, FailureTolerance=0, Servers=(server("a"),))
    assert judged(ConsulFacts(THREE[0], THREE[:1], alone), peers=1)[0] is Status.HEALTHY


def test_slow_reads_and_slow_elections() -> None:
    assert judged(facts(latency_s=0.4, multiplier=1.0))[0] is Status.HEALTHY
    assert judged(facts(latency_s=0.6))[1] == "3 server(s); a consistent read took 600 ms, longer than 500 ms"
    assert "raft_multiplier is 5" in judged(facts(multiplier=5.0))[1]
    assert judged(facts(multiplier=5.0), slow_raft=True)[0] is Status.HEALTHY


def test_codes() -> None:
    _judge_code(Answer(200, b"", {}, 0.0), "x")
    _judge_code(Answer(404, b"", {}, 0.0), "x", also=404)
    for code, reason in ((403, Reason.LOGIN), (401, Reason.LOGIN), (500, Reason.FAILED), (404, Reason.FAILED)):
        with pytest.raises(ProbeFailed, match=r"no\W+way") as caught:
            _judge_code(Answer(code, b"no\nway", {}, 0.0), "x")
        assert caught.value.failure.reason is reason


@pytest.mark.parametrize(
    "options", [{"token": "a", "token_file": "/b"}, {"key": "/k"}, {"peers": 0}, {"read_key": ""}, {"url": "x:8500"}, {"slow_after": 1}]
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ConsulOptions.model_validate({"url": "http://x", **options})
