"""The mounts of our mount namespace, as /proc/self/mountinfo tells them (proc(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mounted:
    """One mount. `shared` and `slave`: it is in a peer group, it gets what is mounted in another's."""

    point: str
    fstype: str
    source: str
    shared: bool
    slave: bool


def parse(text: str) -> list[Mounted]:
    """The lines of a mountinfo file, in the order in which things were mounted."""
    return [_parsed(line) for line in text.splitlines() if line]


def mounts() -> list[Mounted]:
    """All of ours. Costs some microseconds a mount."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse(file.read())


def holding(path: str, table: list[Mounted]) -> Mounted:
    """The mount of the table that an absolute path without links is on. Raises LookupError if none is above it."""
    found = None
    for mount in table:
        inside = mount.point == "/" or path == mount.point or path.startswith(mount.point + "/")
        if inside and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    if found is None:
        raise LookupError(path)
    return found


def _parsed(line: str) -> Mounted:
    head, _, tail = line.partition(" - ")
    fields, rest = head.split(" "), tail.split(" ")
    words = [field.partition(":")[0] for field in fields[6:]]
    return Mounted(_plain(fields[4]), rest[0], _plain(rest[1]), "shared" in words, "master" in words)


def _plain(text: str) -> str:
    """Without the octal escapes of spaces and the like."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text
