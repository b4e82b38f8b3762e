"""Which control groups this host has: v2, v1, or v1 beside a v2 tree without controllers (hybrid, used as v1)."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Protocol

from bothy.containers.cgroups import files
from bothy.containers.cgroups.v1 import ALWAYS, V1
from bothy.containers.cgroups.v2 import V2
from bothy.oci.runtime import Resources


class Cgroup(Protocol):
    """What both versions can do; see `v1.V1` for the words."""

    def create(self, resources: Resources) -> None: ...
    def update(self, resources: Resources) -> None: ...
    def fork_fd(self) -> int: ...
    def join(self) -> None: ...
    def folders(self) -> list[tuple[str, str]]: ...
    def pids(self) -> list[int]: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def kill(self) -> None: ...
    def remove(self) -> bool: ...
    def oom_watch(self) -> tuple[int, bool]: ...
    def oom_count(self) -> int: ...
    def stats(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Hierarchies:
    """Mount points: `v1` by controller; `v2`, used only where `v1` is empty. Both empty: no control groups at all."""

    v1: dict[str, str] = field(default_factory=dict)
    v2: str = ""

    @property
    def version(self) -> int:
        return 1 if self.v1 else 2 if self.v2 else 0

    def controllers(self) -> set[str]:
        """The controllers that can limit something here, by their names."""
        return set(self.v1) if self.v1 or not self.v2 else set(files.read(self.v2, "cgroup.controllers").split())

    def at(self, path: str) -> Cgroup:
        """The group `path` (`/bothy/<id>`), which need not exist yet."""
        return V1(self.v1, path) if self.v1 else V2(self.v2, path)


def discover(mountinfo: str) -> Hierarchies:
    """The hierarchies in the text of a /proc/<pid>/mountinfo; of one mounted twice the first."""
    v1: dict[str, str] = {}
    v2 = ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(tail) < 3:
            continue
        place = fields[4].replace("\\040", " ")
        if tail[0] == "cgroup2":
            v2 = v2 or place
        elif tail[0] == "cgroup":
            for word in tail[2].split(","):
                if word in (*ALWAYS, "cpuset"):
                    v1.setdefault(word, place)
    return Hierarchies(v1, v2)


@functools.cache
def of_this_host() -> Hierarchies:
    """The hierarchies that the calling process sees, looked for once: the spawner's children inherit the answer."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mountinfo:
        return discover(mountinfo.read())
