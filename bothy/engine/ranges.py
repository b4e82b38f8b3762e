"""Id ranges: every running container has 65536 host ids of its own, from which its user namespace is made.

On disk everything has the ids of the image (an idmapped mount shifts them), so a range belongs to a run, not to a container:
it is taken at start and given back at the end; containers that share namespaces share a range. Engines that run side by side begin
at different places.
"""

from __future__ import annotations

from collections import Counter, deque

from bothy.errors import Unavailable

SIZE = 65536
FIRST = 16  # 1,048,576: above what useradd gives out, and above a million
LAST = 32767  # below 2^31, which some programs take for a negative number


class Ranges:
    def __init__(self, key: str) -> None:
        slots = LAST - FIRST + 1
        start = int(key, 16) % slots if key else 0
        self._next = start
        self._slots = slots
        self._used: Counter[int] = Counter()
        self._free: deque[int] = deque()

    def take(self) -> int:
        """The first id of a range that nobody has. Raises Unavailable when all are in use."""
        while self._free:
            base = self._free.popleft()
            if base not in self._used:
                self._used[base] = 1
                return base
        for _ in range(self._slots):
            base = (FIRST + self._next) * SIZE
            self._next = (self._next + 1) % self._slots
            if base not in self._used:
                self._used[base] = 1
                return base
        raise Unavailable("all id ranges are in use", hint="stop some containers, or run this one with --userns host")

    def adopt(self, base: int) -> None:
        """This range is in use, by one more container: one that runs already, or joins one that does."""
        if base:
            self._used[base] += 1

    def give_back(self, base: int) -> None:
        """One container less uses it; the last one gives it back."""
        if base not in self._used:
            return
        self._used[base] -= 1
        if not self._used[base]:
            del self._used[base]
            self._free.append(base)
