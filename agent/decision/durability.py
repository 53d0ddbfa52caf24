"""Whose acknowledgement a commit waits for, in its simple form: one streaming standby is the set. Pure.

The set in the lease record is the promise (a member of it has every acknowledged write); `sync_names` of the service is the means.
Smaller: record first, then the service. Larger: the service first, the newcomer has flushed what was written after the setting took
effect, then the record. So at every instant: who is in the record's set has all that was ever acknowledged.

A taker therefore starts with an EMPTY set in the record, although its service already waits for a standby: that standby was perhaps in
no set before and may lack what earlier epochs acknowledged. (Schedule: old set {B}; B takes over with set {C}; B dies before C caught
up; C promotes: writes of the first epoch are lost.)
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.coordination.lease import LeaseRecord
from agent.decision.view import Durability, GroupSpec, Replica, ServiceView
from agent.instant import Instant, holder_elapsed_s


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What should change next: the record's set, or the service's names; None: that one is right as it is."""

    record_set: tuple[str, ...] | None = None
    record_changes: bool = False
    names: tuple[str, ...] | None = None
    sentence: str = ""


def plan(group: GroupSpec, record: LeaseRecord, service: ServiceView, missing_since: Instant | None, now: Instant) -> SyncPlan:
    """The next single step towards the wanted set, for a holder whose service takes writes."""
    if group.durability is not Durability.SYNC:
        return _plan_async(record, service)
    if record.sync_set is None:
        return SyncPlan(
            record_set=(), record_changes=True, sentence="durability became sync: only the leader is eligible until a standby is in"
        )
    if record.sync_set:
        return _plan_kept(group, record.sync_set, service, missing_since, now)
    return _plan_grow(group, record.holder, service, missing_since, now)


def _plan_async(record: LeaseRecord, service: ServiceView) -> SyncPlan:
    if record.sync_set is not None:
        return SyncPlan(record_set=None, record_changes=True, sentence="durability became async")
    return SyncPlan(names=() if service.sync_names else None, sentence="no commit waits for a standby")


def _plan_kept(group: GroupSpec, wanted: tuple[str, ...], service: ServiceView, missing_since: Instant | None, now: Instant) -> SyncPlan:
    """A set stands. It shrinks, record first, when its standby has been away for sync_timeout."""
    if missing_since is not None and holder_elapsed_s(missing_since, now) >= group.sync_timeout_s:
        return SyncPlan(record_set=(), record_changes=True, sentence=f"{', '.join(wanted)} streams no more: only the leader is eligible")
    return SyncPlan(names=wanted if service.sync_names != wanted else None, sentence="the service waits for the recorded set")


def _plan_grow(group: GroupSpec, holder: str, service: ServiceView, missing_since: Instant | None, now: Instant) -> SyncPlan:
    """The set is empty: have the service wait for the best streaming standby, then record it once it has everything."""
    best = best_replica(group, holder, service)
    if best is None:
        return _plan_alone(group, service, missing_since, now)
    if service.sync_names != (best.name,) or service.sync_effective_lsn is None:
        return SyncPlan(names=(best.name,), sentence=f"commits wait for {best.name} from now on")
    if best.is_sync and service.sync_effective_lsn is not None and best.flushed_lsn >= service.sync_effective_lsn:
        return SyncPlan(record_set=(best.name,), record_changes=True, sentence=f"{best.name} has every acknowledged write")
    return SyncPlan()


def _plan_alone(group: GroupSpec, service: ServiceView, missing_since: Instant | None, now: Instant) -> SyncPlan:
    """Nobody streams. A fresh leader gives the standby that it waits for sync_timeout to come before it goes on alone."""
    waited = missing_since is not None and holder_elapsed_s(missing_since, now) >= group.sync_timeout_s
    if service.sync_names and waited:
        return SyncPlan(names=(), sentence="no standby streams: the leader goes on alone, and only it is eligible")
    return SyncPlan()


def best_replica(group: GroupSpec, holder: str, service: ServiceView) -> Replica | None:
    """The streaming member to wait for: the one already waited for, else by priority, then by flushed LSN, then by name."""
    streaming = [r for r in service.replicas if r.streaming and r.name in group.members and r.name != holder]
    eligible = [r for r in streaming if not group.members[r.name].nofailover and group.members[r.name].priority > 0]
    key = {r.name: (r.name not in service.sync_names, -group.members[r.name].priority, -r.flushed_lsn, r.name) for r in eligible}
    return min(eligible, key=lambda r: key[r.name], default=None)


def is_missing(record: LeaseRecord, service: ServiceView) -> bool:
    """Whether somebody that commits wait for, or that the record promises, does not stream right now."""
    streaming = {r.name for r in service.replicas if r.streaming}
    return not {*(record.sync_set or ()), *service.sync_names} <= streaming
