from __future__ import annotations

import re
import time

from agent.clock import SystemClock, boot_id
from agent.instant import observer_elapsed_s


def test_now_reads_both_lease_clocks_and_only_goes_on() -> None:
    clock = SystemClock()
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    first, second = clock.now(), clock.now()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    assert before[0] <= first.boot_ns <= second.boot_ns <= after[0]
    assert before[1] <= first.raw_ns <= second.raw_ns <= after[1]
    assert observer_elapsed_s(first, second) >= 0


def test_wall_is_seconds_since_1970() -> None:
    assert abs(SystemClock().wall_s() - time.time()) < 5


def test_nonces_are_16_hex_digits_and_differ() -> None:
    clock = SystemClock()
    nonces = {clock.nonce() for _ in range(1000)}
    assert len(nonces) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{16}", nonce) for nonce in nonces)


def test_fractions_lie_in_0_to_1_and_differ() -> None:
    fractions = [SystemClock().fraction() for _ in range(1000)]
    assert all(0 <= fraction < 1 for fraction in fractions)
    assert min(fractions) < 0.1
    assert max(fractions) > 0.9


def test_the_boot_has_one_name() -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}", boot_id())
    assert boot_id() == boot_id()
