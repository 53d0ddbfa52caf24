"""The groups that are guarded: each turn fences what is due, then looks after what is held.

The order is the point: kill first, answer and speak afterwards. A fence is a blow a turn, not a loop of its own, so one group whose
processes will not end never delays another group's deadline. deadline.py says what is right, process.py kills, evidence.py sees.

The service's port needs nothing from here: its lease in the packet filter, where that layer stands, expires by itself at the same deadline.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from agent.watchdog import deadline as rules
from agent.watchdog.address import remove_address
from agent.watchdog.deadline import NANOSECONDS, Deadline, GroupState, Moment, Refusal, Target
from agent.watchdog.evidence import is_writable, lock_holder_lives, says_production
from agent.watchdog.host import moment
from agent.watchdog.process import strike
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
    Report,
    Suspend,
)

MILLISECOND_NS = 1_000_000
BLOW_NS = 2 * MILLISECOND_NS
"""Between two blows of one fence: a killed process needs about a millisecond to be gone."""
PATIENT_BLOW_NS = 50 * MILLISECOND_NS
"""The same once fence_budget is used up: the kernel cannot end something; striking faster would not help."""
LOOK_NS = 75 * MILLISECOND_NS
"""Between two looks at a held service: a wake-up costs a quarter of a millisecond, and all of them less than 0.5 % of a core."""
SLOW_LOOK_NS = 250 * MILLISECOND_NS
"""The same while nothing runs (its start takes longer than that), or while it cannot be told what does (which costs a scan of /proc)."""
SCAN_NS = NANOSECONDS
"""Between two full scans of a held service whose lock file names nobody alive."""


class Fence(NamedTuple):
    """A fence under way."""

    began: Moment
    cause: str
    killed: frozenset[int] = frozenset()
    left: int = 0
    clean_looks: int = 0
    """Two in a row are the proof: one may miss a child whose parent was just ending."""
    next_blow_ns: int = 0
    is_patient: bool = False
    """fence_budget is used up."""


class Watch:
    """One group: what is right (`state`), and what is going on."""

    def __init__(self, target: Target) -> None:
        self.state = GroupState(target)
        self.fence: Fence | None = None
        self.last = Fenced(0, 0)
        self.fences = 0
        self.last_fence_ms = 0.0
        self.next_look_ns = 0
        self.next_scan_ns = 0
        self.refused = ""
        """Why the kernel last kept an address; said once."""


class Guard:
    """All groups. `say`: where its lines for people go; `keep`: makes the list of groups durable, or raises OSError."""

    def __init__(self, say: Callable[[str], None], keep: Callable[[dict[str, Target]], None]) -> None:
        self._say = say
        self._keep = keep
        self._watches: dict[str, Watch] = {}

    # ------------------------------------------------------------------ what the agent asks

    def remember(self, groups: dict[str, Target]) -> None:
        """Hold these from now on: they were registered in an earlier life."""
        self._watches = {group: Watch(target) for group, target in groups.items()}

    def register(self, request: Register) -> Answer:
        """Guard a service. Another target, or a target that another group has, only when the old one is idle."""
        target = Target(request.data_dir, request.uid, request.fence_budget_s, request.addresses)
        watch = self._watches.get(request.group)
        if watch is not None and watch.state.target == target:
            return Done()
        others = [name for name, other in self._watches.items() if name != request.group and _same_place(other.state.target, target)]
        moved = watch is not None and watch.state.target[:2] != target[:2]
        given_up = [*others, request.group] if moved else others
        if not all(rules.is_idle(self._watches[name].state) for name in given_up):
            return _refused(Refusal.ARMED)
        if watch is None and len(self._watches) - len(others) >= MOST_GROUPS:
            return _refused(Refusal.TOO_MANY)
        return self._guard_from_now(request.group, target, others, fresh=moved or watch is None)

    def _guard_from_now(self, group: str, target: Target, others: list[str], *, fresh: bool) -> Answer:
        kept = {name: watch.state.target for name, watch in self._watches.items() if name not in others} | {group: target}
        try:
            self._keep(kept)
        except OSError:
            return _refused(Refusal.NOT_KEPT)
        for name in others:
            del self._watches[name]
        if fresh:
            self._watches[group] = Watch(target)
        watch = self._watches[group]
        watch.state = watch.state._replace(target=target)
        return Done()

    def hand_over(self, request: HandOver) -> Answer:
        """Arm or move a deadline, whichever fits by the rules."""
        watch = self._watches.get(request.group)
        if watch is None:
            return _refused(Refusal.UNKNOWN_GROUP)
        new = Deadline(request.epoch, Moment(request.boot_ns, request.raw_ns), request.nonce)
        proven = rules.needs_proof(watch.state, new.epoch) and _proven_not_writable(watch.state.target)
        result = rules.hand_over(watch.state, new, moment(), proven_not_writable=proven)
        if isinstance(result, Refusal):
            return _refused(result)
        watch.state = result
        return Acknowledged(new.epoch, new.at.boot_ns, new.at.raw_ns, new.nonce)

    def suspend(self, request: Suspend) -> Answer:
        """Begin a pause."""
        watch = self._watches.get(request.group)
        if watch is None:
            return _refused(Refusal.UNKNOWN_GROUP)
        return self._take(watch, rules.suspend(watch.state, request.epoch, moment()))

    def release(self, request: Release) -> Answer:
        """Disarm a service that is proven not writable; it is held from now on."""
        watch = self._watches.get(request.group)
        if watch is None:
            return _refused(Refusal.UNKNOWN_GROUP)
        proven = _proven_not_writable(watch.state.target)
        return self._take(watch, rules.disarm(watch.state, moment(), proven_not_writable=proven))

    @staticmethod
    def _take(watch: Watch, result: GroupState | Refusal) -> Answer:
        if isinstance(result, Refusal):
            return _refused(result)
        watch.state = result
        return Done()

    def fence_now(self, group: str) -> Refused | None:
        """Begin a fence; `fenced` says how it goes."""
        watch = self._watches.get(group)
        if watch is None:
            return _refused(Refusal.UNKNOWN_GROUP)
        if not watch.state.latched:
            watch.state = rules.demand_fence(watch.state)
            self._strike(watch, "the agent asked for it")
        return None

    def fenced(self, group: str, now: Moment) -> Fenced | None:
        """How the group's fence ended, once it is proven or has used up its fence_budget; None: not yet."""
        watch = self._watches.get(group)
        if watch is None or watch.fence is None:
            return Fenced(0, 0) if watch is None else watch.last
        used_up = now.raw_ns - watch.fence.began.raw_ns >= watch.state.target.fence_budget_s * NANOSECONDS
        return Fenced(watch.fence.left, len(watch.fence.killed)) if used_up else None

    def report_on(self, group: str) -> Answer:
        """What is armed in this group."""
        watch = self._watches.get(group)
        return _refused(Refusal.UNKNOWN_GROUP) if watch is None else _report(group, watch)

    def report(self) -> Report:
        """What is armed in all groups."""
        return Report(tuple(_report(group, watch) for group, watch in self._watches.items()))

    # ------------------------------------------------------------------ what is done without being asked

    def turn(self) -> None:
        """Fence what is due, in all groups, before anything else; then look after what is held."""
        now = moment()
        for watch in self._watches.values():
            watch.state = rules.expire(watch.state, now)
            if watch.state.latched:
                self._strike(watch, "the deadline passed")
        for group, watch in self._watches.items():
            self._finish(group, watch)
            if watch.fence is not None and watch.fence.is_patient:  # what will not die must not be reached by its address
                self._take_addresses(group, watch)
        for watch in self._watches.values():
            if rules.must_hold(watch.state, now) and not watch.state.latched:
                self._look(watch, now)

    def _strike(self, watch: Watch, cause: str) -> None:
        """One blow, if it is time for one."""
        now = moment()
        fence = watch.fence or Fence(now, cause)
        if now.raw_ns < fence.next_blow_ns:
            return
        target = watch.state.target
        try:
            seen, proof = strike(target.data_dir, target.uid), 1
        except (OSError, MemoryError):
            seen, proof = (), 0  # /proc could not be read (no memory, no descriptor): nothing is proven, strike again
        patient = now.raw_ns - fence.began.raw_ns > target.fence_budget_s * NANOSECONDS
        watch.fence = fence._replace(
            killed=fence.killed.union(seen),
            left=len(seen),
            clean_looks=0 if seen else fence.clean_looks + proof,
            next_blow_ns=moment().raw_ns + (PATIENT_BLOW_NS if patient else BLOW_NS),
            is_patient=patient,
        )

    def _finish(self, group: str, watch: Watch) -> None:
        """Open the latch once the tree was seen dead, and only then speak."""
        fence = watch.fence
        if fence is None or fence.clean_looks < 2:
            return
        took_ms = (moment().raw_ns - fence.began.raw_ns) / MILLISECOND_NS
        epoch = watch.state.deadline.epoch if watch.state.deadline else watch.state.highest_epoch
        self._take_addresses(group, watch)
        watch.state = rules.prove_fenced(watch.state)
        watch.fence = None
        watch.last = Fenced(0, len(fence.killed))
        watch.last_fence_ms = took_ms
        watch.fences += 1
        if watch.fences <= 10 or watch.fences & (watch.fences - 1) == 0:  # a service that is started again and again must not fill the log
            self._say(
                f"fenced {group} ({fence.cause}; epoch {epoch}): {len(fence.killed)} processes in {took_ms:.1f} ms, fence {watch.fences}"
            )

    def _take_addresses(self, group: str, watch: Watch) -> None:
        """After the kill: what the dying processes say to their clients leaves with that address."""
        for address in watch.state.target.addresses:
            refused = remove_address(address)
            if refused and refused != watch.refused:
                self._say(f"{group}: {refused}; it falls by its own lifetime, if the agent gave it one")
            watch.refused = refused

    def _look(self, watch: Watch, now: Moment) -> None:
        """Fence a held service if it is writable. A standby never is."""
        if now.raw_ns < watch.next_look_ns:
            return
        watch.next_look_ns = now.raw_ns + LOOK_NS
        target = watch.state.target
        if not says_production(target.data_dir):
            return
        if not lock_holder_lives(target.data_dir, target.uid):
            watch.next_look_ns = now.raw_ns + SLOW_LOOK_NS
            if now.raw_ns < watch.next_scan_ns:
                return
        watch.next_scan_ns = now.raw_ns + SCAN_NS
        writable = is_writable(target.data_dir, target.uid)
        if writable:
            watch.state = rules.demand_fence(watch.state)
            self._strike(watch, "it was writable without a valid deadline")
        elif writable is None:
            watch.next_look_ns = now.raw_ns + SLOW_LOOK_NS

    def wait_ns(self, now: Moment) -> int:
        """How long nothing will have to be done, at most a second. The wait stops in suspend, so never over a quarter of fence_budget."""
        return max(0, min((_wait_ns(watch, now) for watch in self._watches.values()), default=NANOSECONDS))

    def is_needed(self) -> str:
        """Why the watchdog must not end now, as a sentence; empty: it may. A deadline over a writable service, or a fence under way."""
        for group, watch in self._watches.items():
            if watch.state.latched:
                return f"{group} is being fenced"
            if watch.state.deadline is not None and not watch.state.suspended and not _proven_not_writable(watch.state.target):
                return f"{group} is writable under the deadline of epoch {watch.state.deadline.epoch}"
        return ""

    def is_idle(self) -> bool:
        """Whether nothing is armed, paused or being fenced."""
        return all(rules.is_idle(watch.state) for watch in self._watches.values())


def _wait_ns(watch: Watch, now: Moment) -> int:
    state = watch.state
    if state.latched:
        return watch.fence.next_blow_ns - now.raw_ns if watch.fence else 0
    if rules.must_hold(state, now):
        return watch.next_look_ns - now.raw_ns
    if state.deadline is None or state.suspended:
        return NANOSECONDS
    tick_ns = int(state.target.fence_budget_s * NANOSECONDS / 4)
    return min(NANOSECONDS, tick_ns, rules.left_ns(state.deadline.at, now))


def _same_place(one: Target, other: Target) -> bool:
    return os.path.realpath(one.data_dir) == os.path.realpath(other.data_dir)


def _proven_not_writable(target: Target) -> bool:
    return is_writable(target.data_dir, target.uid) is False


def _refused(refusal: Refusal) -> Refused:
    return Refused(refusal.name.lower(), refusal.value)


def _report(group: str, watch: Watch) -> GroupReport:
    state = watch.state
    phase = "fencing" if state.latched else "paused" if state.suspended else "held" if state.deadline is None else "armed"
    epoch, at, nonce = state.deadline or Deadline(0, Moment(0, 0), "")
    target = state.target
    return GroupReport(
        group=group,
        data_dir=target.data_dir,
        uid=target.uid,
        fence_budget_s=target.fence_budget_s,
        phase=phase,
        epoch=epoch,
        boot_ns=at.boot_ns,
        raw_ns=at.raw_ns,
        nonce=nonce,
        highest_epoch=state.highest_epoch,
        fences=watch.fences,
        last_fence_ms=round(watch.last_fence_ms, 3),
    )
