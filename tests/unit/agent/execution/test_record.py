from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.codec import CodecError, dumps, from_json, loads, to_json
from agent.coordination.lease import Terms
from agent.decision import command
from agent.decision.command import Command, FenceService
from agent.decision.memory import Memory
from agent.decision.view import (
    Candidacy,
    CoordinationView,
    Durability,
    FenceView,
    GroupSpec,
    LeaseView,
    OnCrash,
    ServiceState,
    ServiceView,
    View,
)
from agent.errors import UsageError
from agent.execution import record as record_module
from agent.execution.record import DecisionRecord, RecordRing, load_record
from agent.instant import Instant

COMMANDS = sorted(
    (c for c in vars(command).values() if isinstance(c, type) and issubclass(c, Command) and c is not Command), key=lambda c: c.__name__
)
"""Every command there is: a new one is tried without a change here."""
SPEC = GroupSpec(
    name="pg",
    engine="postgres",
    members={"a": Candidacy(), "b": Candidacy(priority=90)},
    witnesses=("c",),
    terms=Terms(5.0, 0.5),
    renew_s=1.0,
    patience_s=10.0,
    durability=Durability.SYNC,
    max_lag_bytes=1 << 20,
    on_crash=OnCrash.FAILOVER,
    restart_timeout_s=10.0,
    sync_timeout_s=3.0,
    cooldown_s=60.0,
    required_fences=frozenset(),
)
VIEW = View(
    node="a",
    incarnation="boot-1",
    group=SPEC,
    coordination=CoordinationView(None),
    lease=LeaseView(),
    tenure=None,
    service=ServiceView(ServiceState.DOWN),
    fences=FenceView(frozenset()),
)
RECORD = DecisionRecord(
    1_700_000_000.0, Instant(5, 6), Memory(), VIEW, "fence", "the lease ran out", (FenceService(3, "the lease ran out"),)
)

finite = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, finite)
any_command = st.sampled_from(COMMANDS).flatmap(st.from_type)


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors], deadline=None)
@given(data=st.data())
def test_every_command_comes_back_as_it_was(kind: type[Command], data: st.DataObject) -> None:
    value = data.draw(st.from_type(kind))
    back = loads(Command, dumps(value))
    assert back == value
    assert type(back) is kind


@settings(max_examples=15, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.from_type(View), st.from_type(Memory), st.lists(any_command, max_size=3).map(tuple))
def test_every_view_and_memory_comes_back_as_it_was(view: View, memory: Memory, commands: tuple[Command, ...]) -> None:
    record = replace(RECORD, view=view, memory=memory, commands=commands)
    back = loads(DecisionRecord, dumps(record))
    assert back == record
    assert dumps(back) == dumps(record)


def test_a_command_in_a_record_is_told_by_its_class() -> None:
    raw = to_json(RECORD)
    assert isinstance(raw, dict)
    assert raw["commands"] == [{"class": "FenceService", "epoch": 3, "cause": "the lease ran out"}]


def test_a_record_of_before_a_field_was_added_is_still_read() -> None:
    raw = json.loads(dumps(RECORD))
    del raw["view"]["observation"]
    assert from_json(DecisionRecord, raw) == RECORD


def test_a_wrong_field_is_named_with_its_place() -> None:
    raw = json.loads(dumps(RECORD))
    raw["view"]["group"]["members"]["b"]["priority"] = "high"
    with pytest.raises(CodecError, match=r"\$\.view\.group\.members\.b\.priority: 'high' is no whole number"):
        from_json(DecisionRecord, raw)


# ---------------------------------------------------------------------------------------------------- the ring


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "records").iterdir())


async def test_a_record_is_written_when_the_decision_became_another(tmp_path: Path) -> None:
    ring = RecordRing.open(tmp_path)
    path = await ring.offer(RECORD, ("fence",))
    assert path is not None
    assert load_record(path) == RECORD
    assert await ring.offer(RECORD, ("fence",)) is None
    assert await ring.offer(replace(RECORD, rule="start"), ("start",)) is not None
    assert await ring.offer(RECORD, ("fence",)) is not None
    assert names(tmp_path) == ["00000001-pg.json", "00000002-pg.json", "00000003-pg.json"]
    ring.close()


async def test_each_group_has_a_decision_of_its_own(tmp_path: Path) -> None:
    ring = RecordRing.open(tmp_path)
    other = replace(RECORD, view=replace(VIEW, group=replace(SPEC, name="redis")))
    assert await ring.offer(RECORD, ("fence",)) is not None
    assert await ring.offer(other, ("fence",)) is not None
    assert await ring.offer(RECORD, ("fence",)) is None
    assert names(tmp_path) == ["00000001-pg.json", "00000002-redis.json"]
    ring.close()


async def test_the_oldest_records_go_also_those_of_an_earlier_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "MAX_FILES", 3)
    for life in range(3):
        ring = RecordRing.open(tmp_path)
        for number in range(2):
            await ring.offer(RECORD, (str(life), str(number)))
        ring.close()
    (tmp_path / "records" / "note.txt").touch()
    ring = RecordRing.open(tmp_path)
    await ring.offer(RECORD, ("last",))
    ring.close()
    assert names(tmp_path) == ["00000005-pg.json", "00000006-pg.json", "00000007-pg.json", "note.txt"]


async def test_a_record_that_is_too_large_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "MAX_BYTES", 100)
    ring = RecordRing.open(tmp_path)
    assert await ring.offer(RECORD, ("fence",)) is None
    assert names(tmp_path) == []
    ring.close()


async def test_a_full_disk_or_a_value_without_json_costs_the_record_and_nothing_else(tmp_path: Path) -> None:
    ring = RecordRing.open(tmp_path)
    (tmp_path / "records" / "00000001-pg.json.new").symlink_to("/dev/full")
    assert await ring.offer(RECORD, ("fence",)) is None
    assert await ring.offer(replace(RECORD, wall_s=float("nan")), ("fence",)) is None
    assert await ring.offer(RECORD, ("fence",)) is not None
    ring.close()


@pytest.mark.parametrize(("content", "message"), [(b"{", "no JSON"), (b'{"now": 1}', r"\$\.wall_s"), (None, "No such file")])
def test_a_file_that_is_no_record_is_one_sentence(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "record.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_record(path)
