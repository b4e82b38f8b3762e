"""Keeps a template safe from its clones, by a seccomp filter that asks the keeper (seccomp_unotify(2)).

QEMU opens the RAM file for reading and writing even where it maps it privately, and to give a page back that its guest has freed
(free page reporting, the balloon) it punches a hole into that file: into the template, under the feet of all other clones. So two
system calls of a clone are decided here:

    openat(…, O_RDWR) of the RAM file      a descriptor that can only read is put in its place; a private mapping needs no more
    fallocate of the RAM file              said to have worked; QEMU then drops its own copy of the page, which is what was wanted

Everything else goes on as it would have. A QEMU that was taken over by its guest can not write to the template either.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

PATH = "/machine/ram"  # how QEMU calls it

# linux/seccomp.h, linux/filter.h, linux/audit.h
_SET_MODE_FILTER, _FLAG_NEW_LISTENER = 1, 8
_ALLOW, _USER_NOTIF = 0x7FFF0000, 0x7FC00000
_LOAD, _JUMP_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_ARCH_X86_64 = 0xC000003E
_NR_SECCOMP, _NR_OPENAT, _NR_FALLOCATE = 317, 257, 285
_RECEIVE, _SEND, _ADD_FD = 0xC0502100, 0xC0182101, 0x40182103
_CONTINUE, _ADD_FD_SEND = 1, 2
_NOTIF = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, then seccomp_data: nr, arch, instruction pointer, args
_RESPONSE = struct.Struct("=QqiI")
_ADDFD = struct.Struct("=QIIII")

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def program() -> bytes:
    """The filter: ask about openat with O_RDWR and about fallocate, allow the rest."""

    def step(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, true, false, value)

    return b"".join(
        [
            step(_LOAD, 4),  # arch
            step(_JUMP_EQUAL, _ARCH_X86_64, 0, 6),
            step(_LOAD, 0),  # number of the system call
            step(_JUMP_EQUAL, _NR_FALLOCATE, 5, 0),
            step(_JUMP_EQUAL, _NR_OPENAT, 0, 3),
            step(_LOAD, 16 + 2 * 8),  # flags, the third argument
            step(_AND, os.O_ACCMODE),
            step(_JUMP_EQUAL, os.O_RDWR, 1, 0),
            step(_RETURN, _ALLOW),
            step(_RETURN, _USER_NOTIF),
        ]
    )


def install() -> int:
    """Put the calling process (and what it execs) under the filter; the descriptor on which to ask. Raises OSError."""
    code = program()
    filter_ = _Program(len(code) // 8, code)
    fd: int = _libc.syscall(ctypes.c_long(_NR_SECCOMP), _SET_MODE_FILTER, _FLAG_NEW_LISTENER, ctypes.byref(filter_))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "seccomp")
    return fd


class Guard:
    """The keeper's side; `listener` and `ram` (the template's RAM file, opened for reading) belong to it from here on."""

    def __init__(self, listener: int, ram: int) -> None:
        self.listener = listener
        self._ram = ram
        status = os.fstat(ram)
        self._identity = (status.st_dev, status.st_ino)

    def close(self) -> None:
        os.close(self.listener)
        os.close(self._ram)

    def answer(self) -> None:
        """Decide what is asked. To be called when the listener is readable; a QEMU that has gone meanwhile is no error."""
        question = bytearray(_NOTIF.size)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, question)
            identity, pid, _, number, _, _, *arguments = _NOTIF.unpack(question)
            if number == _NR_OPENAT and self._names_ram(pid, arguments[1]):
                fcntl.ioctl(self.listener, _ADD_FD, _ADDFD.pack(identity, _ADD_FD_SEND, self._ram, 0, os.O_CLOEXEC))
            elif number == _NR_FALLOCATE and self._is_ram(pid, arguments[0]):
                fcntl.ioctl(self.listener, _SEND, bytearray(_RESPONSE.pack(identity, 0, 0, 0)))
            else:
                fcntl.ioctl(self.listener, _SEND, bytearray(_RESPONSE.pack(identity, 0, 0, _CONTINUE)))
        except OSError:
            return

    def _names_ram(self, pid: int, address: int) -> bool:
        wanted = PATH.encode() + b"\0"
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(len(wanted)) == wanted

    def _is_ram(self, pid: int, fd: int) -> bool:
        status = os.stat(f"/proc/{pid}/fd/{fd & 0xFFFFFFFF}")
        return (status.st_dev, status.st_ino) == self._identity
