"""Sandboxes made ahead of need: the namespaces of containers to come, one for each id range that the daemon names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import islice

from bothy.containers.sandbox import Sandbox
from bothy.errors import StageError


class Pool:
    """At most `size` sandboxes, of the id ranges named last and not used yet. `make` is `bothy.containers.sandbox.make`."""

    def __init__(self, make: Callable[[int], Sandbox]) -> None:
        self._make = make
        self._size = 0
        self._ready: dict[int, Sandbox] = {}
        self._wanted: dict[int, None] = {}

    def order(self, size: int, id_bases: list[int]) -> None:
        """Hold sandboxes of these id ranges. Ones that are ready and not named any more are given up; nothing is made yet."""
        self._size = size
        for base in [base for base in self._ready if base not in id_bases]:
            self._ready.pop(base).close()
        self._wanted = dict.fromkeys(base for base in id_bases if base not in self._ready)

    def take(self, id_base: int) -> Sandbox | None:
        """The sandbox of that id range if it is ready, owned by the caller; its range is not refilled."""
        self._wanted.pop(id_base, None)
        return self._ready.pop(id_base, None)

    @property
    def short(self) -> bool:
        """Whether there is something to make."""
        return bool(self._wanted) and len(self._ready) < self._size

    def make_one(self) -> None:
        """Make the next sandbox (a few milliseconds). If the kernel refuses, the pool makes no more until the next order."""
        for base in list(islice(self._wanted, 1)):
            del self._wanted[base]
            try:
                self._ready[base] = self._make(base)
            except (StageError, OSError) as exc:
                print(f"bothy-spawner: no sandbox made ahead: {exc}", file=sys.stderr, flush=True)
                self._wanted.clear()

    def close(self) -> None:
        """Give up all."""
        for sandbox in self._ready.values():
            sandbox.close()
        self._ready.clear()
        self._wanted.clear()
