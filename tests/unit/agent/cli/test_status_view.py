from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from agent.cli.status_view import render
from agent.decision.view import FenceLayer
from agent.reporting.status import GroupStatus, IntentStatus, StatusDocument, SyncWaitStatus
from tests.unit.agent.reporting.samples import document


def text(shown: StatusDocument, only: str | None = None) -> str:
    screen = Console(width=200, markup=False, color_system=None, emoji=False)
    with screen.capture() as captured:
        screen.print(render(shown, only))
    return captured.get()


def changed(**changes: object) -> StatusDocument:
    group: GroupStatus = replace(document().groups[0], **changes)  # type: ignore[arg-type]
    return replace(document(), groups=(group,))


def test_one_screen_tells_all() -> None:
    lines = text(document()).splitlines()
    assert lines[0] == "node pg1, quorate 0.1.0, coordination answers: a file on this host"
    assert "pg-main  leading  Renew when it is due." in lines
    assert "  leader pg1, epoch 3, lease 3.5 s left, votes down 0 of 2 needed, fences seal+watchdog, sync (pg2)" in lines
    assert any(line.split()[:6] == ["pg2", "standby", "standby", "2/0/3000100", "72", "B"] for line in lines)
    assert any(line.startswith("pg-alive") for line in lines)
    assert len(lines) < 25


def test_only_one_group_without_the_checks() -> None:
    assert "pg-alive" not in text(document(), "pg-main")
    assert "leader pg1" not in text(document(), "other")


def test_what_is_wrong_stands_out() -> None:
    paused = text(changed(paused=True, blocking=("the group is paused", "no member could take over"), failover_possible=False))
    assert "  ! paused: nobody takes over" in paused
    assert "  ! no failover now: no member could take over" in paused
    assert paused.count("the group is paused") == 0, "said once"
    fences = replace(document().groups[0].fences, standing=(), refused="its deadline passed")
    unfenced = text(changed(fences=fences))
    assert "  ! fences that must stand and do not: seal, watchdog" in unfenced
    assert "  ! the watchdog refused: its deadline passed" in unfenced
    blind = replace(document(), coordination=replace(document().coordination, up=False))
    assert "DOES NOT ANSWER" in text(blind)


def test_a_host_that_cannot_lease_its_port_says_why() -> None:
    without = replace(document().groups[0].fences, kernel_problem="no right")
    assert "fences seal+watchdog (no kernel lease: no right)" in " ".join(text(changed(fences=without)).split())
    assert "  ! the port is not leased" not in text(changed(fences=without)), "auto goes without it"
    required = replace(without, required=(FenceLayer.KERNEL,))
    assert "  ! the port is not leased to the kernel: no right" in text(changed(fences=required))


def test_for_whom_commits_wait_is_said_by_name() -> None:
    assert "commits wait" not in text(document())
    waits = text(changed(sync_wait=SyncWaitStatus(("pg2",), 1.44, 1.56)))
    assert "  ! commits wait for pg2, silent for 1.4 s: the set shrinks in 1.6 s" in waits
    late = text(changed(sync_wait=SyncWaitStatus(("pg2", "pg3"), 7.0, 0.0)))
    assert "  ! commits wait for pg2, pg3, silent for 7.0 s: the set shrinks as soon as the coordinator commits that" in late


def test_what_is_not_known_is_a_dash() -> None:
    unknown = text(changed(leader=None, epoch=None, lease_remaining_s=None, lease_moved_s=None, votes_needed=None, sync_set=None))
    assert "leader nobody, epoch -, no lease seen, votes down 0 of - needed" in unknown
    assert "lease moved 0.3 s ago" in text(changed(lease_remaining_s=None))


def test_data_is_no_markup() -> None:
    intent = IntentStatus("i1", "switchover", "pg2", "anna [red]", "[/] :smile:", 2.0)
    assert "  wanted: switchover to pg2 by anna [red] for 2 s: [/] :smile:" in text(changed(intents=(intent,), sentence="[bold]x[/bold]"))
    assert "[bold]x[/bold]" in text(changed(sentence="[bold]x[/bold]"))
