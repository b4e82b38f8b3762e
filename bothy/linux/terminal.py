"""Pseudoterminals of a devpts that belongs to somebody else. Sources: pts(4), ioctl_tty(2), statfs(2)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct
import termios

from bothy.linux import mounts

TIOCSPTLCK, TIOCGPTPEER, TIOCGPTN = 0x40045431, 0x5441, 0x80045430
_DEVPTS_SUPER_MAGIC = 0x1CD1
_PTMX = os.makedev(5, 2)
_libc = ctypes.CDLL(None, use_errno=True)


def open_pty(root: int) -> tuple[int, int]:
    """A new pty of the devpts at /dev/pts inside `root`: (master, slave), both close-on-exec.

    The folder may have been tampered with from inside: OSError(ENOTTY) unless it really is a ptmx node of a devpts.
    """
    probe = mounts.open_in_root(root, "/dev/pts/ptmx", os.O_PATH | os.O_NOFOLLOW)
    try:
        status = os.fstat(probe)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX or _fstype(probe) != _DEVPTS_SUPER_MAGIC:
            raise OSError(25, "not a terminal multiplexer", "/dev/pts/ptmx")
        master = os.open(f"/proc/self/fd/{probe}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(probe)
    try:
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(master)
        raise
    return master, slave


def _fstype(fd: int) -> int:
    """The magic number of the file system of an open file, by fstatfs(2)."""
    buffer = (ctypes.c_long * 32)()
    if _libc.fstatfs(fd, buffer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), fd)
    return buffer[0]


def number(master: int) -> int:
    """Which pts the slave of `master` is."""
    packed: bytes = fcntl.ioctl(master, TIOCGPTN, bytes(4))
    return int(struct.unpack("I", packed)[0])


def set_size(fd: int, height: int, width: int) -> None:
    """TIOCSWINSZ, in characters."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def take_control(slave: int) -> None:
    """Make `slave` the controlling terminal of the calling session leader and its standard streams."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd, inheritable=True)
