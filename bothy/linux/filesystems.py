"""What is asked of a file system as a whole, and copies that share their blocks: ioctls of linux/fs.h and fs/ext4.

Every function takes descriptors of things in the file system that is meant.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator

FIFREEZE, FITHAW, FITRIM, FICLONE, EXT4_IOC_RESIZE_FS = 0xC0045877, 0xC0045878, 0xC0185879, 0x40049409, 0x40086610
_NO_CLONES = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ETXTBSY)
_CHUNK = 1 << 24


def freeze(fd: int) -> None:
    """Write everything out and let writers wait until `thaw`. OSError(EBUSY) if it is frozen already."""
    fcntl.ioctl(fd, FIFREEZE, 0)


def thaw(fd: int) -> bool:
    """Let writers go on. False if it was not frozen."""
    try:
        fcntl.ioctl(fd, FITHAW, 0)
    except OSError as exc:
        if exc.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY):
            return False
        raise
    return True


def trim(fd: int) -> None:
    """Give the blocks that are free back to the disk. Some 50 ms for 100 GiB of them. OSError(EOPNOTSUPP) where it can not."""
    fcntl.ioctl(fd, FITRIM, struct.pack("QQQ", 0, (1 << 64) - 1, 0))


def grow_ext4(fd: int, blocks: int) -> None:
    """Have a mounted ext4 use its device up to `blocks` of its own blocks. PermissionError without CAP_SYS_RESOURCE."""
    fcntl.ioctl(fd, EXT4_IOC_RESIZE_FS, struct.pack("Q", blocks))


def clone_file(source: int, target: int) -> bool:
    """Make the target a copy that shares the source's blocks (FICLONE). False where the file system can not."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as exc:
        if exc.errno in _NO_CLONES:
            return False
        raise
    return True


def copy_file(source: int, target: int, size: int) -> None:
    """Make the empty file `target` a copy of the `size` bytes of `source`: by shared blocks where it can be done, else by
    data, with the holes left out. Raises OSError; the target then has some of it."""
    if size and clone_file(source, target):
        return
    os.ftruncate(target, size)
    for start, end in extents(source, size):
        at = os.lseek(target, start, os.SEEK_SET)
        while at < end:  # copy_file_range(2) does not go from an overlay to another file system
            count = os.sendfile(target, source, at, min(end - at, _CHUNK))
            if not count:
                break
            at += count


def extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The pieces of a file of `size` bytes that are not holes, as (start, end)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # a hole to the end
                return
            raise
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < end:
            yield start, end
