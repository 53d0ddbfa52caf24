"""What differs by kind of service: the questions that the rules ask. No rule asks which engine it is.

If one has to, outside this folder, this contract is wrong: mend it here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from agent.coordination.lease import LeaseRecord
from agent.decision.view import MemberView, ServiceView


class Rejoin(StrEnum):
    """What a member has to do to become the leader's standby."""

    FOLLOW = "follow"
    REWIND = "rewind"
    COPY = "copy"
    WAIT = "wait"
    """Cannot be told yet."""


class Engine(Protocol):
    """One kind of service."""

    def rejoin(self, own: ServiceView, leader: MemberView, record: LeaseRecord, node: str) -> Rejoin:
        """How the service of `node` becomes a standby of `leader`."""
        ...

    def divergence(self, member: MemberView, record: LeaseRecord) -> str:
        """Why this member's history is no part of the group's, in one sentence; empty when it is."""
        ...
