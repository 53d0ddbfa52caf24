"""What an observer sees of another member's Postgres from where it stands: does it take writes? Over the network, as `monitor`."""

from __future__ import annotations

from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from agent.configuration.engine_section import postgres_of
from agent.configuration.model import Configuration
from agent.configuration.secrets import read_login
from checks.postgres_client import Target, is_writable, parse_target


class PostgresProbe:
    """Asks the members of one group."""

    def __init__(self, configuration: Configuration, group: str) -> None:
        section = configuration.groups[group]
        self._group = group
        self._targets: dict[str, Target] = {}
        for name in section.members:
            instance = postgres_of(section, name)
            user, password = read_login(instance.monitor)
            dsn = make_conninfo("", host=configuration.nodes[name].address, port=instance.port, user=user, dbname=instance.database)
            self._targets[name] = parse_target(dsn, None if password is None else SecretStr(password))

    async def ask(self, node: str, timeout_s: float) -> tuple[bool | None, str]:
        """True, False, or None when it cannot be told (a wrong password, a full server, a member only of a newer file); and a sentence."""
        if node not in self._targets:
            return None, f"{node} is no member of group {self._group} in this node's configuration"
        seen = await is_writable(self._targets[node], timeout_s)
        return seen.writable, seen.sentence
