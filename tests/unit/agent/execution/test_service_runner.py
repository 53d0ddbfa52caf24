from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from actions.base import ActionError, ActionTooLate, Guard
from agent.coordination.lease import Position, Promotion, Tenure
from agent.coordination.node_state import OwnPromotion
from agent.decision.command import (
    Command,
    FenceService,
    FollowLeader,
    PromoteService,
    RejoinMode,
    RejoinService,
    SealService,
    SetSyncNames,
    StartService,
    StopReceiving,
    StopService,
)
from agent.decision.view import ServiceState
from agent.disk import StorageError
from agent.execution import journal as journal_module
from agent.execution import service_runner
from agent.execution.hands import Hands
from tests.unit.agent.stage import SPEC, Stage, first_record

Run = Callable[[Hands, Command], Awaitable[str]]
PROMOTE = PromoteService(1, ("pg2",), (Promotion(0, "pg2", 4, 3, 90),))


@pytest.fixture
def leading(stage: Stage) -> Stage:
    now = stage.clock.now()
    stage.knowledge.tenure = Tenure(first_record(), 3, "s1", dated=now)
    stage.knowledge.fences = replace(stage.knowledge.fences, armed_epoch=1, armed_deadline=now.after(1.5), suspended=True)
    return stage


def journal_text(stage: Stage) -> str:
    return (stage.folder.path / "journal.jsonl").read_text()


@pytest.fixture
def full_disk(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A journal that takes no line."""

    def refuse(_fd: int, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module, "write_all", refuse)
    return stage


@pytest.mark.parametrize(
    ("run", "command", "call", "said"),
    [
        (service_runner.start, StartService(1), "start", "started read-only"),
        (service_runner.stop, StopService(1, "x"), "stop", "stopped cleanly at timeline 1, LSN 78"),
        (service_runner.follow, FollowLeader(1, "pg2"), "follow pg2", "follows pg2"),
        (service_runner.rejoin, RejoinService(1, "pg2", RejoinMode.COPY), "rejoin pg2 copy", "rejoined pg2 by copy"),
        (service_runner.seal, SealService(1), "seal", "sealed: any restart comes up read-only"),
        (service_runner.set_sync_names, SetSyncNames(1, ("a", "b")), "set_sync_names ('a', 'b')", "commits wait for a, b"),
        (service_runner.set_sync_names, SetSyncNames(1, ()), "set_sync_names ()", "commits wait for nobody"),
        (
            service_runner.stop_receiving,
            StopReceiving(1),
            "stop_receiving",
            "receives no more; final position for epoch 1: timeline 1, LSN 100",
        ),
    ],
)
async def test_a_command_is_done_journaled_and_looked_at(leading: Stage, run: Run, command: Command, call: str, said: str) -> None:
    assert await run(leading.hands, command) == said
    assert leading.service.calls == [call]
    assert leading.refreshed == ["service"]
    assert leading.hands.journal.unfinished() == ()
    lines = journal_text(leading)
    assert f'"command":"{type(command).__name__}"' in lines
    assert '"outcome":"done"' in lines
    assert f'"step":"{call.split(maxsplit=1)[0]}' in lines


@pytest.mark.parametrize(
    ("run", "command", "name"),
    [
        (service_runner.start, StartService(1), "start"),
        (service_runner.stop, StopService(1, "x"), "stop"),
        (service_runner.seal, SealService(1), "seal"),
    ],
)
async def test_a_failure_is_journaled_and_looked_at(leading: Stage, run: Run, command: Command, name: str) -> None:
    leading.service.errors[name] = ActionError("pg_ctl says no")
    with pytest.raises(ActionError, match="pg_ctl says no"):
        await run(leading.hands, command)
    assert leading.refreshed == ["service"]
    assert leading.hands.journal.unfinished() == ()
    assert '"outcome":"failed","sentence":"pg_ctl says no"' in journal_text(leading)


# ---------------------------------------------------------------------------------------------------- fence and stop


async def test_a_fence_kills_before_anything_is_written(leading: Stage) -> None:
    seen: list[str] = []
    real = leading.service.fence

    async def fence(guard: Guard) -> None:
        seen.append(journal_text(leading))
        await real(guard)

    leading.service.fence = fence  # type: ignore[method-assign]
    assert await service_runner.fence(leading.hands, FenceService(1, "it hangs")) == "fenced: it hangs; no process of it is left"
    assert seen == [""]
    assert '"command":"FenceService"' in journal_text(leading)
    assert leading.refreshed == ["service"]


async def test_a_fence_that_failed_is_none(leading: Stage) -> None:
    leading.service.errors["fence"] = ActionError("2 processes are left")
    with pytest.raises(ActionError, match="2 processes are left"):
        await service_runner.fence(leading.hands, FenceService(1, "x"))
    assert "release pg-main" not in leading.watchdog.calls
    assert leading.knowledge.fences.armed_epoch == 1


@pytest.mark.parametrize("fails", [False, True])
async def test_a_fence_closes_the_port_after_the_kill_whether_it_killed_or_not(leading: Stage, fails: bool) -> None:
    kernel, seen = leading.with_kernel(), list[list[str]]()
    real = leading.service.fence

    async def fence(guard: Guard) -> None:
        seen.append(list(kernel.calls))
        await real(guard)

    leading.service.fence = fence  # type: ignore[method-assign]
    if fails:
        leading.service.errors["fence"] = ActionError("2 processes are left")
    with contextlib.suppress(ActionError):
        await service_runner.fence(leading.hands, FenceService(1, "x"))
    assert (seen, kernel.calls, kernel.epoch) == ([[]], ["close"], None)


async def test_a_full_disk_does_not_undo_a_fence(full_disk: Stage) -> None:
    """Postgres may have died of the very same full disk: the proof that it is dead lets another member lead."""
    said = await service_runner.fence(full_disk.hands, FenceService(1, "it crashed"))
    assert said.startswith("fenced: it crashed")
    assert (full_disk.service.calls, full_disk.refreshed) == (["fence"], ["service"])


async def test_a_full_disk_stops_what_must_be_journaled_first(full_disk: Stage) -> None:
    with pytest.raises(StorageError, match="No space left"):
        await service_runner.start(full_disk.hands, StartService(1))
    assert full_disk.service.calls == []


@pytest.mark.parametrize(("run", "command"), [(service_runner.fence, FenceService(1, "x")), (service_runner.stop, StopService(1, "x"))])
async def test_what_is_proven_down_needs_no_deadline(leading: Stage, run: Run, command: Command) -> None:
    await run(leading.hands, command)
    fences = leading.knowledge.fences
    assert leading.watchdog.calls == ["release pg-main"]
    assert (fences.armed_epoch, fences.armed_deadline, fences.suspended) == (None, None, False)


async def test_a_watchdog_that_does_not_let_go_keeps_its_deadline(leading: Stage) -> None:
    leading.watchdog.error = "it may be writable"
    await service_runner.stop(leading.hands, StopService(1, "x"))
    assert leading.knowledge.fences.armed_epoch == 1
    leading.hands.watchdog = None
    await service_runner.fence(leading.hands, FenceService(1, "x"))


async def test_a_clean_stop_tells_where_it_ended(leading: Stage) -> None:
    await service_runner.stop(leading.hands, StopService(1, "x"))
    assert leading.knowledge.service.position == Position(1, 120)
    leading.service.stopped_at = None
    assert await service_runner.stop(leading.hands, StopService(1, "x")) == "stopped by force"


# ---------------------------------------------------------------------------------------------------- receiving


async def test_a_final_position_counts_for_its_epoch_until_it_receives_again(leading: Stage) -> None:
    await service_runner.stop_receiving(leading.hands, StopReceiving(3))
    assert leading.knowledge.stopped_for_epoch == leading.knowledge.service.stopped_for_epoch == 3
    await service_runner.follow(leading.hands, FollowLeader(3, "pg2"))
    assert leading.knowledge.service.stopped_for_epoch is None
    await service_runner.stop_receiving(leading.hands, StopReceiving(3))
    await service_runner.rejoin(leading.hands, RejoinService(3, "pg2", RejoinMode.REWIND))
    assert leading.knowledge.service.stopped_for_epoch is None


async def test_a_receiver_that_did_not_stop_gives_no_final_position(leading: Stage) -> None:
    leading.service.errors["stop_receiving"] = ActionError("it goes on")
    with pytest.raises(ActionError):
        await service_runner.stop_receiving(leading.hands, StopReceiving(3))
    assert leading.knowledge.stopped_for_epoch is None


async def test_a_follow_that_fails_gives_the_final_position_up_all_the_same(leading: Stage) -> None:
    leading.knowledge.stopped_for_epoch = 3
    leading.service.errors["follow pg2"] = ActionError("no")
    with pytest.raises(ActionError):
        await service_runner.follow(leading.hands, FollowLeader(3, "pg2"))
    assert leading.knowledge.stopped_for_epoch is None


# ---------------------------------------------------------------------------------------------------- promotion


async def test_a_promotion_is_on_the_disk_before_it_is_done(leading: Stage) -> None:
    noted: list[tuple[OwnPromotion, ...]] = []
    leading.service.at_step = lambda: noted.append(leading.folder.load(SPEC.name).own_promotions)
    assert await service_runner.promote(leading.hands, PROMOTE) == "promoted in epoch 1 to timeline 2"
    assert noted == [(OwnPromotion(1, 5),)], "above all that is known"
    assert leading.service.calls == ["promote ('pg2',) 1"]
    assert leading.knowledge.service.state is ServiceState.PRIMARY


async def test_what_the_timeline_became_is_kept(leading: Stage) -> None:
    await service_runner.promote(leading.hands, replace(PROMOTE, known_promotions=()))
    assert leading.folder.load(SPEC.name).own_promotions == (OwnPromotion(1, 2),)
    assert leading.knowledge.own_timelines == ((1, 2),)


async def test_without_the_lease_nothing_is_promoted(leading: Stage) -> None:
    leading.clock.shift_s += 1.5
    with pytest.raises(ActionTooLate, match="ran out"):
        await service_runner.promote(leading.hands, PROMOTE)
    assert leading.service.calls == []
    assert leading.folder.load(SPEC.name).own_promotions == ()
    assert '"outcome":"failed"' in journal_text(leading)


async def test_a_lease_that_ends_during_the_promotion_is_told(leading: Stage) -> None:
    def time_passes() -> None:
        leading.clock.shift_s += 1.5

    leading.service.at_step = time_passes
    with pytest.raises(ActionTooLate):
        await service_runner.promote(leading.hands, PROMOTE)
    assert leading.folder.load(SPEC.name).own_promotions == (OwnPromotion(1, 5),), "it may have happened"


async def test_commits_wait_for_nobody_new_without_the_lease(leading: Stage) -> None:
    leading.knowledge.tenure = None
    with pytest.raises(ActionTooLate):
        await service_runner.set_sync_names(leading.hands, SetSyncNames(1, ()))
    assert leading.service.calls == []
