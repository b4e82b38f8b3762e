"""Reading a workload's log: Docker's json-file format, rotated and gzipped files included, followed while it grows.

    container.log       what is being written          {"log":"hello\\n","stream":"stdout","time":"2026-…Z"}
    container.log.1     the one before                 one object a line; a line longer than 16 KiB comes in pieces
    container.log.2.gz  older ones, perhaps gzipped

The keeper writes and rotates; this side only reads. A follower keeps its open file when that is renamed under it, reads it to its
end, and goes on with the next newer one.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from bothy.engine.inotify import Inotify
from bothy.engine.model import LogEntry

LogFile = io.FileIO | gzip.GzipFile
_BLOCK = 65536


@dataclass(frozen=True)
class Wanted:
    """Which entries: `since` and `until` as RFC 3339 texts with nine digits (empty: no bound), `tail` a number of entries of
    either stream (-1: all)."""

    stdout: bool = True
    stderr: bool = True
    since: str = ""
    until: str = ""
    tail: int = -1

    def has(self, entry: LogEntry) -> bool:
        wanted_stream = self.stdout if entry.stream == "stdout" else self.stderr
        return wanted_stream and (not self.since or entry.time >= self.since)

    def ends_before(self, entry: LogEntry) -> bool:
        return bool(self.until) and entry.time > self.until


async def read(path: str, wanted: Wanted) -> AsyncIterator[LogEntry]:
    """The entries that are there now, oldest first."""
    files = _opened(path, wanted.tail)
    try:
        for file in files:
            for entry in _entries(file, bytearray()):
                if entry is None:
                    await asyncio.sleep(0)
                elif wanted.ends_before(entry):
                    return
                elif wanted.has(entry):
                    yield entry
    finally:
        for file in files:
            file.close()


async def follow(path: str, wanted: Wanted, inotify: Inotify, ended: asyncio.Future[object]) -> AsyncIterator[LogEntry]:
    """The entries that are there, then those that are written, until `ended` is done and everything before it was read.

    Raises OSError when the log's folder is not there.
    """
    with inotify.changes(os.path.dirname(path)) as changed:

        def wake(_: object) -> None:
            changed.set()

        ended.add_done_callback(wake)
        files = deque(_opened(path, wanted.tail))
        try:
            rest = bytearray()
            while True:
                last_round = ended.done()
                changed.clear()
                _open_next(files, path)
                while files:
                    has_next = len(files) > 1  # told before reading: nothing is written to a file that has a successor
                    for entry in _entries(files[0], rest):
                        if entry is None:
                            await asyncio.sleep(0)
                        elif wanted.ends_before(entry):
                            return
                        elif wanted.has(entry):
                            yield entry
                    if has_next:
                        files.popleft().close()
                        rest.clear()
                    elif not _open_next(files, path):
                        break
                if last_round:
                    return
                await changed.wait()
        finally:
            ended.remove_done_callback(wake)
            for file in files:
                file.close()


def _entries(file: LogFile, rest: bytearray) -> Iterator[LogEntry | None]:
    """Complete entries from where the file stands to its end; None after every block. `rest` keeps an incomplete last line."""
    while block := file.read(_BLOCK):
        rest += block
        *lines, tail = bytes(rest).split(b"\n")
        rest[:] = tail
        for line in lines:
            if (entry := _entry(line)) is not None:
                yield entry
        yield None


def _entry(line: bytes) -> LogEntry | None:
    """The entry of a line. A line that was cut short by a dying keeper and then written on holds its last entry whole."""
    for start in (0, line.rfind(b'{"log":')):
        try:
            data = json.loads(line[start:])
            return LogEntry(data["stream"], data["time"], data["log"].encode("utf-8", "surrogateescape"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def _opened(path: str, tail: int) -> list[LogFile]:
    """The log's files, oldest first, opened, standing where the last `tail` entries begin (-1: at their beginnings)."""
    # The newest first: a rotation in between then shows a file twice rather than not at all, and twice can be seen.
    found: list[LogFile] = []
    seen = set()
    missing = tail
    for name in _names(path):
        if missing == 0 and found:
            break
        try:
            file = _open(name)
        except FileNotFoundError:
            continue
        identity = os.fstat(file.fileno())
        if (identity.st_dev, identity.st_ino) in seen:
            file.close()
            continue
        seen.add((identity.st_dev, identity.st_ino))
        found.append(file)
        if tail >= 0:
            missing -= _stand_at_tail(file, missing)
    return found[::-1]


def _open(name: str) -> LogFile:
    return gzip.GzipFile(name) if name.endswith(".gz") else io.FileIO(name)


def _names(path: str) -> list[str]:
    """The log's files, newest first."""
    folder, base = os.path.split(path)
    numbered = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        names = []
    for name in names:
        number = name.removeprefix(base + ".").removesuffix(".gz")
        if name.startswith(base + ".") and number.isdecimal():
            numbered.append((int(number), os.path.join(folder, name)))
    return [path, *(name for _, name in sorted(numbered))]


def _stand_at_tail(file: LogFile, count: int) -> int:
    """Stand where the last `count` lines begin, or at the start where there are fewer; returns how many there are."""
    if isinstance(file, gzip.GzipFile):
        starts: deque[int] = deque([0], maxlen=count + 1)
        total = 0
        for line in file:
            total += 1
            starts.append(starts[-1] + len(line))
        # One start more than lines: the end itself.
        file.seek(starts[0] if total >= count else 0)
        return min(total, count)
    position = file.seek(0, os.SEEK_END)
    newlines = 0
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            newlines += 1
            if newlines == count + 1:
                file.seek(position + at + 1)
                return count
    file.seek(0)
    return newlines


def _open_next(files: deque[LogFile], path: str) -> bool:
    """Append the file that comes after the last one, if there is one by now."""
    names = _names(path)
    wanted = path
    if files:
        mine = os.fstat(files[-1].fileno())
        place = next((i for i, name in enumerate(names) if _same(name, mine)), None)
        if place == 0:
            return False
        # Not found: it was gzipped or deleted meanwhile; what is newer than it begins nobody knows where, so take the newest.
        wanted = names[place - 1] if place is not None else path
    try:
        files.append(_open(wanted))
    except FileNotFoundError:
        return False
    return True


def _same(name: str, identity: os.stat_result) -> bool:
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (identity.st_dev, identity.st_ino)
