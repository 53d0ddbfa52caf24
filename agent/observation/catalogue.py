"""The catalogue of one node: which configured checks it runs, made ready for the scheduler."""

from __future__ import annotations

from agent.configuration.check_kinds import options_of
from agent.configuration.model import CheckEntry, Configuration
from agent.observation.scheduler import ScheduledCheck
from checks.loading import load_kind


def catalogue_of(configuration: Configuration, node: str, only: frozenset[str] | None = None) -> tuple[ScheduledCheck, ...]:
    """The checks that `node` runs, by name; with `only`, those of that set. Imports the clients of the configured kinds only."""
    return tuple(
        _scheduled(name, entry, configuration)
        for name, entry in sorted(configuration.checks.items())
        if (entry.on is None or node in entry.on) and (only is None or name in only)
    )


def _scheduled(name: str, entry: CheckEntry, configuration: Configuration) -> ScheduledCheck:
    defaults = configuration.defaults
    return ScheduledCheck(
        name=name,
        check=load_kind(entry.type)(entry.level, options_of(entry)),
        every_s=entry.every or defaults.every,
        timeout_s=entry.timeout or defaults.timeout,
        rise=entry.rise or defaults.rise,
        fall=entry.fall or defaults.fall,
        requires=entry.requires,
    )
