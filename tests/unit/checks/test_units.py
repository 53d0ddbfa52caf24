from __future__ import annotations

import pytest

from checks.units import parse_duration_s, parse_size_bytes


@pytest.mark.parametrize(("written", "seconds"), [("500ms", 0.5), ("5s", 5.0), ("2m", 120.0), ("1.5h", 5400.0), (0.25, 0.25)])
def test_a_duration_is_seconds(written: object, seconds: float) -> None:
    assert parse_duration_s(written) == seconds


@pytest.mark.parametrize(("written", "size_bytes"), [("64kB", 64_000), ("16MiB", 16 << 20), ("1GiB", 1 << 30), ("0B", 0)])
def test_a_size_is_bytes(written: object, size_bytes: int) -> None:
    assert parse_size_bytes(written) == size_bytes


@pytest.mark.parametrize("written", ["5", 5, True, None, "5 parsecs", "-1s", "", "ms"])
def test_a_duration_without_a_known_unit_is_refused_with_an_example(written: object) -> None:
    with pytest.raises(ValueError, match="500ms, 5s or 2m"):
        parse_duration_s(written)


@pytest.mark.parametrize("written", ["5", 5, False, "5mb", "1e3B", [1]])
def test_a_size_without_a_known_unit_is_refused_with_an_example(written: object) -> None:
    with pytest.raises(ValueError, match="64kB, 16MiB or 1GiB"):
        parse_size_bytes(written)
