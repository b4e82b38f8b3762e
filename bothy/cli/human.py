"""Sizes and times as people read them, and back. Sources: docker/go-units (HumanSize, HumanDuration), RFC 3339."""

from __future__ import annotations

import time

DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(number: float, *, digits: int = 3) -> str:
    """`12.3MB`, `4.01kB`, `0B`: powers of 1000."""
    return _scaled(number, 1000.0, DECIMAL, digits)


def binary_size(number: float, *, digits: int = 4) -> str:
    """`1.944GiB`: powers of 1024, for memory."""
    return _scaled(number, 1024.0, BINARY, digits)


def _scaled(number: float, base: float, units: tuple[str, ...], digits: int) -> str:
    unit = 0
    while number >= base and unit < len(units) - 1:
        number /= base
        unit += 1
    text = f"{number:.{digits}g}"
    return f"{float(text):g}{units[unit]}" if "e" in text else f"{text}{units[unit]}"


def duration(seconds: float) -> str:
    """`Less than a second`, `5 seconds`, `About a minute`, `3 hours`, `2 weeks`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)  # as Go rounds: a half goes up
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"


def ago(seconds_since_epoch: float) -> str:
    """`5 minutes ago`; `N/A` for a time that is none."""
    if seconds_since_epoch <= 0:
        return "N/A"
    return f"{duration(max(0.0, time.time() - seconds_since_epoch))} ago"


def epoch(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0 for an empty or unreadable one, and for Go's year 1."""
    try:
        year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
        hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    except ValueError:
        return 0.0
    if year < 1970 or not 1 <= month <= 12:
        return 0.0
    rest = text[19:]
    fraction = 0.0
    if rest.startswith("."):
        digits = len(rest[1:]) - len(rest[1:].lstrip("0123456789"))
        fraction = float("0" + rest[: digits + 1])
        rest = rest[digits + 1 :]
    offset = 0
    if rest[:1] in ("+", "-") and len(rest) >= 6:
        offset = (int(rest[1:3]) * 60 + int(rest[4:6])) * (60 if rest[0] == "+" else -60)
    return _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second + fraction - offset


def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the Gregorian calendar."""
    year, month = (year - 1, month + 12) if month < 3 else (year, month)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469


def local_time(seconds_since_epoch: float) -> str:
    """`2026-11-23 10:04:05 +0100 CET`, as Docker's CreatedAt."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds_since_epoch))


def moment(text: str, flag: str) -> str:
    """`--since`, `--until`: seconds since the epoch of a duration back from now (`10m`), an RFC 3339 time or part of it, a number.

    Raises UsageError.
    """
    from bothy.cli import values
    from bothy.cli.errors import UsageError

    if text.replace(".", "", 1).isdecimal():
        return text
    if text[:4].isdecimal() and text[4:5] == "-":
        full = text + "1970-01-01T00:00:00"[len(text) :] if len(text) < 19 else text
        seconds = epoch(full.replace(" ", "T"))
        if seconds and full.endswith("Z"):
            return full.replace(" ", "T")  # as it is: a float has not the digits of a log's time
        if len(full) == 19:  # no zone: ours
            seconds += -time.localtime(seconds).tm_gmtoff
        if seconds:
            return f"{seconds:.9f}".rstrip("0").rstrip(".")
        raise UsageError(f"invalid time {text!r} for --{flag}", hint="for instance 2026-01-31T12:00:00Z or 10m")
    return f"{time.time() - values.duration(text, flag) / values.SECOND:.9f}"
