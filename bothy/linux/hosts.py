"""The hosts file of a workload that runs (hosts(5)): lines of ours come and go, all others stay as they are."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

_MAX_FILE = 1 << 20


@dataclass(frozen=True)
class HostsChange:
    """Lines to add (an address, a tab, names between spaces), and those to take away, by their address or by all of their names."""

    add: list[str] = field(default_factory=list)
    drop_addresses: list[str] = field(default_factory=list)
    drop_names: list[str] = field(default_factory=list)


def change(path: str, wanted: HostsChange) -> None:
    """Change the file in place, for it may be mounted; the workload writes it too, so nothing is expected of it. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        lines = os.read(fd, _MAX_FILE).decode(errors="surrogateescape").removesuffix("\n").split("\n")
        data = "".join(f"{line}\n" for line in [*(line for line in lines if not _goes(line, wanted)), *wanted.add])
        encoded = data.encode(errors="surrogateescape")
        os.pwrite(fd, encoded, 0)
        os.ftruncate(fd, len(encoded))
    finally:
        os.close(fd)


def _goes(line: str, wanted: HostsChange) -> bool:
    address, _, names = line.partition("\t")
    return address in wanted.drop_addresses or names in wanted.drop_names
