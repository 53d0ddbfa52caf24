import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.configuration.units import (
    BYTES_PER_UNIT,
    LONGEST_S,
    SECONDS_PER_UNIT,
    format_duration,
    format_size,
    parse_duration_s,
    parse_size_bytes,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("5s", 5.0), ("2m", 120.0), ("1h", 3600.0), ("1.5s", 1.5), ("0s", 0.0), ("8760h", LONGEST_S), (0.25, 0.25)],
)
def test_a_duration_is_read_in_seconds(written: object, seconds: float) -> None:
    assert parse_duration_s(written) == seconds


@pytest.mark.parametrize(
    "written", [5, "5", "0.5", "", "s", "5 s", "5sec", "-5s", "1m30s", "12:30", "5e3s", True, None, ["5s"], "\u0665s", "5s\n", "8761h"]
)
def test_anything_else_is_no_duration(written: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a duration"):
        parse_duration_s(written)


@pytest.mark.parametrize("written", [5, "5", "0.5"])
def test_a_bare_number_is_told_to_take_a_unit(written: object) -> None:
    with pytest.raises(ValueError, match="a bare number needs its unit"):
        parse_duration_s(written)
    with pytest.raises(ValueError, match="a bare number needs its unit"):
        parse_size_bytes(written)


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [("0B", 0), ("7B", 7), ("64kB", 64_000), ("1KiB", 1024), ("2MB", 2_000_000), ("16MiB", 16 << 20), ("1GB", 10**9), ("1.5GiB", 3 << 29)],
)
def test_a_size_is_read_in_bytes(written: str, size_bytes: int) -> None:
    assert parse_size_bytes(written) == size_bytes


@pytest.mark.parametrize("written", [16, "16", "0.5B", "16 MiB", "16TB", "16kb", True, None, 1.5, "99999999999GiB"])
def test_anything_else_is_no_size(written: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a "):
        parse_size_bytes(written)


@pytest.mark.parametrize(("written", "meant"), [("16mb", "MB"), ("16Mi", "MiB"), ("16KB", "kB")])
def test_a_unit_in_another_spelling_is_recognised(written: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"did you mean {meant}\?"):
        parse_size_bytes(written)


def test_a_refusal_never_repeats_what_was_written() -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        parse_duration_s("hunter2hunter2")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.5, "500ms"), (5.0, "5s"), (90.0, "90s"), (120.0, "2m"), (3600.0, "1h"), (1.5, "1500ms"), (0.0005, "0.5ms"), (0.0, "0s")],
)
def test_a_duration_is_shown_in_its_largest_whole_unit(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(("size_bytes", "shown"), [(0, "0B"), (1, "1B"), (1000, "1kB"), (1024, "1KiB"), (1 << 20, "1MiB"), (1001, "1001B")])
def test_a_size_is_shown_in_its_largest_whole_unit(size_bytes: int, shown: str) -> None:
    assert format_size(size_bytes) == shown


@given(st.integers(0, 31_536_000), st.integers(0, 999_999), st.sampled_from(sorted(SECONDS_PER_UNIT)))
def test_what_is_shown_of_a_duration_reads_as_the_same_duration(whole: int, fraction: int, unit: str) -> None:
    try:
        seconds = parse_duration_s(f"{whole}.{fraction:06d}{unit}")
    except ValueError:
        return  # longer than a year
    assert parse_duration_s(format_duration(seconds)) == seconds


@given(st.integers(0, 1 << 30), st.sampled_from(sorted(BYTES_PER_UNIT)))
def test_what_is_shown_of_a_size_reads_as_the_same_size(amount: int, unit: str) -> None:
    size_bytes = parse_size_bytes(f"{amount}{unit}")
    assert parse_size_bytes(format_size(size_bytes)) == size_bytes
