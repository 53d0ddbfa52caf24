"""What is done to the primary's host in the bench, and to which questions it belongs. Pure: names and sentences; scene.py does it.

Each fault is the same for every contender. The last two are about safety: the writer still reaches the old primary, so that two of them
would both take its rows.
"""

from __future__ import annotations

import enum


class Fault(enum.Enum):
    """A fault; its value is its name on the command line and in the kept results."""

    SERVICE_KILLED = "service_killed"
    HOST_DEAD = "host_dead"
    HOST_DEAD_CONSUL_LEADER = "host_dead_consul_leader"
    CUT_OFF = "cut_off"
    CUT_FROM_MEMBERS = "cut_from_members"
    AGENT_KILLED = "agent_killed"

    @property
    def heading(self) -> str:
        """Its column."""
        return HEADINGS[self]

    @property
    def is_about_safety(self) -> bool:
        """Whether its column shows overlap and lost rows instead of the outage."""
        return self in {Fault.CUT_FROM_MEMBERS, Fault.AGENT_KILLED}

    @property
    def needs_consul(self) -> bool:
        """Whether it says nothing about a contender that does without Consul."""
        return self is Fault.HOST_DEAD_CONSUL_LEADER


HEADINGS = {
    Fault.SERVICE_KILLED: "service killed",
    Fault.HOST_DEAD: "host dead",
    Fault.HOST_DEAD_CONSUL_LEADER: "host dead, it held Consul's leader",
    Fault.CUT_OFF: "cut off from all",
    Fault.CUT_FROM_MEMBERS: "cut off from the members, not from the client",
    Fault.AGENT_KILLED: "agent killed and not restarted",
}
