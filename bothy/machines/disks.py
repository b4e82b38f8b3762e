"""A machine's own disk: ext4, thin, the upper half of its overlay.

It is made once, with the template (mkfs, then mounted in the machine that is saved), and copied for every machine: the template's
kernel has it mounted already, in the very state that the copy is in, so that a fresh machine mounts nothing. Only the blocks that
are there are copied, some hundred kilobytes; the rest is a hole. What the guest discards becomes a hole again.

A disk that was used must never stand where the template's kernel believes its own to be, not even to be unmounted: the kernel would
write over its superblock what it knows of the template's, and with it away goes the journal. So machines have a place for either
kind, and behind the other one is nothing:

                  /dev/vdb (mounted in the template)      /dev/vdc
    first life    the new disk                            nothing
    later ones    nothing: the mount is let go of         the disk, mounted with its journal
"""

from __future__ import annotations

import errno
import fcntl
import os

SIZE = 64 << 30
_FICLONE = 0x40049409  # linux/fs.h


def copy(source: str, target: str) -> None:
    """A thin copy of `source` at `target`, whole or not at all. FileExistsError if there is one; OSError (ENOSPC, …)."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    unfinished = f"{target}.part"
    origin = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            copy_data(origin, fd)
        except BaseException:
            os.unlink(unfinished)
            raise
        finally:
            os.close(fd)
        os.rename(unfinished, target)
    finally:
        os.close(origin)


def copy_data(origin: int, target: int) -> None:
    """Share the blocks if the file system can; else copy what is not a hole."""
    try:
        fcntl.ioctl(target, _FICLONE, origin)
        return
    except OSError as exc:
        if exc.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
            raise
    size = os.fstat(origin).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(origin, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            raise
        end = os.lseek(origin, at, os.SEEK_HOLE)
        while at < end:
            at += _copy_piece(origin, target, at, end - at)


def _copy_piece(origin: int, target: int, at: int, length: int) -> int:
    try:
        done = os.copy_file_range(origin, target, length, at, at)
    except OSError as exc:
        if exc.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        done = os.pwrite(target, os.pread(origin, min(length, 1 << 20), at), at)
    if not done:
        raise OSError(errno.EIO, "the file became shorter while it was copied")
    return done
