"""Copy a tree of files that somebody else filled, and may be changing meanwhile.

Every step is one name below an open folder, never followed if it is a link, and only new names are made: whatever the owner of the
source does while it is read, nothing outside of it is read, and nothing outside of the target is written. Data is shared with the
source where the file system can do that (FICLONE), holes stay holes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable

from bothy.linux import filesystems

PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
FOLDER = PLAIN | os.O_DIRECTORY
DEEPEST = 400  # folders within folders; two descriptors each
Wanted = Callable[[str], bool]


def everything(_: str) -> bool:
    """Every extended attribute is wanted."""
    return True


class Copy:
    """One copying: remembers which files with several names it has made already.

    `wanted` says which extended attributes are taken along. `changing`: the source is in use, so what vanishes between being seen
    and being opened is left out.
    """

    def __init__(self, wanted: Wanted = everything, *, changing: bool = False) -> None:
        self._wanted = wanted
        self._changing = changing
        self._linked: dict[tuple[int, int], tuple[int, str]] = {}
        self._kept: list[int] = []

    def folder(self, source: int, target: int) -> None:
        """The contents, then the attributes, of an open folder to another. Owners, modes, times, links, extended attributes and
        holes are kept; sockets are left out. Raises OSError; what was copied by then stays."""
        try:
            self._contents(source, target, 0)
        finally:
            for fd in self._kept:
                os.close(fd)
            self._kept.clear()

    def entry(self, source: int, target: int, name: str, new: str) -> None:
        """One thing of an open folder, under a new name in another. Raises likewise."""
        try:
            self._entry(source, target, name, new, 0)
        finally:
            for fd in self._kept:
                os.close(fd)
            self._kept.clear()

    def _contents(self, source: int, target: int, depth: int) -> None:
        if depth > DEEPEST:
            raise OSError(errno.ELOOP, f"folders are nested more than {DEEPEST} deep")
        for name in sorted(os.listdir(source)):
            try:
                self._entry(source, target, name, name, depth)
            except FileNotFoundError:
                if not self._changing:
                    raise
        self._attributes(source, target)

    def _entry(self, source: int, target: int, name: str, new: str, depth: int) -> None:
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            below = os.open(name, FOLDER, dir_fd=source)
            try:
                os.mkdir(new, 0o700, dir_fd=target)
                made = os.open(new, FOLDER, dir_fd=target)
                try:
                    self._contents(below, made, depth + 1)
                finally:
                    os.close(made)
            finally:
                os.close(below)
        elif not stat.S_ISSOCK(info.st_mode) and not self._linked_before(info, target, new):
            self._leaf(source, target, name, new, info)

    def _linked_before(self, info: os.stat_result, target: int, name: str) -> bool:
        """Link a file that has been copied under another of its names; remember one that has more."""
        if info.st_nlink < 2:
            return False
        known = self._linked.get((info.st_dev, info.st_ino))
        if known:
            os.link(known[1], name, src_dir_fd=known[0], dst_dir_fd=target, follow_symlinks=False)
            return True
        self._kept.append(os.dup(target))
        self._linked[info.st_dev, info.st_ino] = (self._kept[-1], name)
        return False

    def _leaf(self, source: int, target: int, name: str, new: str, info: os.stat_result) -> None:
        """Copy one thing that is no folder."""
        if stat.S_ISREG(info.st_mode):
            self._file(source, target, name, new)
            return
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), new, dir_fd=target)
        else:
            os.mknod(new, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=target)
        os.chown(new, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(new, stat.S_IMODE(info.st_mode), dir_fd=target)
        os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _file(self, source: int, target: int, name: str, new: str) -> None:
        below = os.open(name, PLAIN, dir_fd=source)
        try:
            info = os.fstat(below)
            if not stat.S_ISREG(info.st_mode):  # it was one when it was looked at
                raise FileNotFoundError(errno.ENOENT, "it changed while it was copied", name)
            made = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target)
            try:
                filesystems.copy_file(below, made, info.st_size)
                self._attributes(below, made)
            finally:
                os.close(made)
        finally:
            os.close(below)

    def _attributes(self, source: int, target: int) -> None:
        """Owner, mode, extended attributes and times. In this order: a new owner takes set-id bits and capabilities away."""
        info = os.fstat(source)
        os.fchown(target, info.st_uid, info.st_gid)
        os.fchmod(target, stat.S_IMODE(info.st_mode))
        try:
            names = os.listxattr(source)
        except OSError:
            names = []
        for name in names:
            if self._wanted(name):
                try:
                    os.setxattr(target, name, os.getxattr(source, name))
                except OSError as exc:
                    if exc.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENODATA):
                        raise
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def copy_tree(source: str, target: str, *, changing: bool = False) -> None:
    """The contents and attributes of a folder to another, empty one. Raises OSError."""
    below = os.open(source, FOLDER)
    try:
        made = os.open(target, FOLDER)
        try:
            Copy(changing=changing).folder(below, made)
        finally:
            os.close(made)
    finally:
        os.close(below)


def is_empty(folder: int | str) -> bool:
    """Whether nothing is in a folder; as quick for one with a million files. Raises OSError."""
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def empty(folder: int) -> None:
    """Remove what is in an open folder, as far as possible. Raises nothing."""
    with os.scandir(folder) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in names:
        with contextlib.suppress(OSError, RecursionError):
            shutil.rmtree(name, dir_fd=folder) if is_folder else os.unlink(name, dir_fd=folder)
