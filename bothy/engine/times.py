"""Times as the API and the records write them: RFC 3339, UTC, nanoseconds (`2026-01-31T12:00:00.123456789Z`)."""

from __future__ import annotations

import calendar
import re
import time

from bothy.errors import Invalid

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?(Z|z|[+-]\d\d:?\d\d)?")
_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
NEVER = "0001-01-01T00:00:00Z"


def rfc3339(nanoseconds: int) -> str:
    """A time since the epoch as text, always with nine digits, so that texts sort as times do."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    t = time.gmtime(seconds)
    return f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}.{rest:09d}Z"


def now() -> str:
    """The time as it is."""
    return rfc3339(time.time_ns())


def nanoseconds(text: str) -> int:
    """Nanoseconds since the epoch of what `rfc3339` wrote (or any other RFC 3339 text). Raises Invalid."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise Invalid(f"{text!r} is not a time", hint="use 2026-01-31T12:00:00Z, seconds since 1970, or a duration like 10m")
    year, month, day, hour, minute, second = (int(match[i] or 0) for i in range(1, 7))
    zone = match[8] or "Z"
    offset = 0
    if zone not in "Zz":
        offset = (int(zone[1:3]) * 60 + int(zone[-2:])) * 60 * (-1 if zone[0] == "-" else 1)
    try:
        seconds = calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0)) - offset
    except (ValueError, OverflowError) as exc:
        raise Invalid(f"{text!r} is not a time: {exc}") from exc
    return seconds * 1_000_000_000 + int((match[7] or "").ljust(9, "0"))


def instant(text: str) -> int:
    """Nanoseconds since the epoch of a `since` or `until`: seconds with a fraction, RFC 3339, or a Go duration before now.

    Empty and `0` are 0, which stands for no bound. Raises Invalid.
    """
    if text in ("", "0"):
        return 0
    if re.fullmatch(r"-?\d+(\.\d*)?", text):
        whole, _, fraction = text.partition(".")
        return int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    if (parts := _GO_DURATION.findall(text)) and "".join(a + b for a, b in parts) == text:
        return time.time_ns() - int(sum(float(a) * _UNITS[b] for a, b in parts) * 1e9)
    return nanoseconds(text)
