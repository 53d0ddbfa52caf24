"""Decisions as documents: each file of cases/ is one test. A record that an agent kept is another: put the file into records/ as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.decision.engine import decide
from agent.decision.rules import TABLE
from agent.decision.situation import Situation
from agent.execution.record import load_record
from tests.scenarios.building import scene
from tests.scenarios.consistency import objections
from tests.scenarios.reading import CASES, differences, load, load_all, play
from tests.scenarios.words import WrongScenario

FILES = sorted(CASES.glob("*.yaml"))
RECORDS = sorted((Path(__file__).parent / "records").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    scenario = load(path)
    found = [f"at {step.at_s:g} s: {line}" for step, decision in play(scenario) for line in differences(step, decision)]
    assert not found, "\n".join([scenario.about, *found])


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_saved_record_is_decided_as_it_was(path: Path) -> None:
    """When the core has changed its mind on purpose, keep the view as a scenario of its own and drop the record."""
    record = load_record(path)
    decision = decide(record.memory, record.view, record.now)
    assert ([r.name for r in decision.rules][:1], decision.reason) == ([record.rule] if record.rule else [], record.sentence)
    assert decision.commands == record.commands


def test_there_is_a_saved_record() -> None:
    assert RECORDS


def test_every_situation_has_a_scenario_that_expects_it() -> None:
    expected = {step.expect.get("situation") for scenario in load_all() for step in scenario.steps}
    assert {s.value for s in Situation} - expected == set()


def test_every_rule_is_shown_to_hold() -> None:
    shown = {name for scenario in load_all() for step in scenario.steps for name in step.expect.get("rules", [])}
    assert {rule.name for rule in TABLE} - shown == set()


def test_a_scenario_that_expects_something_else_fails(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        "about: a healthy follower\n"
        "expect: {situation: leading, rules: [renew], commands: [RenewLease], reason: x, possible: false, heirs: [], blocking: [x],"
        " wakes_within: 1ms}\n"
        "then: [{at: 1s, given: {node: pg1, tenure: {sent: 2s ago}},"
        " expect: {commands: [{RenewLease: {record.sequence: 9}}], never: [RenewLease]}}]\n"
    )
    lines = [line for step, decision in play(load(wrong)) for line in differences(step, decision)]
    assert [line.split(" ")[0] for line in lines] == [
        *("situation:", "rules:", "reason:", "possible:", "heirs:", "blocking:", "commands:", "wakes"),
        *("RenewLease.record.sequence:", "RenewLease"),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("about: x\ngiven: {servise: {}}\nexpect: {situation: leading}", "nobody knows 'servise'"),
        ("about: x\ngiven: {service: {state: primary, sealled: no}}\nexpect: {situation: leading}", "nobody knows 'sealled'"),
        ("about: x\ngiven: {group: 5}\nexpect: {situation: leading}", "expected words and values"),
        ("about: x\nexpect: {}", "proves nothing"),
        ("given: {}\nexpect: {situation: leading}", "says not what it is about"),
        ("about: x\ngiven: {service: {receiving: true, upstream: none}}\nexpect: {situation: leading}", "who receives has an upstream"),
        ("about: x\nexpect: {situation: leading}\nwhen: 5", "nobody knows 'when'"),
    ],
)
def test_a_wrong_scenario_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text)
    with pytest.raises(WrongScenario, match=complaint):
        load(wrong)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"node": "pg1", "highest_epoch": 0, "lease": {"key": "absent"}}, "without any record"),
        ({"node": "pg1", "highest_epoch": 6, "went_back": True}, "an epoch that this node's disk knows"),
        ({"highest_epoch": 6}, "raises the highest epoch"),
        ({"highest_epoch": 8}, "coordination went back"),
        ({"lease": {"state": "vacated", "locked_by": "s-pg1"}}, "unlocks in the same transaction"),
        ({"lease": {"heir": "pg2"}}, "names an heir"),
        ({"lease": {"votes_needed": 9}}, "some of the voters"),
        ({"lease": {"sync_set": ["pg1"]}}, "not in its own sync set"),
        ({"node": "pg1", "tenure": {"record": {"holder": "pg3"}}}, "names this node"),
        ({"node": "pg1", "tenure": {"record": {"epoch": 6}}}, "another holder or epoch is read"),
        ({"node": "pg1", "tenure": {}, "lease": {"state": "vacated"}}, "its give-up is read"),
        ({"node": "pg1", "tenure": {"sent": "unknown", "attempts": [{"sent": "in 1s"}]}}, "sent in the future"),
        ({"node": "edge1", "tenure": {}, "lease": {"holder": "edge1"}}, "a witness holds no lease"),
        ({"node": "pg1", "service": {"upstream": "pg2"}}, "receives from nobody"),
        ({"service": {"state": "hung", "receiving": True}}, "only a live standby receives"),
        ({"service": {"position": "none"}}, "has a position"),
        ({"service": {"initialised": False}}, "without data nothing runs"),
        ({"service": {"stopped_for_epoch": 7}}, "a final position"),
        ({"node": "edge1", "group": {"witnesses": ["edge1"]}, "service": {"state": "standby", "upstream": "none"}}, "a witness runs no"),
        ({"fences": {"armed": {"epoch": 9, "deadline": "in 1s"}}}, "no epoch is armed"),
        ({"service": {"seen": "in 1s"}}, "the look at the service is in the future"),
        ({"in_flight": ["StopReceiving", "FollowLeader"]}, "two commands at once"),
        ({"outcomes": {"CastVote": {"ok": True, "failures": 2}}}, "succeeded last"),
        ({"outcomes": {"CastVote": {"ok": False, "failures": 0}}}, "never failed"),
        ({"votes": {"pg3": {"epoch": 9}}}, "nobody has begun"),
        ({"observation": {"node": "pg2"}}, "nobody observes itself"),
    ],
)
def test_a_picture_that_cannot_be_is_refused(given: dict[str, object], sentence: str) -> None:
    made = scene(given)
    assert any(sentence in objection for objection in objections(made.view, made.now)), objections(made.view, made.now)


@pytest.mark.parametrize("node", ["pg1", "pg2", "edge1"])
def test_the_base_picture_can_be(node: str) -> None:
    made = scene({"node": node, "group": {"witnesses": ["edge1"]}})
    assert objections(made.view, made.now) == []
