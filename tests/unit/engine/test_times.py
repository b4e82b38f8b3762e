"""Times as clients write them."""

from __future__ import annotations

import time

import pytest

from bothy.engine import times
from bothy.errors import Invalid


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("0", 0),
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000.25", 1_700_000_000_250_000_000),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000_000_000),
        ("2026-01-31T13:00:00.5+01:00", 1_769_860_800_500_000_000),
        ("2026-01-31", 1_769_817_600_000_000_000),
    ],
)
def test_instants(text: str, expected: int) -> None:
    assert times.instant(text) == expected


def test_a_duration_is_before_now() -> None:
    before = time.time_ns()
    found = times.instant("1h30m")
    assert before - 5400 * 10**9 <= found <= time.time_ns() - 5400 * 10**9


@pytest.mark.parametrize("text", ["2024-13-45", "2024-00-01", "0000-01-01", "yesterday", "10 m", "1x", "2024-1-1"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        times.instant(text)
