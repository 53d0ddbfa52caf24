"""As what a node's service may be used right now: the answer behind /groups/{group}/leader, replica and sync. Pure.

Load balancers send clients by it. So it says yes only for what was just seen: `leader` needs a service that takes writes AND a lease that
still lasts; a fact that is old is a no.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.decision.view import ServiceState, View
from agent.instant import Instant, observer_elapsed_s
from agent.reporting.status import lag_bytes, lease_remaining_s

FRESH_PERIODS = 3
"""Facts of the own service older than this many renew periods say nothing about now."""


@dataclass(frozen=True, slots=True)
class ServesAs:
    """`lag_bytes`: of a replica, behind what the leader published last; None: unknown. `sentence`: what it is, or why it is nothing."""

    leader: bool
    replica: bool
    sync: bool
    lag_bytes: int | None
    sentence: str


def serves_as(view: View, now: Instant) -> ServesAs:
    """What the local service is good for at `now`."""
    service, record = view.service, view.lease.record
    if service.seen is None or observer_elapsed_s(service.seen, now) > FRESH_PERIODS * view.group.renew_s:
        return _nothing("nobody has looked at the service lately")
    if service.state is ServiceState.PRIMARY:
        if not lease_remaining_s(view, now):
            return _nothing("the service takes writes, but this node has no lease that lasts")
        return ServesAs(leader=True, replica=False, sync=False, lag_bytes=None, sentence="it takes writes under a valid lease")
    if service.state is not ServiceState.STANDBY:
        return _nothing(f"the service is {service.state.value}")
    if record is None or service.upstream != record.holder or not service.receiving:
        return _nothing("the service is a standby that receives nothing from the leader")
    sync = view.node in (record.sync_set or ())
    behind = lag_bytes(view, view.node)
    kind = "synchronous standby" if sync else "standby"
    return ServesAs(leader=False, replica=True, sync=sync, lag_bytes=behind, sentence=f"it is a streaming {kind} of {record.holder}")


def _nothing(sentence: str) -> ServesAs:
    return ServesAs(leader=False, replica=False, sync=False, lag_bytes=None, sentence=sentence)
