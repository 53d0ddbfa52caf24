"""Refuses pictures that cannot be: so that no scenario proves nonsense. Each objection is one sentence; none means that it can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.coordination.lease import LeaseState
from agent.decision.command import FenceService
from agent.decision.view import ServiceState, View
from agent.instant import Instant

LIVE = (ServiceState.STANDBY, ServiceState.PRIMARY)


def objections(view: View, now: Instant) -> list[str]:
    """Everything in the view that cannot be at `now`."""
    return [sentence for part in _PARTS for sentence in part(view, now)]


def _lease(view: View, _: Instant) -> Iterator[str]:
    lease, record = view.lease, view.lease.record
    if record is not None and (not lease.exists or lease.entry is None or lease.sight is None):
        yield "a record that was read has an entry and a sight"
    if not lease.exists and lease.entry is not None:
        yield "an absent key has no entry"
    if record is None:
        return
    if record.state is LeaseState.VACATED and lease.entry is not None and lease.entry.session is not None:
        yield "a give-up unlocks in the same transaction"
    if record.state is LeaseState.HELD and record.heir is not None:
        yield "only a vacated record names an heir"
    if not 1 <= record.votes_needed <= len(record.voters):
        yield "the votes needed are some of the voters"
    if record.sync_set is not None and record.holder in record.sync_set:
        yield "the holder is not in its own sync set"
    if view.highest_epoch < record.epoch and not view.coordination.went_back:
        yield "a record that was read raises the highest epoch on disk"
    if view.highest_epoch > record.epoch and not view.coordination.went_back:
        yield "a record below the highest epoch on disk means that coordination went back"


def _tenure(view: View, now: Instant) -> Iterator[str]:
    tenure, record = view.tenure, view.lease.record
    if tenure is None:
        return
    if tenure.record.holder != view.node:
        yield "the own tenure names this node"
    if view.highest_epoch < tenure.epoch:
        yield "the own tenure is of an epoch that this node's disk knows"
    if not view.lease.exists and view.highest_epoch == 0:
        yield "a tenure without any record: the group was never formed"
    if record is not None and (record.holder, record.epoch) != (tenure.record.holder, tenure.epoch) and not view.coordination.went_back:
        yield "a tenure ends when another holder or epoch is read"
    if record is not None and record.state is LeaseState.VACATED:
        yield "a tenure ends when its give-up is read"
    if tenure.dated is None and any(a.sent.boot_ns > now.boot_ns for a in tenure.attempts):
        yield "an attempt was sent in the future"
    if view.node not in view.group.members:
        yield "a witness holds no lease"


def _service(view: View, _: Instant) -> Iterator[str]:
    service = view.service
    if service.state is ServiceState.PRIMARY and (service.upstream is not None or service.receiving):
        yield "a service that takes writes receives from nobody"
    if service.receiving and service.upstream is None:
        yield "who receives has an upstream"
    if service.receiving and service.state not in LIVE:
        yield "only a live standby receives"
    if service.state in LIVE and service.initialised and service.position is None:
        yield "a service that answers has a position"
    if not service.initialised and service.state not in (ServiceState.DOWN, ServiceState.UNKNOWN):
        yield "without data nothing runs"
    if service.stopped_for_epoch is not None and (service.receiving or service.state is not ServiceState.STANDBY):
        yield "a final position is that of a standby which receives no more"
    if view.node not in view.group.members and service.state is not ServiceState.UNKNOWN:
        yield "a witness runs no service"
    if view.node in view.group.members and view.node in view.members and view.members[view.node].state is not service.state:
        yield "the own member is shown as the service is"


def _fences(view: View, _: Instant) -> Iterator[str]:
    fences = view.fences
    if (fences.armed_epoch is None) != (fences.armed_deadline is None):
        yield "an armed epoch has a deadline"
    if fences.armed_epoch is not None and fences.armed_epoch > view.highest_epoch:
        yield "no epoch is armed that this node's disk does not know"


def _times(view: View, now: Instant) -> Iterator[str]:
    past: dict[str, Instant | None] = {
        "the last reading": view.coordination.answered,
        "the sight of the lease": None if view.lease.sight is None else view.lease.sight.since,
        "the look at the service": view.service.seen,
        "the state of the service": view.service.since,
        "the renewal": None if view.tenure is None else view.tenure.dated,
        "the observation": None if view.observation is None else view.observation.asked,
    }
    past["the promises"] = None if view.tenure is None else view.tenure.promised
    past["the last round of questions"] = None if view.tenure is None else view.tenure.asked
    past["the promise given"] = None if view.promise is None else view.promise.since
    past |= {f"the heartbeat of {name}": member.moved for name, member in view.members.items()}
    past |= {f"the end of {name}": outcome.ended for name, outcome in view.outcomes.items()}
    past |= {f"the sight of intent {intent.identity}": intent.seen for intent in view.intents}
    past |= {f"the start of {type(f.command).__name__}": f.since for f in view.in_flight}
    for what, moment in past.items():
        if moment is not None and (moment.boot_ns > now.boot_ns or moment.raw_ns > now.raw_ns):
            yield f"{what} is in the future"


def _commands(view: View, _: Instant) -> Iterator[str]:
    resources = [f.command.resource for f in view.in_flight if not isinstance(f.command, FenceService)]
    if len(resources) != len(set(resources)):
        yield "two commands at once on one resource"
    for name, outcome in view.outcomes.items():
        if outcome.ok and outcome.failures:
            yield f"{name} succeeded last and yet failed in a row"
        if not outcome.ok and not outcome.failures:
            yield f"{name} failed last and yet never failed"


def _promises(view: View, _: Instant) -> Iterator[str]:
    promise, record = view.promise, view.lease.record
    if promise is None or promise.epoch is None:
        return
    if promise.epoch > view.highest_epoch:
        yield "a promise raises the highest epoch on disk"
    given_up = record is not None and record.state is LeaseState.VACATED and record.epoch == promise.epoch
    if given_up and not view.coordination.went_back:
        yield "a give-up of the promised epoch that is read ends the promise"


def _votes(view: View, _: Instant) -> Iterator[str]:
    for voter, vote in view.votes.items():
        if vote.epoch > view.highest_epoch:
            yield f"{voter} votes in an epoch that nobody has begun"
    if view.observation is not None and view.observation.node == view.node:
        yield "nobody observes itself from outside"


_PARTS: tuple[Callable[[View, Instant], Iterator[str]], ...] = (_lease, _tenure, _service, _fences, _times, _commands, _promises, _votes)
