"""The layout of images' disks, by which a clone need not mount them.

    an EROFS file system
    └── image/             the image's tree; nothing else is beside it

A template has an empty disk of this layout mounted, and the overlay over it. A clone finds another disk in its place: all that its
kernel remembers of the file system are the superblock and the inode of the root folder, and those are the same on every disk
that was made this way (`fingerprint`). Everything below is read when it is looked for. A disk of another layout is mounted anew.

Source of the format: fs/erofs/erofs_fs.h of the kernel.
"""

from __future__ import annotations

import os
import struct

FOLDER = "image"
TIME = 1  # seconds since 1970: the time of the root folder, part of its inode
_SUPERBLOCK, _LENGTH, _BLOCK = 1024, 128, 4096
_MAGIC = 0xE0F5E1E2
# What differs from disk to disk, and what the kernel uses for nothing but statfs(2): (offset, length) in the superblock.
_VARIES = ((4, 4), (16, 24), (48, 32))  # checksum; inodes, time of making, blocks; UUID, name
_INODE = 64


def arrange(folder: str) -> str:
    """Make `folder` (empty, a file system of its own as a rule) the root of a disk; returns where the image's tree goes."""
    place = f"{folder}/{FOLDER}"
    os.mkdir(place, 0o755)
    os.chmod(folder, 0o755)
    os.utime(folder, (TIME, TIME))
    return place


def fingerprint(disk: int) -> str:
    """What a kernel that has mounted the disk (a descriptor) remembers of it; empty if it is no EROFS."""
    data = os.pread(disk, _SUPERBLOCK + _LENGTH, 0)[_SUPERBLOCK:]
    if len(data) < _LENGTH or struct.unpack_from("<I", data)[0] != _MAGIC:
        return ""
    (root,) = struct.unpack_from("<H", data, 14)
    (meta,) = struct.unpack_from("<I", data, 40)
    inode = os.pread(disk, _INODE, meta * _BLOCK + root * 32)
    superblock = bytearray(data)
    for offset, length in _VARIES:
        superblock[offset : offset + length] = bytes(length)
    return (bytes(superblock) + inode).hex()
