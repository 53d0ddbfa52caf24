"""The groups and what is done with them: real processes, real clocks, a made-up data directory."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.watchdog import evidence, guard, host, process
from agent.watchdog.deadline import NANOSECONDS, Target
from agent.watchdog.guard import Guard
from agent.watchdog.process import members_of, title_of
from agent.watchdog.protocol import (
    MOST_GROUPS,
    Acknowledged,
    Answer,
    Done,
    Fenced,
    GroupReport,
    HandOver,
    Refused,
    Register,
    Release,
    Suspend,
)
from tests.polling import eventually

UID = os.getuid()
Run = Callable[[Path], int]


class Kept:
    """Where a guard's words and lists go."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.groups: dict[str, Target] = {}
        self.broken = False

    def keep(self, groups: dict[str, Target]) -> None:
        if self.broken:
            raise OSError(28, "no space")
        self.groups = groups


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def watch(kept: Kept) -> Guard:
    return Guard(kept.lines.append, kept.keep)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def run() -> Iterator[Run]:
    with ExitStack() as stack:

        def start(folder: Path) -> int:
            child = subprocess.Popen(["/usr/bin/postgres", "60"], executable="/bin/sleep", cwd=folder)
            stack.callback(child.wait)
            stack.callback(child.kill)
            eventually(lambda: title_of(child.pid) == "/usr/bin/postgres" and child.pid in members_of(str(folder), UID))
            return child.pid

        yield start


def registration(data: Path, group: str = "g", budget_s: float = 0.5) -> Register:
    return Register(group, str(data), UID, budget_s)


def hand_over(watch: Guard, ahead_s: float, epoch: int = 1, group: str = "g") -> Answer:
    now = host.moment()
    ahead = int(ahead_s * NANOSECONDS)
    return watch.hand_over(HandOver(group, epoch, now.boot_ns + ahead, now.raw_ns + ahead, "n"))


def phase(watch: Guard, group: str = "g") -> str:
    report = watch.report_on(group)
    assert isinstance(report, GroupReport)
    return report.phase


def control(data: Path, state: int) -> None:
    (data / "global").mkdir(exist_ok=True)
    (data / "global" / "pg_control").write_bytes(struct.pack("=QIIi", 7, 1300, 1, state))


def in_production(data: Path, pid: int) -> None:
    control(data, evidence.DbState.IN_PRODUCTION)
    (data / "postmaster.pid").write_text("\n".join([str(pid), "d", "1", "2", "s", "l", "1 2", "ready   "]) + "\n")


def turn_until(watch: Guard, condition: Callable[[], object]) -> None:
    """Turn as the loop does, but without its waits."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        watch.turn()


def test_a_passed_deadline_kills_and_then_holds(watch: Guard, kept: Kept, data: Path, run: Run) -> None:
    assert watch.register(registration(data)) == Done()
    assert kept.groups == {"g": Target(str(data), UID, 0.5)}
    assert isinstance(hand_over(watch, 0.15), Acknowledged)
    run(data)
    watch.turn()
    assert len(members_of(str(data), UID)) == 1
    assert phase(watch) == "armed"
    turn_until(watch, lambda: phase(watch) == "held")
    assert members_of(str(data), UID) == ()
    assert ["the deadline passed; epoch 1" in line and "1 processes" in line for line in kept.lines] == [True]
    assert isinstance(hand_over(watch, 5), Acknowledged)


def test_a_standby_without_a_deadline_is_left_alone_and_a_primary_is_not(watch: Guard, data: Path, run: Run) -> None:
    watch.register(registration(data))
    pid = run(data)
    control(data, evidence.DbState.IN_ARCHIVE_RECOVERY)
    (data / "postmaster.pid").write_text(f"{pid}\n")
    end = time.monotonic() + 0.4
    turn_until(watch, lambda: time.monotonic() > end)
    assert members_of(str(data), UID) == (pid,)
    in_production(data, pid)
    turn_until(watch, lambda: not members_of(str(data), UID))


def test_orphans_that_no_lock_file_names_are_found(watch: Guard, data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "YOUNG_S", 0.0)
    monkeypatch.setattr(guard, "SCAN_NS", NANOSECONDS // 10)
    watch.register(registration(data))
    control(data, evidence.DbState.IN_PRODUCTION)
    run(data)
    turn_until(watch, lambda: not members_of(str(data), UID))


def test_a_dead_primary_is_not_scanned_for_at_every_look(watch: Guard, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans: list[str] = []
    monkeypatch.setattr(guard, "is_writable", lambda *_: scans.append("scan"))
    monkeypatch.setattr(guard, "LOOK_NS", 0)
    monkeypatch.setattr(guard, "SLOW_LOOK_NS", 0)
    watch.register(registration(data))
    control(data, evidence.DbState.IN_PRODUCTION)
    for _ in range(20):
        watch.turn()
    assert scans == ["scan"]


def test_a_writable_service_is_not_armed_for_a_new_epoch(watch: Guard, data: Path, run: Run) -> None:
    watch.register(registration(data))
    assert isinstance(hand_over(watch, 5, epoch=1), Acknowledged)
    in_production(data, run(data))
    assert isinstance(hand_over(watch, 6, epoch=1), Acknowledged)
    assert hand_over(watch, 6, epoch=2) == Refused("not_proven", "the service is not proven to be not writable")
    watch.turn()
    assert len(members_of(str(data), UID)) == 1


def test_a_service_that_cannot_be_judged_is_neither_armed_nor_fenced(watch: Guard, data: Path, run: Run) -> None:
    watch.register(registration(data))
    control(data, evidence.DbState.IN_CRASH_RECOVERY)
    run(data)
    assert isinstance(hand_over(watch, 5), Refused)
    end = time.monotonic() + 0.3
    turn_until(watch, lambda: time.monotonic() > end)
    assert len(members_of(str(data), UID)) == 1


def test_a_pause_keeps_the_hold_off_until_it_is_armed_again(watch: Guard, data: Path, run: Run) -> None:
    watch.register(registration(data))
    hand_over(watch, 0.2)
    in_production(data, run(data))
    assert watch.suspend(Suspend("g", 2)) == Refused("not_armed", "nothing is armed in this epoch")
    assert watch.suspend(Suspend("g", 1)) == Done()
    end = time.monotonic() + 0.4
    turn_until(watch, lambda: time.monotonic() > end)
    assert phase(watch) == "paused"
    assert len(members_of(str(data), UID)) == 1
    assert watch.is_needed() == ""
    assert isinstance(hand_over(watch, 0.1), Acknowledged)
    turn_until(watch, lambda: not members_of(str(data), UID))


def test_release_wants_the_service_down(watch: Guard, data: Path, run: Run) -> None:
    watch.register(registration(data))
    hand_over(watch, 5)
    pid = run(data)
    in_production(data, pid)
    assert isinstance(watch.release(Release("g")), Refused)
    os.kill(pid, 9)
    eventually(lambda: not members_of(str(data), UID))
    assert watch.release(Release("g")) == Done()
    assert phase(watch) == "held"


def test_a_fence_on_demand_ends_whatever_is_armed(watch: Guard, data: Path, run: Run) -> None:
    watch.register(registration(data))
    hand_over(watch, 5)
    run(data)
    assert watch.fence_now("g") is None
    assert watch.fence_now("g") is None
    assert phase(watch) == "fencing"
    assert watch.fenced("g", host.moment()) is None
    assert "being fenced" in watch.is_needed()
    turn_until(watch, lambda: watch.fenced("g", host.moment()) == Fenced(left=0, killed=1))
    assert phase(watch) == "held"


def test_what_cannot_be_killed_is_told_and_struck_on(watch: Guard, data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    watch.register(registration(data, budget_s=0.05))
    run(data)
    with monkeypatch.context() as stuck:
        stuck.setattr(process, "_kill", lambda *_: None)  # stands for a process in state D
        watch.fence_now("g")
        turn_until(watch, lambda: watch.fenced("g", host.moment()) == Fenced(left=1, killed=1))
        assert phase(watch) == "fencing"
        before = host.moment()
        watch.turn()
        assert watch.wait_ns(before) > 0
        assert watch.wait_ns(host.moment()) <= guard.PATIENT_BLOW_NS
    turn_until(watch, lambda: phase(watch) == "held")


def test_a_group_that_will_not_die_does_not_delay_another(watch: Guard, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, other = tmp_path / "stuck", tmp_path / "other"
    stuck.mkdir()
    other.mkdir()
    watch.register(registration(stuck, "a", 5))
    watch.register(registration(other, "b"))
    undying, pid = run(stuck), run(other)
    really = process._kill
    monkeypatch.setattr(process, "_kill", lambda victim, place: None if victim == undying else really(victim, place))
    watch.fence_now("a")
    hand_over(watch, 0.05, group="b")
    watch.fence_now("b")
    began = time.monotonic()
    turn_until(watch, lambda: phase(watch, "b") == "held")
    assert time.monotonic() - began < 0.5
    assert phase(watch, "a") == "fencing"
    assert pid not in members_of(str(other), UID)


def test_one_empty_look_opens_no_latch(watch: Guard, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[int, ...]] = [(), (7,), (), ()]
    monkeypatch.setattr(guard, "strike", lambda *_: looks.pop(0))
    watch.register(registration(data))
    watch.fence_now("g")
    turn_until(watch, lambda: phase(watch) == "held")
    assert looks == []


def test_proc_that_cannot_be_read_proves_nothing(watch: Guard, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch.register(registration(data))

    def fail(*_: object) -> tuple[int, ...]:
        raise OSError(23, "file table overflow")

    with monkeypatch.context() as broken:
        broken.setattr(guard, "strike", fail)
        watch.fence_now("g")
        end = time.monotonic() + 0.05
        turn_until(watch, lambda: time.monotonic() > end)
        assert phase(watch) == "fencing"
    turn_until(watch, lambda: phase(watch) == "held")


def test_registering_again_keeps_what_is_armed(watch: Guard, data: Path) -> None:
    watch.register(registration(data))
    hand_over(watch, 5)
    assert watch.register(registration(data)) == Done()
    assert watch.register(registration(data, budget_s=1)) == Done()
    assert phase(watch) == "armed"


def test_an_armed_group_keeps_its_place(watch: Guard, kept: Kept, data: Path, tmp_path: Path) -> None:
    watch.register(registration(data))
    hand_over(watch, 5)
    assert isinstance(watch.register(registration(tmp_path)), Refused)
    link = tmp_path / "link"
    link.symlink_to(data)
    assert isinstance(watch.register(registration(link, "renamed")), Refused)
    assert watch.release(Release("g")) == Done()
    assert watch.register(registration(link, "renamed")) == Done()
    assert list(kept.groups) == ["renamed"]
    assert isinstance(watch.report_on("g"), Refused)


def test_a_registration_that_cannot_be_kept_is_refused(watch: Guard, kept: Kept, data: Path) -> None:
    kept.broken = True
    assert watch.register(registration(data)) == Refused("not_kept", "the group could not be written to the state folder")
    assert watch.report().groups == ()


def test_there_is_an_end_to_groups(watch: Guard, tmp_path: Path) -> None:
    for number in range(MOST_GROUPS):
        assert watch.register(registration(tmp_path / str(number), f"g{number}")) == Done()
    assert isinstance(watch.register(registration(tmp_path / "more", "more")), Refused)
    assert watch.register(registration(tmp_path / "0", "renamed")) == Done()


def test_a_group_that_nobody_registered_is_refused(watch: Guard) -> None:
    unknown = Refused("unknown_group", "this group is not registered")
    answers = [watch.suspend(Suspend("g", 1)), watch.release(Release("g")), watch.fence_now("g"), watch.report_on("g"), hand_over(watch, 5)]
    assert answers == [unknown] * 5
    assert watch.fenced("g", host.moment()) == Fenced(0, 0)


def test_groups_of_an_earlier_life_are_held_at_once(watch: Guard, data: Path, run: Run) -> None:
    in_production(data, run(data))
    watch.remember({"g": Target(str(data), UID, 0.5)})
    turn_until(watch, lambda: not members_of(str(data), UID))


def test_it_says_when_it_must_not_end(watch: Guard, data: Path, run: Run) -> None:
    watch.register(registration(data))
    assert watch.is_idle()
    hand_over(watch, 5, epoch=4)
    assert watch.is_needed() == ""  # nothing runs
    assert not watch.is_idle()
    in_production(data, run(data))
    assert watch.is_needed() == "g is writable under the deadline of epoch 4"


def test_it_sleeps_no_longer_than_it_may(watch: Guard, data: Path) -> None:
    assert watch.wait_ns(host.moment()) == NANOSECONDS
    watch.register(registration(data))
    assert watch.wait_ns(host.moment()) == 0
    watch.turn()
    assert 0 < watch.wait_ns(host.moment()) <= guard.LOOK_NS
    hand_over(watch, 5)
    assert watch.wait_ns(host.moment()) == NANOSECONDS // 8  # a quarter of fence_budget, for waits that stop in suspend
    hand_over(watch, 5.01)
    hand_over(watch, 0.05, epoch=2)
    assert 0 < watch.wait_ns(host.moment()) <= NANOSECONDS // 20
    watch.suspend(Suspend("g", 2))
    assert watch.wait_ns(host.moment()) == NANOSECONDS


def test_a_service_started_again_and_again_does_not_fill_the_log(watch: Guard, kept: Kept, data: Path) -> None:
    watch.register(registration(data))
    for _ in range(40):
        watch.fence_now("g")
        turn_until(watch, lambda: phase(watch) == "held")
    assert len(kept.lines) == 12  # the first ten, 16, 32


def test_addresses_are_taken_off_after_the_kill_and_each_time(
    watch: Guard, kept: Kept, data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = run(data)
    seen: list[tuple[str, tuple[int, ...]]] = []

    def remove(address: str) -> str:
        seen.append((address, members_of(str(data), UID)))
        return "192.0.2.100/24 was not taken off eth0: EPERM" if len(seen) < 3 else ""

    monkeypatch.setattr(guard, "remove_address", remove)
    assert watch.register(registration(data)._replace(addresses=("192.0.2.100/24",))) == Done()
    assert kept.groups["g"].addresses == ("192.0.2.100/24",)
    for number in (1, 2, 3):
        assert watch.fence_now("g") is None
        turn_until(watch, lambda number=number: len(seen) == number and phase(watch) == "held")  # type: ignore[misc]
    assert seen == [("192.0.2.100/24", ())] * 3
    assert pid not in members_of(str(data), UID)
    assert len([line for line in kept.lines if "EPERM" in line]) == 1  # said once


def test_what_will_not_die_loses_its_address_all_the_same(watch: Guard, data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = run(data)
    removed: list[str] = []
    monkeypatch.setattr(guard, "remove_address", lambda address: removed.append(address) or "")
    monkeypatch.setattr(guard, "strike", lambda *_: (pid,))
    watch.register(registration(data, budget_s=0.1)._replace(addresses=("192.0.2.100/24",)))
    began = time.monotonic()
    assert watch.fence_now("g") is None
    turn_until(watch, lambda: removed)
    assert time.monotonic() - began >= 0.1
    assert phase(watch) == "fencing"


def test_other_addresses_are_taken_at_the_next_registration(watch: Guard, kept: Kept, data: Path) -> None:
    watch.register(registration(data))
    assert watch.register(registration(data)._replace(addresses=("2001:db8::64/64",))) == Done()
    assert kept.groups["g"].addresses == ("2001:db8::64/64",)
