"""From the configuration to the parts that differ by engine: the local service, and the look at the leader's. Only here they are named."""

from __future__ import annotations

from agent.configuration.model import Configuration
from agent.control_loop import LeaderProbe
from agent.execution.service import Service


def service_of(configuration: Configuration, group: str, node: str) -> Service:
    """The instance that `node` runs for this group."""
    from agent.execution.postgres_service import postgres_service  # noqa: PLC0415 - psycopg only where there is such a group

    return postgres_service(configuration, group, node)


def leader_probe_of(configuration: Configuration, group: str) -> LeaderProbe:
    """How this group's leader is looked at over the network."""
    from agent.observation.postgres_probe import PostgresProbe  # noqa: PLC0415 - the same

    return PostgresProbe(configuration, group)
