"""From a tree to a tar: what is copied out of a workload, or into one.

    for part in Archiver().tree(folder, "name", b"name"): …      bytes, or pieces of open files
    … TRAILER

Every step is one name below an open folder, never followed if it is a link; a file is opened only after it was seen to be one, and
looked at again then. What changes while it is read is told as it was found: the reader has to make up for a file that has become
shorter.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from typing import NamedTuple

from bothy.errors import StageError
from bothy.tar import headers, writer

MAX_DEPTH = 1000  # each level is an open folder, in a comparison three
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
XATTRS = ("user.", "security.capability", "system.posix_acl_")
_DENIED = ("user.overlay.",)
_HOLES = 1 << 20  # bytes that must be saved for a file to be told as a sparse one
_MAX_PIECES = 1 << 16
_KINDS = {
    stat.S_IFDIR: headers.DIRECTORY, stat.S_IFLNK: headers.SYMLINK, stat.S_IFREG: headers.REGULAR, stat.S_IFIFO: headers.FIFO,
    stat.S_IFCHR: headers.CHARACTER, stat.S_IFBLK: headers.BLOCKDEV,
}  # fmt: skip


class Piece(NamedTuple):
    """`size` bytes of an open file from `at` on, to be read before the next part is asked for."""

    fd: int
    at: int
    size: int


Parts = Iterator[bytes | Piece]
TRAILER = writer.TRAILER


class Archiver:
    """Makes entries. `skipped`: the (device, inode) of folders whose contents are left out. `owner`: who everything belongs to, if
    not to whom it does."""

    def __init__(self, skipped: frozenset[tuple[int, int]] = frozenset(), owner: tuple[int, int] | None = None) -> None:
        self._skipped = skipped
        self._owner = owner
        self._seen: dict[tuple[int, int], bytes] = {}

    def tree(self, folder: int, name: str, shown: bytes, *, whole: bool = True) -> Parts:
        """What `name` is in an open folder, with all that is below it, called `shown` in the archive.

        Not `whole`: only what is below it. Raises OSError, StageError (nested too deeply).
        """
        levels: list[tuple[int, Iterator[str], bytes]] = []
        try:
            below = yield from self._enter(folder, name, shown, whole=whole, top=True)
            if below >= 0:
                levels.append((below, iter(sorted(os.listdir(below))), shown))
            while levels:
                fd, names, path = levels[-1]
                following = next(names, None)
                if following is None:
                    os.close(fd)
                    levels.pop()
                    continue
                label = _joined(path, following)
                try:
                    below = yield from self._enter(fd, following, label)
                    entries = os.listdir(below) if below >= 0 else []
                except FileNotFoundError:
                    continue  # it has gone meanwhile
                if below >= 0:
                    levels.append((below, iter(sorted(entries)), label))
                    if len(levels) > MAX_DEPTH:
                        raise StageError("read", "folders are nested too deeply", errno=errno.ELOOP)
        finally:
            for fd, _, _ in levels:
                os.close(fd)

    def one(self, folder: int, name: str, shown: bytes) -> Parts:
        """What `name` is in an open folder, without what is below it."""
        below = yield from self._enter(folder, name, shown, alone=True)
        if below >= 0:
            os.close(below)

    def _enter(
        self, folder: int, name: str, shown: bytes, *, whole: bool = True, top: bool = False, alone: bool = False
    ) -> Generator[bytes | Piece, None, int]:
        """One entry; returns a folder's descriptor if its contents are to follow, else -1."""
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            fd = os.open(name, FOLDER, dir_fd=folder)
            if whole:
                yield self._header(shown, os.fstat(fd), _xattrs(fd))
            if alone or (not top and (status.st_dev, status.st_ino) in self._skipped):
                os.close(fd)
                return -1
            return fd
        if status.st_nlink > 1:
            first = self._seen.setdefault((status.st_dev, status.st_ino), shown)
            if first is not shown:
                yield self._header(shown, status, {}, kind=headers.HARDLINK, link=first)
                return -1
        if stat.S_ISREG(status.st_mode):
            yield from self._file(folder, name, shown)
        elif stat.S_ISLNK(status.st_mode):
            yield self._header(shown, status, {}, link=os.fsencode(os.readlink(name, dir_fd=folder)))
        elif not stat.S_ISSOCK(status.st_mode):  # which no tar can hold
            yield self._header(shown, status, {})
        return -1

    def _file(self, folder: int, name: str, shown: bytes) -> Parts:
        fd = os.open(name, _FILE, dir_fd=folder)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return  # somebody has put something else in its place
            pieces = _pieces(fd, status)
            if pieces is None:
                yield self._header(shown, status, _xattrs(fd), size=status.st_size)
                yield Piece(fd, 0, status.st_size)
                yield writer.padding(status.st_size)
                return
            size, extra = sum(length for _, length in pieces), writer.sparse_map(pieces)
            yield self._header(shown, status, _xattrs(fd), size=size, sparse=(status.st_size, len(extra))) + extra
            for offset, length in pieces:
                yield Piece(fd, offset, length)
            yield writer.padding(size)
        finally:
            os.close(fd)

    def _header(
        self,
        shown: bytes,
        status: os.stat_result,
        xattrs: dict[bytes, bytes],
        *,
        kind: bytes = b"",
        size: int = 0,
        link: bytes = b"",
        sparse: tuple[int, int] | None = None,
    ) -> bytes:
        uid, gid = self._owner or (status.st_uid, status.st_gid)
        return writer.header(
            shown,
            kind or _KINDS[stat.S_IFMT(status.st_mode)],
            mode=status.st_mode,
            uid=uid,
            gid=gid,
            size=size,
            mtime=status.st_mtime_ns // 1_000_000_000,
            link=link,
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
            xattrs=xattrs,
            sparse=sparse,
        )


def _joined(path: bytes, name: str) -> bytes:
    return (path if path.endswith(b"/") or not path else path + b"/") + os.fsencode(name)


def _xattrs(fd: int) -> dict[bytes, bytes]:
    """The extended attributes that an archive may bring."""
    try:
        names = os.listxattr(fd)
    except OSError:
        return {}
    found = {}
    for name in names:
        if name.startswith(XATTRS) and not name.startswith(_DENIED):
            try:
                found[os.fsencode(name)] = os.getxattr(fd, name)
            except OSError:
                continue  # it has gone meanwhile
    return found


def _pieces(fd: int, status: os.stat_result) -> list[tuple[int, int]] | None:
    """Where a file with large holes has data, as (offset, length); None for any other."""
    size = status.st_size
    if status.st_blocks * 512 > size - _HOLES:
        return None
    found: list[tuple[int, int]] = []
    end = 0
    try:
        while end < size and len(found) <= _MAX_PIECES:
            try:
                start = os.lseek(fd, end, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno == errno.ENXIO:  # a hole to the end
                    break
                raise
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            found.append((start, end - start))
    except OSError:
        return None  # a file system that does not tell
    if len(found) > _MAX_PIECES or sum(length for _, length in found) > size - _HOLES:
        return None
    return [*found, (size, 0)]
