"""Times as image configurations and the index write them: RFC 3339 in UTC."""

from __future__ import annotations

import time


def rfc3339(nanoseconds: int) -> str:
    """A time since the epoch, always with nine digits, so that texts sort as times do."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def now() -> str:
    """The time as it is."""
    return rfc3339(time.time_ns())
