"""Durations and sizes as people write them. Pure: text in, seconds or bytes out, and back.

A bare number is always refused: nobody can see whether `timeout: 30` is seconds or milliseconds. The refusals never repeat what was
written (it may have come out of an environment variable that holds a secret); the loader adds it where that is safe.
"""

from __future__ import annotations

import difflib
import re
from decimal import Decimal

SECONDS_PER_UNIT = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
BYTES_PER_UNIT = {"B": 1, "kB": 1000, "KiB": 1 << 10, "MB": 1000**2, "MiB": 1 << 20, "GB": 1000**3, "GiB": 1 << 30}
LONGEST_S = 365 * 24 * 3600.0
LARGEST_BYTES = 1 << 60

_QUANTITY = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)([A-Za-z]*)", re.ASCII)

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|kB|KiB|MB|MiB|GB|GiB)$"
_DURATION_WANTED = "expected a duration with a unit, such as 500ms, 5s, 2m or 1h"
_SIZE_WANTED = "expected a size with a unit, such as 64kB, 16MiB or 1GiB"


def parse_duration_s(written: object) -> float:
    """Seconds of `500ms`, `5s`, `2m`, `1.5h`. A float passes as it is: it was parsed before. Raises ValueError with one sentence."""
    if isinstance(written, float):
        return written
    number, unit = _quantity(written, tuple(SECONDS_PER_UNIT), _DURATION_WANTED)
    seconds = float(number * SECONDS_PER_UNIT[unit])
    if seconds > LONGEST_S:
        raise ValueError("expected a duration of at most 365 days (8760h)")
    return seconds


def parse_size_bytes(written: object) -> int:
    """Bytes of `64kB`, `16MiB`, `1.5GiB`. Raises ValueError with one sentence, also when it is no whole number of bytes."""
    number, unit = _quantity(written, tuple(BYTES_PER_UNIT), _SIZE_WANTED)
    size_bytes = number * BYTES_PER_UNIT[unit]
    if size_bytes != size_bytes.to_integral_value():
        raise ValueError("expected a whole number of bytes")
    if size_bytes > LARGEST_BYTES:
        raise ValueError("expected a size of at most 2^60 bytes")
    return int(size_bytes)


def format_duration(seconds: float) -> str:
    """The duration in the largest unit that needs no fraction, else in the smallest. `parse_duration_s` gives the same float back."""
    exact = Decimal(repr(float(seconds)))
    for unit in ("h", "m", "s", "ms"):
        amount = exact / SECONDS_PER_UNIT[unit]
        if amount == amount.to_integral_value() and amount >= 1:
            return f"{amount.to_integral_value():f}{unit}"
    return f"{(exact * 1000).normalize():f}ms" if exact else "0s"


def format_size(size_bytes: int) -> str:
    """The size in the largest unit that needs no fraction. `parse_size_bytes` gives the same number back."""
    for unit, factor in sorted(BYTES_PER_UNIT.items(), key=lambda pair: -pair[1]):
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def _quantity(written: object, units: tuple[str, ...], wanted: str) -> tuple[Decimal, str]:
    if isinstance(written, bool) or not isinstance(written, (str, int)):
        raise ValueError(wanted)  # noqa: TRY004 pydantic reports ValueError, not TypeError
    matched = _QUANTITY.fullmatch(str(written))
    if matched is None:
        raise ValueError(wanted)
    number, unit = matched.groups()
    if not unit:
        raise ValueError(f"{wanted}; a bare number needs its unit")
    if unit not in units:
        raise ValueError(wanted + _suggestion(unit, units))
    return Decimal(number), unit


def _suggestion(unit: str, units: tuple[str, ...]) -> str:
    by_lower = {known.lower(): known for known in units}
    near = difflib.get_close_matches(unit.lower(), tuple(by_lower), n=1, cutoff=0.6)
    return f" (did you mean {by_lower[near[0]]}?)" if near else ""
