"""Loop devices: a file of the host seen as a disk (loop(4), linux/loop.h).

A device is set up with LO_FLAGS_AUTOCLEAR: it goes by itself when nothing has it open and nothing is mounted from it any more. So
there is nothing to take back here, whoever dies when.

Two devices on one file would be two caches of one file system, and its end. `attached` therefore looks for a device that has the
file already: one that a mount in some other mount namespace still holds, for example.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator

LOOP_SET_CAPACITY, LOOP_GET_STATUS64, LOOP_CONFIGURE, LOOP_CTL_GET_FREE = 0x4C07, 0x4C05, 0x4C0A, 0x4C82
_AUTOCLEAR, _DIRECT_IO = 4, 16
_INFO = struct.Struct("<QQQQQIIII64s64s32sQQ")  # struct loop_info64
_CONFIG = struct.Struct(f"<II{_INFO.size}s64s")  # struct loop_config
_TRIES = 64
_NAME = re.compile(r"loop\d+")


@contextlib.contextmanager
def attached(path: str) -> Iterator[str]:
    """The device (`/dev/loop0`) of the file at `path`, for as long as it takes to mount it; afterwards the mount keeps it.

    Direct I/O, so that the file's data is cached once. Raises OSError (EBUSY after many tries: others take every free device).
    """
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        device = _existing(file)
        if device < 0:
            device = _new(file, path)
        try:
            yield os.readlink(f"/proc/self/fd/{device}")
        finally:
            os.close(device)
    finally:
        os.close(file)


def device_of(path: str) -> str:
    """The device that has the file at `path`, empty if none has. It may go as soon as it is told, but while something holds it."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        device = _existing(file)
        if device < 0:
            return ""
        name = os.readlink(f"/proc/self/fd/{device}")
        os.close(device)
        return name
    finally:
        os.close(file)


def file_has_grown(device: str) -> None:
    """Tell a device that its file is larger now (LOOP_SET_CAPACITY). Raises OSError."""
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, LOOP_SET_CAPACITY)
    finally:
        os.close(fd)


def _existing(file: int) -> int:
    """An open device of that file, -1 if there is none."""
    wanted = os.fstat(file)
    for name in os.listdir("/sys/block"):
        if not _NAME.fullmatch(name) or not os.path.exists(f"/sys/block/{name}/loop/backing_file"):
            continue
        try:
            device = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        # Asked after it was opened: from here on it can not be cleared and given another file.
        if _is_of(device, wanted):
            return device
        os.close(device)
    return -1


def _is_of(device: int, wanted: os.stat_result) -> bool:
    status = bytearray(_INFO.size)
    try:
        fcntl.ioctl(device, LOOP_GET_STATUS64, status)
    except OSError:
        return False
    encoded, inode = _INFO.unpack(status)[:2]
    major, minor = (encoded & 0xFFF00) >> 8, (encoded & 0xFF) | ((encoded >> 12) & 0xFFF00)  # new_decode_dev of the kernel
    return (major, minor, inode) == (os.major(wanted.st_dev), os.minor(wanted.st_dev), wanted.st_ino)


def _new(file: int, path: str) -> int:
    """An open device, set up for the file."""
    name = os.fsencode(path)[-63:]
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR | _DIRECT_IO, name, b"", b"", 0, 0)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            device = os.open(f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, _CONFIG.pack(file, 0, info, b""))
                return device
            except OSError as exc:
                os.close(device)
                if exc.errno != errno.EBUSY:  # somebody was quicker to take this one
                    raise
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device", path)
