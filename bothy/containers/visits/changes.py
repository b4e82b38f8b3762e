"""What a workload has changed in its root, as Docker tells it, and as a layer.

Docker compares the whole tree with the image's. Here only what the workload's own layer has is looked at: what is not in there has
not changed.

    upper     its own layer as it is on the disk, with overlayfs's whiteouts
    lower     what is below it, merged
    merged    both

A file that was opened for writing, and is as it was, is in the upper layer and no change. Neither are folders that only have other
times, nor the empty files and folders that are there for us to mount something on.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from bothy.containers.visits.wire import Line
from bothy.errors import StageError
from bothy.linux import syscalls
from bothy.tar import writer
from bothy.tar.pack import FOLDER, MAX_DEPTH, Archiver, Parts

MODIFIED, ADDED, DELETED = 0, 1, 2  # Docker's numbers
_CAPABILITY = "security.capability"
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_WHITEOUT = b".wh."

Change = tuple[str, int]


@dataclass(frozen=True)
class Trees:
    """Descriptors of the three folders."""

    upper: int
    lower: int
    merged: int


@dataclass
class _Level:
    """A folder that is being compared: descriptors (`lower` is -1 where there is nothing to compare with), the names left,
    and whether they are still there."""

    upper: int
    lower: int
    merged: int
    path: str
    names: Iterator[tuple[str, bool]]
    at: int
    told: bool
    fds: list[int] = field(default_factory=list)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class _Comparison:
    def __init__(self, own: frozenset[str]) -> None:
        self._own = own
        self.found: list[Change] = []

    def run(self, trees: Trees) -> None:
        levels = [self._level(trees.upper, trees.lower, trees.merged, "", told=True)]
        try:
            while levels:
                level = levels[-1]
                name, there = next(level.names, ("", False))
                if not name:
                    levels.pop().close()
                    if not level.told and len(self.found) > level.at:
                        self.found.insert(level.at, (level.path, MODIFIED))
                    continue
                below = self._look(level, name, there=there)
                if below is not None:
                    levels.append(below)
                    if len(levels) > MAX_DEPTH:
                        raise StageError("compare", "folders are nested too deeply", errno=errno.ELOOP)
        finally:
            for level in levels:
                level.close()

    def _level(self, upper: int, lower: int, merged: int, path: str, *, told: bool, fds: tuple[int, ...] = ()) -> _Level:
        own = os.listdir(upper)
        there = set(os.listdir(merged))
        gone = [name for name in os.listdir(lower) if name not in there] if lower >= 0 else []
        names = sorted({*own, *gone})
        listed = iter([(name, name in there) for name in names])
        return _Level(upper, lower, merged, path, listed, len(self.found), told, [*fds])

    def _look(self, level: _Level, name: str, *, there: bool) -> _Level | None:
        """Compare one entry; the folder that is to be compared next, if it is one."""
        path = f"{level.path}/{name}"
        old = _status(level.lower, name) if level.lower >= 0 else None
        new = _status(level.merged, name) if there else None
        if new is None:
            if old is not None:
                self.found.append((path, DELETED))
            return None
        if old is None and path in self._own and _is_place(level.merged, name, new):
            return None
        changed = old is None or _differ(level, name, old, new)
        if changed:
            self.found.append((path, ADDED if old is None else MODIFIED))
        if not stat.S_ISDIR(new.st_mode):
            return None
        return self._below(level, name, path, both=old is not None and stat.S_ISDIR(old.st_mode), told=changed)

    def _below(self, level: _Level, name: str, path: str, *, both: bool, told: bool) -> _Level | None:
        fds: list[int] = []
        try:
            for folder in (level.upper, level.merged, *([level.lower] if both else [])):
                fds.append(os.open(name, FOLDER, dir_fd=folder))
            return self._level(fds[0], fds[2] if both else -1, fds[1], path, told=told, fds=tuple(fds))
        except OSError as exc:
            for fd in fds:
                os.close(fd)
            if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None  # it has gone meanwhile
            raise


def compare(trees: Trees, own: frozenset[str] = frozenset()) -> list[Change]:
    """The changes, sorted by path: (path, MODIFIED, ADDED or DELETED). Raises OSError, StageError."""
    comparison = _Comparison(own)
    comparison.run(trees)
    return sorted(comparison.found)


def tell(line: Line, found: list[Change]) -> None:
    """The changes as data: one JSON list a line."""
    for path, kind in found:
        line.write(json.dumps([path, kind]).encode() + b"\n")
    line.flush()


def layer(trees: Trees, found: list[Change]) -> Parts:
    """The changes as the tar of a layer. Source: image-spec, layer.md. Raises OSError."""
    archiver = Archiver()
    known, folder = "", os.dup(trees.merged)
    try:
        for path, kind in found:
            parent, name = posixpath.split(path)
            if kind == DELETED:
                place = os.fsencode(posixpath.join(parent, "")[1:])
                yield writer.header(place + _WHITEOUT + os.fsencode(name))
                continue
            try:
                if parent != known or not known:
                    fresh = syscalls.openat2(trees.merged, f".{parent}", FOLDER & ~os.O_NOFOLLOW, _BENEATH)
                    os.close(folder)
                    known, folder = parent, fresh
                yield from archiver.one(folder, name, os.fsencode(path.lstrip("/")))
            except (FileNotFoundError, NotADirectoryError):
                continue  # it has gone meanwhile
    finally:
        os.close(folder)


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _differ(level: _Level, name: str, old: os.stat_result, new: os.stat_result) -> bool:
    """Docker's comparison: times and sizes of folders do not count."""
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return True
    if not stat.S_ISDIR(new.st_mode) and (old.st_mtime_ns, old.st_size) != (new.st_mtime_ns, new.st_size):
        return True
    return stat.S_ISREG(new.st_mode) and _capability(level.lower, name) != _capability(level.merged, name)


def _capability(folder: int, name: str) -> bytes:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return b""
    try:
        return os.getxattr(fd, _CAPABILITY)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _is_place(folder: int, name: str, status: os.stat_result) -> bool:
    """Whether it is an empty folder or file."""
    if stat.S_ISREG(status.st_mode):
        return not status.st_size
    if not stat.S_ISDIR(status.st_mode):
        return False
    try:
        fd = os.open(name, FOLDER, dir_fd=folder)
    except OSError:
        return False
    try:
        return not os.listdir(fd)
    finally:
        os.close(fd)
