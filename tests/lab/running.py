"""One run of a scenario: bring the lab up, do the steps at their times, read everything back, judge it."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import faults, measures
from tests.lab.lab import Lab, Say, without
from tests.lab.measures import Samples
from tests.lab.network import LabFailed
from tests.lab.scenario import FENCES, Scenario, Step
from tests.lab.watching import Said
from tests.lab.wire import now_ns

BLIND_S_MAX = 1.0
READ_BACK_TIMEOUT_S = 30.0
WATCH_S = 0.25
SETTLE_S = 15.0
"""A member that comes back rewinds or copies; on a busy machine that takes its time, which is nobody's outage."""


@dataclass
class Outcome:
    """What a run prints last. Times in seconds; `at_s` of the timeline counts from the first step's zero. None: could not be told."""

    scenario: str
    ok: bool = False
    failed: list[str] = field(default_factory=list)
    outage_s: float = 0.0
    acknowledged: int = 0
    acknowledged_lost: int | None = None
    writable_overlap_s: float = 0.0
    writable_locally_s: float = 0.0
    fenced_after_s: float | None = None
    blind_s: float = 0.0
    leader_changes: int = 0
    all_streaming: bool = False
    consul_outage_s: float = 0.0
    timeline: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run(scenario: Scenario, name: str, say: Say, keep: threading.Event | None = None, logs: Path | None = None) -> Outcome:
    """Run it whole. `keep`: the lab stays up afterwards until it is set; `logs`: where all logs are copied. Raises LabFailed."""
    with Lab(scenario, say) as lab:
        try:
            lab.start()
            zero_ns = now_ns()
            first_ns = _do_steps(lab, zero_ns)
            outcome = _read_back(lab, name, zero_ns, first_ns or zero_ns)
        finally:
            if logs is not None:
                lab.save_logs(logs)
        if keep is not None:
            _keep(lab, outcome, keep)
        return outcome


def _keep(lab: Lab, outcome: Outcome, until: threading.Event) -> None:
    """Ctrl-C ends it, and the outcome is printed as ever."""
    lab.say("ok" if outcome.ok else f"FAILED: {'; '.join(outcome.failed)}")
    lab.say(f"kept: {lab.folder}; enter a host with: nsenter -t PID -n -m -p -i -u")
    for host in lab.network.hosts.values():
        lab.say(f"  {host.name}: {host.space.pid if host.is_up else 'down'}")
    with contextlib.suppress(KeyboardInterrupt):
        until.wait()


def _do_steps(lab: Lab, zero_ns: int) -> int | None:
    """Do each step at its time and wait for the end; when the first one was done."""
    first_ns: int | None = None
    running: list[threading.Thread] = []
    for step in lab.scenario.ordered_steps:
        _sleep_until(lab, zero_ns, step.at)
        first_ns = first_ns or now_ns()
        if step.fault is None:  # a command takes its time; the next step does not wait for it
            running.append(threading.Thread(target=_do, args=(lab, step), daemon=True))
            running[-1].start()
        else:
            _do(lab, step)
    _sleep_until(lab, zero_ns, lab.scenario.until_s)
    for thread in running:
        thread.join(faults.COMMAND_TIMEOUT_S)
    return first_ns


def _do(lab: Lab, step: Step) -> None:
    lab.progress(f"step: {step.name}")
    began_ns = now_ns()
    if step.fault in FENCES:
        lab.suspect = (lab.leader(), began_ns)
    sentence = faults.do(lab, step)
    lab.said.append(Said(began_ns, f"step: {sentence}"))


def _sleep_until(lab: Lab, zero_ns: int, at_s: float) -> None:
    end_ns = zero_ns + int(at_s * 1e9)
    while (left_s := (end_ns - now_ns()) / 1e9) > 0:
        lab.client.check()
        time.sleep(min(left_s, WATCH_S))


def _read_back(lab: Lab, name: str, zero_ns: int, first_ns: int) -> Outcome:
    end_ns = now_ns()
    outcome = Outcome(name, all_streaming=_settles(lab))
    lab.client.stop()
    ledger, samples = lab.client.ledger(), lab.client.samples()
    outcome.outage_s = round(measures.outage_s(ledger, first_ns, end_ns), 3)
    outcome.acknowledged = len(ledger)
    outcome.acknowledged_lost = _count_lost(lab, ledger)
    outcome.writable_overlap_s = round(measures.overlap_s(samples), 3)
    outcome.writable_locally_s = round(measures.writable_locally_s(samples, _local_samples(lab), first_ns, end_ns), 3)
    if lab.suspect is not None:
        outcome.fenced_after_s = measures.fenced_after_s(samples, *lab.suspect, end_ns)
    outcome.blind_s = round(measures.blind_s(samples), 3)
    outcome.leader_changes = measures.leader_changes(lab.observer.holders)
    outcome.consul_outage_s = round(measures.longest_without_s(lab.observer.consul_takes_writes, first_ns, end_ns), 3)
    outcome.timeline = _timeline(lab, samples, zero_ns)
    outcome.failed = judge(lab.scenario, outcome)
    outcome.ok = not outcome.failed
    return outcome


def _settles(lab: Lab) -> bool:
    """Whether every other member streams from one primary; where that is expected it has SETTLE_S more, which no other figure counts."""
    deadline_ns = now_ns() + int(SETTLE_S * 1e9) if lab.scenario.expect.all_streaming else 0
    while not (streaming := lab.all_streaming()) and now_ns() < deadline_ns:
        time.sleep(WATCH_S)
    return streaming


def _count_lost(lab: Lab, ledger: list[measures.Acknowledged]) -> int | None:
    primary = lab.primary()
    rows = primary.psql("SELECT id FROM lab_ledger", READ_BACK_TIMEOUT_S) if primary is not None else None
    if rows is None:
        return None
    return len(measures.lost(ledger, frozenset(int(row) for row in rows.split())))


def _local_samples(lab: Lab) -> Samples:
    texts = [file.read_text(encoding="utf-8") for host in lab.members() if (file := host.folder / "local" / "samples").exists()]
    return measures.read_samples("".join(text[: text.rfind("\n") + 1] for text in texts))


def _timeline(lab: Lab, samples: Samples, zero_ns: int) -> list[dict[str, Any]]:
    said = [*lab.said, *lab.observer.said, *lab.client.notes()]
    for member, spans in samples.spans.items():
        for span in spans:
            said.append(Said(span.first_answered_ns, f"{member} takes writes"))
            said.append(Said(span.last_answered_ns, f"{member} took its last write"))
    return [{"at_s": round((each.at_ns - zero_ns) / 1e9, 3), "what": each.what} for each in without(said, zero_ns)]


def judge(scenario: Scenario, outcome: Outcome) -> list[str]:
    """One sentence for each expectation that does not hold. Pure."""
    expect = scenario.expect
    over_consul_s = round(outcome.outage_s - outcome.consul_outage_s, 3)
    most = (
        ("outage_s", outcome.outage_s, expect.outage_s_max),
        ("outage_s over Consul's own", over_consul_s, expect.outage_s_over_consul_max),
        ("acknowledged_lost", outcome.acknowledged_lost, expect.acknowledged_lost_max),
        ("writable_overlap_s", outcome.writable_overlap_s, expect.writable_overlap_s_max),
        ("writable_locally_s", outcome.writable_locally_s, expect.writable_locally_s_max),
        ("leader_changes", outcome.leader_changes, expect.leader_changes_max),
        ("blind_s", outcome.blind_s, BLIND_S_MAX),
    )
    failed = []
    for what, value, limit in most:
        if limit is not None and value is None:
            failed.append(f"{what}: cannot be told, there is no one primary at the end; at most {limit:g} expected")
        elif limit is not None and value is not None and value > limit:
            failed.append(f"{what}: {value:g}, at most {limit:g} expected")
    if expect.fenced_after_s_max is not None and (outcome.fenced_after_s is None or outcome.fenced_after_s > expect.fenced_after_s_max):
        failed.append(f"fenced_after_s: {outcome.fenced_after_s}, at most {expect.fenced_after_s_max:g} expected")
    if expect.outage_s_min is not None and outcome.outage_s < expect.outage_s_min:
        failed.append(f"outage_s: {outcome.outage_s:g}, at least {expect.outage_s_min:g} expected")
    if expect.leader_changes is not None and outcome.leader_changes != expect.leader_changes:
        failed.append(f"leader_changes: {outcome.leader_changes}, {expect.leader_changes} expected")
    if expect.all_streaming is not None and outcome.all_streaming != expect.all_streaming:
        failed.append(f"all_streaming: {outcome.all_streaming}, {expect.all_streaming} expected")
    if outcome.acknowledged == 0:
        failed.append("acknowledged: 0, the writer never succeeded")
    return failed


__all__ = ["LabFailed", "Outcome", "judge", "run"]
