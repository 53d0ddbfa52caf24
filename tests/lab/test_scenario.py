"""A scenario file is read strictly, with one line a mistake, and an outcome is judged as it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.lab.group_file import configuration, priorities
from tests.lab.running import Outcome, judge
from tests.lab.scenario import BadScenario, Fault, load, parse

ROOT = Path(__file__).resolve().parents[2]
ALL = sorted((Path(__file__).parent / "scenarios").glob("*.yaml"))
FROM_THE_ISSUE = """
hosts: {h1: {}, h2: {}, h3: {}}
start: {leader: h2, consul_leader: h2}
group: {engine: postgres, durability: sync, lease: {ttl: 2s, renew: 400ms, fence_budget: 300ms}, vip: 192.0.2.100/24}
workload: {every: 20ms, through: vip}
steps:
  - {at: 5s, fault: kill_service, host: leader}
  - {at: 25s, fault: heal}
until: 40s
expect: {outage_s_max: 2, acknowledged_lost_max: 0, writable_overlap_s_max: 0, leader_changes: 1, all_streaming: true}
"""


@pytest.mark.parametrize("file", ALL, ids=lambda file: file.stem)
def test_every_scenario_is_right_and_says_what_it_is_about(file: Path) -> None:
    assert load(file).about


def test_the_issue_s_own_example() -> None:
    scenario = parse(FROM_THE_ISSUE, "x")
    assert scenario.steps[0].at == 5
    assert scenario.workload.every == 0.02
    assert scenario.until_s == 40
    assert scenario.expect.outage_s_max == 2


def test_three_hosts_and_the_leader_s_address_by_default() -> None:
    scenario = parse("steps: [{at: 1500ms, fault: heal}]", "x")
    assert scenario.members == ("h1", "h2", "h3")
    assert scenario.through == "leader"
    assert scenario.until_s == 11.5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "x:1: is empty; expected keys and values"),
        ("hots: {}", "x:1: hots: unknown key (did you mean hosts?)"),
        ("steps:\n  - {at: 5, fault: heal}", "x:2: steps[0].at: expected a duration with a unit"),
        ("steps: [{at: 1s, fault: kil}]", "expected one of kill_service"),
        ("steps: [{at: 1s}]", "expected exactly one of `fault` and `command`"),
        ("steps: [{at: 1s, fault: heal, command: pause main}]", "expected exactly one of"),
        ("steps: [{at: 1s, fault: kill_service}]", "kill_service needs a `host`"),
        ("steps: [{at: 1s, fault: heal, host: h1}]", "heal takes no `host`"),
        ("steps: [{at: 1s, fault: kill_service, host: [leader, h9]}]", "h9: no such host"),
        ("steps: [{at: 1s, fault: kill_service, host: witness}]", "witness: this scenario has none"),
        ("steps: [{at: 1s, fault: partition, a: h1}]", "needs `a` and `b`"),
        ("steps: [{at: 1s, fault: host_up, host: h1, stay: dead}]", "`stay: dead`"),
        ("steps: [{at: 1s, fault: kill_agent, host: h1, watchdog: true}]", "only freeze_agent"),
        ("steps: [{at: 5s, fault: heal}]\nuntil: 5s", "expected a time after the last step"),
        ("until: 1s\nuntil: 2s", "x:2: until"),
        ("hosts: {h1: {witness: true}}", "at least one host must run Postgres"),
        ("hosts: {leader: {}}", "a meaning of its own"),
        ("hosts: {h1: {}, h2: {witness: true}}\nstart: {leader: h2}", "expected a host that runs Postgres: h1"),
        ("start: {consul_leader: h7}", "expected a host: h1, h2, h3"),
        ("workload: {through: vip}", "there is no vip in `group`"),
        ("workload: {every: 0s}", "expected more than 0s"),
        ("expect: {leader_changes: some}", "expected a whole number"),
    ],
)
def test_a_mistake_is_one_line(text: str, sentence: str) -> None:
    with pytest.raises(BadScenario) as caught:
        parse(text, "x")
    assert len(caught.value.problems) == 1
    assert sentence in caught.value.problems[0]
    assert "\n" not in caught.value.problems[0]


def test_a_bad_file_and_a_missing_one_are_64(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("hots: {}\n")
    for arguments in ([str(bad)], [str(tmp_path / "none.yaml")], [], [str(bad), "--wrong"]):
        command = [sys.executable, "-m", "tests.lab", "run", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 64
        assert len(done.stderr.splitlines()) == 1
        assert not done.stdout


def test_every_fault_of_the_issue_is_known() -> None:
    named = "kill_service kill_agent freeze_agent kill_watchdog host_down host_up partition consul_leader_kill consul_down consul_up heal"
    assert {fault.value for fault in Fault} >= set(named.split())


def test_the_configuration_has_the_group_s_keys_over_the_lab_s() -> None:
    scenario = parse(
        FROM_THE_ISSUE.replace("durability: sync", "durability: async, quorum: {patience: 3s}, members: {h3: {nofailover: true}}"), "x"
    )
    addresses = {"h1": "192.0.2.11", "h2": "192.0.2.12", "h3": "192.0.2.13"}
    places = {"state": Path("/s"), "secrets": Path("/k")}
    members = {name: {"data_dir": f"/{name}"} for name in addresses}
    tree = yaml.safe_load(yaml.safe_dump(configuration(scenario, addresses, "h2", places, {"port": 5432}, members)))
    assert tree["coordination"]["consul"]["url"] == ["http://192.0.2.12:8500", "http://192.0.2.11:8500", "http://192.0.2.13:8500"]
    group = tree["groups"]["main"]
    assert group["members"]["h3"] == {"priority": 80, "data_dir": "/h3", "nofailover": True}
    assert group["quorum"] == {"patience": "3s"}
    assert group["lease"] == {"ttl": "2s", "renew": "400ms", "fence_budget": "300ms"}
    assert group["follows_leader"] == [{"vip": {"address": "192.0.2.100/24", "interface": "eth0"}}]
    assert "vip" not in group


def test_who_is_to_lead_first_has_the_highest_priority() -> None:
    assert priorities(parse(FROM_THE_ISSUE, "x")) == {"h2": 100, "h1": 90, "h3": 80}


GOOD = Outcome("x", outage_s=1.5, acknowledged=100, acknowledged_lost=0, leader_changes=1, all_streaming=True, fenced_after_s=2.0)


@pytest.mark.parametrize(
    ("changes", "expect", "sentence"),
    [
        ({"outage_s": 2.5}, "outage_s_max: 2", "outage_s: 2.5, at most 2 expected"),
        ({}, "outage_s_min: 2", "outage_s: 1.5, at least 2 expected"),
        ({"consul_outage_s": 0.25}, "outage_s_over_consul_max: 1", "outage_s over Consul's own: 1.25, at most 1 expected"),
        ({"acknowledged_lost": 1}, "acknowledged_lost_max: 0", "acknowledged_lost: 1, at most 0 expected"),
        ({"acknowledged_lost": None}, "acknowledged_lost_max: 0", "acknowledged_lost: cannot be told"),
        ({"writable_overlap_s": 0.001}, "writable_overlap_s_max: 0", "writable_overlap_s: 0.001, at most 0 expected"),
        ({"writable_locally_s": 3.0}, "writable_locally_s_max: 2", "writable_locally_s: 3"),
        ({"leader_changes": 2}, "leader_changes: 1", "leader_changes: 2, 1 expected"),
        ({"leader_changes": 2}, "leader_changes_max: 1", "leader_changes: 2, at most 1 expected"),
        ({"all_streaming": False}, "all_streaming: true", "all_streaming: False, True expected"),
        ({"fenced_after_s": None}, "fenced_after_s_max: 3", "fenced_after_s: None, at most 3 expected"),
        ({"blind_s": 1.2}, "leader_changes: 1", "blind_s: 1.2, at most 1 expected"),
        ({"acknowledged": 0}, "leader_changes: 1", "acknowledged: 0, the writer never succeeded"),
    ],
)
def test_what_does_not_hold_is_one_sentence(changes: dict[str, object], expect: str, sentence: str) -> None:
    scenario = parse(f"expect: {{{expect}}}", "x")
    outcome = Outcome(**{**GOOD.as_json(), **changes})
    (failed,) = judge(scenario, outcome)
    assert sentence in failed


def test_what_holds_and_what_is_not_asked_is_silent() -> None:
    assert judge(parse(FROM_THE_ISSUE, "x"), GOOD) == []
    assert judge(parse("until: 1s", "x"), Outcome("x", outage_s=99, acknowledged=1)) == []
