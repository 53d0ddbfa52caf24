"""Sizes and durations in the options of checks, written with their unit, as in the rest of the file. Pure; knows nothing of any kind.

Checks import nothing from the agent, so these few lines stand here, too. A bare number is refused: nobody can see its unit.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"B": 1, "kB": 1000, "KiB": 1 << 10, "MB": 10**6, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", re.ASCII)


def parse_duration_s(value: object) -> float:
    """Seconds of `500ms`, `5s`, `2m`; a float passes, it was parsed before. ValueError says what was expected."""
    return value if isinstance(value, float) else _parse(value, _SECONDS, "a duration with its unit, such as 500ms, 5s or 2m")


def parse_size_bytes(value: object) -> int:
    """Bytes of `64kB`, `16MiB`, `1GiB`. ValueError says what was expected."""
    return round(_parse(value, _BYTES, "a size with its unit, such as 64kB, 16MiB or 1GiB"))


def _parse(value: object, units: dict[str, float] | dict[str, int], expected: str) -> float:
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"expected {expected}")
    return float(match[1]) * units[match[2]]


Duration = Annotated[
    float, BeforeValidator(parse_duration_s), Field(gt=0, allow_inf_nan=False, json_schema_extra={"examples": ["500ms", "5s", "2m"]})
]
"""Seconds, written with a unit."""
Size = Annotated[int, BeforeValidator(parse_size_bytes), Field(ge=0, json_schema_extra={"examples": ["64kB", "16MiB", "1GiB"]})]
"""Bytes, written with a unit."""
