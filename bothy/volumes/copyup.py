"""Fill an empty volume with what an image has at the place where the volume will be mounted.

The image's files were made by a stranger. So the path is resolved inside the image by the kernel (openat2, RESOLVE_IN_ROOT);
from there on every step is one name below an open folder, never followed if it is a link, and only new names are made.

The merged view of several layers is an overlay mounted in a mount namespace that a thread makes for itself: nobody else sees it,
and it is gone with the thread, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterable

from bothy.linux import mounts, syscalls

_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FOLDER = _PLAIN | os.O_DIRECTORY
_XATTRS = ("user.", "security.capability", "system.posix_acl_")
_CHUNK = 1 << 24


def copy_up(layers: list[str], destination: str, volume: str) -> bool:
    """Copy what the image of `layers` (topmost first) has at `destination` into the folder `volume`, if that is empty.

    True if the image has a folder there. Owners, modes, times, links, extended attributes and holes are kept; sockets are left
    out. Raises OSError; then the volume is empty again.
    """
    outcome: list[bool | BaseException] = []

    def work() -> None:
        try:
            outcome.append(_copy_up(layers, destination, volume))
        except BaseException as exc:  # raised below, in the caller's thread
            outcome.append(exc)

    thread = threading.Thread(target=work, name="copy-up")
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _copy_up(layers: list[str], destination: str, volume: str) -> bool:
    target = os.open(volume, _FOLDER)
    try:
        if os.listdir(target):
            return False
        image = _merged(layers)
        try:
            source = mounts.open_in_root(image, destination, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        finally:
            os.close(image)
        try:
            _Copy().folder(source, target)
        except BaseException:
            with os.scandir(target) as entries:
                names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for name, is_folder in names:
                with contextlib.suppress(OSError):
                    shutil.rmtree(name, dir_fd=target) if is_folder else os.unlink(name, dir_fd=target)
            raise
        finally:
            os.close(source)
        return True
    finally:
        os.close(target)


def _merged(layers: list[str]) -> int:
    """The root folder of the image; this thread gets a mount namespace of its own where there are several layers."""
    if len(layers) == 1:
        return os.open(layers[0], _FOLDER)
    syscalls.unshare(syscalls.CLONE_NEWNS)  # takes along a working folder of the thread's own
    mounts.make_private()
    place = os.path.dirname(os.path.abspath(layers[0]))
    fds = [os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for layer in layers]
    try:
        os.chdir("/proc/self/fd")  # mount(2) takes a page of options: names of layers as short as can be
        data = mounts.overlay_data([str(fd) for fd in fds], "", "")
        syscalls.mount("overlay", place, "overlay", syscalls.MS_RDONLY, data)
    finally:
        for fd in fds:
            os.close(fd)
    return os.open(place, _FOLDER)


class _Copy:
    """One copying: remembers which files with several names it has made already."""

    def __init__(self) -> None:
        self._linked: dict[tuple[int, int], tuple[int, str]] = {}
        self._kept: list[int] = []

    def folder(self, source: int, target: int) -> None:
        """The contents, then the attributes, of an open folder to another."""
        try:
            self._contents(source, target)
        finally:
            for fd in self._kept:
                os.close(fd)

    def _contents(self, source: int, target: int) -> None:
        for name in sorted(os.listdir(source)):
            self._entry(source, target, name)
        _attributes(source, target)

    def _entry(self, source: int, target: int, name: str) -> None:
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            below, made = os.open(name, _FOLDER, dir_fd=source), os.open(name, _FOLDER, dir_fd=target)
            try:
                self._contents(below, made)
            finally:
                os.close(below)
                os.close(made)
        elif not stat.S_ISSOCK(info.st_mode) and not self._linked_before(info, target, name):
            _leaf(source, target, name, info)

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


def _leaf(source: int, target: int, name: str, info: os.stat_result) -> None:
    """Copy one thing that is no folder."""
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)
    elif stat.S_ISREG(info.st_mode):
        below = os.open(name, _PLAIN, dir_fd=source)
        made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            _data(below, made, info.st_size)
            _attributes(below, made)
        finally:
            os.close(below)
            os.close(made)
    else:
        os.mknod(name, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _data(source: int, target: int, size: int) -> None:
    """Copy a file's data but not its holes."""
    os.ftruncate(target, size)
    for start, end in _extents(source, size):
        at = os.lseek(target, start, os.SEEK_SET)
        while at < end:  # copy_file_range(2) does not go from an overlay to another file system
            count = os.sendfile(target, source, at, min(end - at, _CHUNK))
            if not count:
                break
            at += count


def _extents(fd: int, size: int) -> Iterable[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # a hole to the end
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def _attributes(source: int, target: int) -> None:
    """Owner, mode, extended attributes and times. In this order: a new owner takes set-id bits and capabilities away."""
    info = os.fstat(source)
    os.fchown(target, info.st_uid, info.st_gid)
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    try:
        names = os.listxattr(source)
    except OSError:
        names = []
    for name in names:
        if name.startswith(_XATTRS):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError as exc:
                if exc.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
