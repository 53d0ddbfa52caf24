"""From the file's words to what the core is given: a group's GroupSpec, and which of the nodes this one is. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from agent.configuration.failsafe import failsafe_absence
from agent.configuration.followers import hook_roles
from agent.configuration.model import Configuration
from agent.configuration.wording import nearest
from agent.coordination.lease import Terms
from agent.decision.view import Candidacy, FenceLayer, GroupSpec
from agent.errors import ConfigurationError, UsageError

NODE_VARIABLE = "QUORATE_NODE"
AUTO_FENCES = frozenset({FenceLayer.SEAL, FenceLayer.WATCHDOG})
"""What `fence: auto` demands; the kernel layer, where the host can do it, stands beside these. One that fails is taken away again."""


def group_spec_of(configuration: Configuration, group_name: str) -> GroupSpec:
    """The group as the core reads it. Raises UsageError for an unknown group, naming the nearest."""
    if group_name not in configuration.groups:
        raise UsageError(f"there is no group {group_name}{nearest(group_name, configuration.groups) or _list(configuration.groups)}")
    group, absence = configuration.groups[group_name], failsafe_absence(configuration, group_name)
    return GroupSpec(
        name=group_name,
        engine=group.engine,
        members={name: Candidacy(member.priority, member.nofailover) for name, member in group.members.items()},
        witnesses=group.witnesses,
        terms=Terms(group.lease.ttl, group.lease.fence_budget),
        renew_s=group.lease.renew,
        patience_s=group.quorum.patience,
        durability=group.durability,
        max_lag_bytes=group.max_lag,
        on_crash=group.on_crash,
        restart_timeout_s=group.restart_timeout,
        sync_timeout_s=group.sync_timeout,
        cooldown_s=group.cooldown,
        required_fences=AUTO_FENCES if group.fence == "auto" else frozenset(group.fence),
        hooks=hook_roles(group),
        failsafe=not absence,
        failsafe_absence=absence,
    )


def node_named(configuration: Configuration, given: str | None, environment: Mapping[str, str], hostname: str) -> str:
    """This node's name: `given` (--node), else QUORATE_NODE, else the host name, whole or up to its first dot.

    Raises UsageError when `given` is no node, ConfigurationError when the other two are none; both name the nearest.
    """
    if given is not None:
        if given not in configuration.nodes:
            raise UsageError(f"--node {given}: no such node{_hint(given, configuration)}")
        return given
    named = environment.get(NODE_VARIABLE)
    if named:
        if named not in configuration.nodes:
            raise ConfigurationError((f"{NODE_VARIABLE}={named}: no such node{_hint(named, configuration)}",))
        return named
    for candidate in (hostname, hostname.lower(), hostname.lower().partition(".")[0]):
        if candidate in configuration.nodes:
            return candidate
    sentence = f"host name {hostname}: no such node{_hint(hostname, configuration)}; say which with --node or {NODE_VARIABLE}"
    raise ConfigurationError((sentence,))


def _hint(name: str, configuration: Configuration) -> str:
    return nearest(name, configuration.nodes) or _list(configuration.nodes)


def _list(names: Mapping[str, object]) -> str:
    return f"; there {'is' if len(names) == 1 else 'are'} {', '.join(sorted(names)[:20]) or 'none'}"
