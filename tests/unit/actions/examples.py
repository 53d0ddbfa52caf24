"""Values that the unit tests of the actions share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from actions.postgres_instance import PostgresInstance

_EXAMPLE = PostgresInstance(
    node="n1", data_dir=Path("/data"), socket_dir=Path("/run/pg"), port=5432, log_file=Path("/log"), os_user=None, bin_dir=None
)


def instance(**changes: object) -> PostgresInstance:
    """An instance that does not exist."""
    return replace(_EXAMPLE, **changes)  # type: ignore[arg-type]
