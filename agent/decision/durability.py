"""Whose acknowledgement a commit waits for, in its simple form: one streaming standby is the set. Pure.

The set in the lease record is the promise (a member of it has every acknowledged write); `sync_names` of the service is the means.
Smaller: record first, then the service. Larger: the service first, the newcomer has flushed what was written after the setting took
effect, then the record. So at every instant: who is in the record's set has all that was ever acknowledged.

A taker therefore starts with an EMPTY set in the record, although its service already waits for a standby: that standby was perhaps in
no set before and may lack what earlier epochs acknowledged. (Schedule: old set {B}; B takes over with set {C}; B dies before C caught
up; C promotes: writes of the first epoch are lost.)

When is a standby gone? Postgres itself finds out only at wal_sender_timeout when a host dies without a word, 60 s by default, and until
then calls it streaming. So its replies are watched. A reply owed is WAL flushed here and not there; commits that wait are such. While one
is owed, each reply is a sign of life, whatever it says: a receiver answers each batch that it has written or flushed, so a slow disk, a
slow replay or a long catch-up is no silence. While nothing is owed nobody waits, and silence proves nothing. Whether a reply is new is
told by its stamp, compared for equality alone (it is the standby's clock); how long ago it came, by the own clock. A silence lasts only
as far as the last look: an agent that was held up concludes nothing from old facts. After sync_timeout of it the set shrinks, whether
Postgres has noticed or not; then the standby has to answer before it is waited for again, and so must every connection under its name:
the dead one's sender may still stand there, and Postgres would wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.coordination.lease import LeaseRecord
from agent.decision.view import Durability, GroupSpec, Replica, ServiceState, ServiceView
from agent.instant import Instant, holder_elapsed_s


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What should change next: the record's set, or the service's names; None: that one is right as it is."""

    record_set: tuple[str, ...] | None = None
    record_changes: bool = False
    names: tuple[str, ...] | None = None
    sentence: str = ""


NOTED_S = 1.0
"""A silence below this is an ordinary commit on a busy machine."""
UNANSWERED = (ServiceState.HUNG, ServiceState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class SyncWait:
    """Commits wait for `standbys`, none of which has shown life since `since`; from `until` on the set shrinks without them."""

    standbys: tuple[str, ...]
    since: Instant
    until: Instant

    @property
    def sentence(self) -> str:
        """For people, the same at each turn."""
        patience_s = holder_elapsed_s(self.since, self.until)
        return f"commits wait for {', '.join(self.standbys)}, silent so far: after {patience_s:g} s of silence the set shrinks"


def plan(group: GroupSpec, record: LeaseRecord, service: ServiceView, missing: Instant | None) -> SyncPlan:
    """The next single step towards the wanted set, for a holder whose service takes writes."""
    if group.durability is not Durability.SYNC:
        return _plan_async(record, service)
    if record.sync_set is None:
        return SyncPlan(
            record_set=(), record_changes=True, sentence="durability became sync: only the leader is eligible until a standby is in"
        )
    if record.sync_set:
        return _plan_kept(group, record.sync_set, service, missing)
    return _plan_grow(group, record.holder, service, missing)


def _plan_async(record: LeaseRecord, service: ServiceView) -> SyncPlan:
    if record.sync_set is not None:
        return SyncPlan(record_set=None, record_changes=True, sentence="durability became async")
    return SyncPlan(names=() if service.sync_names else None, sentence="no commit waits for a standby")


def _plan_kept(group: GroupSpec, wanted: tuple[str, ...], service: ServiceView, missing: Instant | None) -> SyncPlan:
    """A set stands. It shrinks, record first, when its standby has been away for sync_timeout."""
    if silence_s(missing, service) >= group.sync_timeout_s:
        return SyncPlan(record_set=(), record_changes=True, sentence=f"{', '.join(wanted)} shows no life: only the leader is eligible")
    return SyncPlan(names=wanted if service.sync_names != wanted else None, sentence="the service waits for the recorded set")


def _plan_grow(group: GroupSpec, holder: str, service: ServiceView, missing: Instant | None) -> SyncPlan:
    """The set is empty: have the service wait for the best streaming standby, then record it once it has everything."""
    best = best_replica(group, holder, service)
    if best is None:
        return _plan_alone(group, service, missing)
    if service.sync_names != (best.name,) or service.sync_effective_lsn is None:
        return SyncPlan(names=(best.name,), sentence=f"commits wait for {best.name} from now on")
    if best.is_sync and service.sync_effective_lsn is not None and best.flushed_lsn >= service.sync_effective_lsn:
        return SyncPlan(record_set=(best.name,), record_changes=True, sentence=f"{best.name} has every acknowledged write")
    return SyncPlan()


def _plan_alone(group: GroupSpec, service: ServiceView, missing: Instant | None) -> SyncPlan:
    """Nobody streams. A fresh leader gives the standby that it waits for sync_timeout to come before it goes on alone."""
    if service.sync_names and silence_s(missing, service) >= group.sync_timeout_s:
        return SyncPlan(names=(), sentence="no standby streams: the leader goes on alone, and only it is eligible")
    return SyncPlan()


def best_replica(group: GroupSpec, holder: str, service: ServiceView) -> Replica | None:
    """The live streaming member to wait for: the one already waited for, else by priority, then by flushed LSN, then by name."""
    dead = {r.name for r in service.replicas if r.streaming and (r.heard is None or silence_s(r.heard, service) >= group.sync_timeout_s)}
    live = [r for r in service.replicas if r.streaming and r.name in group.members and r.name not in {holder, *dead}]
    eligible = [r for r in live if not group.members[r.name].nofailover and group.members[r.name].priority > 0]
    key = {r.name: (r.name not in service.sync_names, -group.members[r.name].priority, -r.flushed_lsn, r.name) for r in eligible}
    return min(eligible, key=lambda r: key[r.name], default=None)


# ------------------------------------------------------------------ signs of life


def with_signs_of_life(before: ServiceView, seen: ServiceView, now: Instant) -> ServiceView:
    """The facts read at `now`, each standby with when it last showed life, from the facts read `before`.

    A look that got no answer tells nothing of the standbys: they stay as they were seen, so that the next one can be compared.
    """
    if seen.state in UNANSWERED:
        return replace(seen, replicas=before.replicas)
    knew = before.state is ServiceState.PRIMARY or bool(before.replicas)
    return replace(seen, replicas=tuple(_judged(r, before, seen, now, knew=knew) for r in seen.replicas))


def _judged(replica: Replica, before: ServiceView, seen: ServiceView, now: Instant, *, knew: bool) -> Replica:
    """What was owed at the look before, too, and has no reply since, is silence. A new connection is a sign of life.

    (What is owed since then only may be as young as this very look, however long ago the last one was.)
    """
    owes = seen.position is not None and replica.flushed_lsn < seen.position.lsn
    known = next((r for r in before.replicas if (r.name, r.sender) == (replica.name, replica.sender)), None)
    if known is None:
        return replace(replica, owes=owes, heard=now if knew or not owes else None)
    answered = (known.reply, known.flushed_lsn) != (replica.reply, replica.flushed_lsn)
    return replace(replica, owes=owes, heard=known.heard if owes and known.owes and not answered else now)


def missing_since(record: LeaseRecord, service: ServiceView, before: Instant | None, now: Instant) -> Instant | None:
    """Since when somebody that commits wait for, or that the record promises, shows no life; None: all do. `before`: what it was last."""
    silent = [_silent_since(name, service, before or now) for name in _needed(record, service)]
    return min((moment for moment in silent if moment is not None), key=lambda moment: moment.boot_ns, default=None)


def _needed(record: LeaseRecord, service: ServiceView) -> tuple[str, ...]:
    return tuple(sorted({*(record.sync_set or ()), *service.sync_names}))


def _silent_since(name: str, service: ServiceView, unknown: Instant) -> Instant | None:
    """None: the last look found a sign of life. Of several connections the worst counts: Postgres may wait for that one."""
    streaming = [r for r in service.replicas if r.streaming and r.name == name]
    if not streaming:
        return unknown
    silent = [r.heard or unknown for r in streaming if r.heard is None or r.heard != service.seen]
    return min(silent, key=lambda moment: moment.boot_ns, default=None)


def silence_s(since: Instant | None, service: ServiceView) -> float:
    """How long, as far as the last look at the service says."""
    return 0.0 if since is None or service.seen is None else max(0.0, holder_elapsed_s(since, service.seen))


def wait(group: GroupSpec, record: LeaseRecord, service: ServiceView, missing: Instant | None) -> SyncWait | None:
    """Whom the service's commits wait for in vain, once that is worth a word."""
    if missing is None or not service.sync_names or silence_s(missing, service) < NOTED_S:
        return None
    silent = tuple(name for name in _needed(record, service) if _silent_since(name, service, missing) is not None)
    return SyncWait(silent, missing, missing.after(group.sync_timeout_s))
