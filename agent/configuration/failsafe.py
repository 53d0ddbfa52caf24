"""Whether a group's holder can ask the voters for promises: wanted, and the agents can prove to each other who they are. Pure judgement.

Without a shared key nobody asks and nobody promises. Who wrote `failsafe: true` is told so as a mistake, everybody else as a caution: the
default must not make a file wrong that says nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.configuration.document import Problem
from agent.configuration.model import Configuration

NO_KEY = "there is no api.peer_key_file, so the agents cannot prove to each other who they are"


def failsafe_absence(configuration: Configuration, group_name: str) -> str:
    """Why the group's holder does not ask for promises; empty: it does."""
    group = configuration.groups[group_name]
    if not group.lease.failsafe:
        return "it is switched off"
    alone = len({*group.members, *group.witnesses}) == 1
    return "" if alone or configuration.api.peer_key_file is not None else NO_KEY


def judge_failsafe(configuration: Configuration) -> Iterator[Problem]:
    """Failsafe that was asked for in so many words, and cannot be. With the local coordinator there is nothing to be away."""
    if configuration.coordination.consul is None:
        return
    for name, group in configuration.groups.items():
        if "failsafe" in group.lease.model_fields_set and failsafe_absence(configuration, name) == NO_KEY:
            yield Problem(("groups", name, "lease", "failsafe"), NO_KEY, (("api",), ("groups", name, "lease")))


def cautions(configuration: Configuration) -> tuple[str, ...]:
    """What is not wrong and yet costs something, one sentence each."""
    if configuration.coordination.consul is None:
        return ()
    without = [name for name in configuration.groups if failsafe_absence(configuration, name) == NO_KEY]
    return tuple(f"group {name}: failsafe is off, an election of Consul that is longer than ttl is an outage: {NO_KEY}" for name in without)
