"""Small pieces of a scenario's picture: moments, a record with a few fields said anew, a standby as the primary sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.coordination.lease import Debt, LeaseRecord, LeaseState
from agent.decision.view import MemberView, Replica, ServiceView
from agent.instant import Instant
from tests.scenarios.words import Words

START = Instant(1_000_000 * 10**9, 900_000 * 10**9)
"""Second 0 of every scenario. The two clocks differ, as they do on a machine that has slept."""


def instant(value: float) -> Instant:
    """The moment `value` seconds after the start."""
    return START.after(value)


def changed(record: LeaseRecord, words: Words) -> LeaseRecord:
    """The record with a few fields said anew."""
    if words.has("sync_set"):
        set_ = words.take("sync_set")
        record = replace(record, sync_set=None if set_ is None else tuple(set_))
    if words.has("ttl"):
        record = replace(record, terms=replace(record.terms, ttl_s=words.take("ttl")))
    if words.has("state"):
        record = replace(record, state=LeaseState(words.take("state")))
    if words.has("debt"):
        debt = words.take("debt")
        record = replace(record, debt=None if debt is None else Debt(*debt))
    for word in ("paused", "epoch", "holder", "sequence", "nonce"):
        if words.has(word):
            record = replace(record, **{word: words.take(word)})
    words.close()
    return record


def replica(said: Mapping[str, Any], seen: Instant | None) -> Replica:
    """A standby as the primary sees it. `heard: never`, or a moment; not said: by the last look, at `seen`."""
    words = Words("replica", said)
    heard = words.take("heard")
    replica = Replica(
        words.take("name"),
        words.take("streaming", default=True),
        words.take("flushed", 5000),
        words.take("sync", default=False),
        words.take("sender", 100),
        words.take("reply", ""),
        heard not in (None, "never"),
        {None: seen, "never": None}[heard] if heard in (None, "never") else instant(heard),
    )
    words.close()
    return replica


def own_member(node: str, service: ServiceView, at_s: float, said: MemberView | None) -> MemberView:
    """The own member is shown as the service is, not as it was published."""
    same = ("state", "position", "history", "stopped_for_epoch", "upstream", "receiving", "system_identifier")
    own = MemberView(node, moved=instant(at_s), incarnation=f"boot-{node}", **{name: getattr(service, name) for name in same})
    return own if said is None else replace(own, problem=said.problem, paused_epoch=said.paused_epoch)
