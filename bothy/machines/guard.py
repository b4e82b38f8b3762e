"""The seccomp filter of a clone's QEMU: what it may not do at all, and two things about which the keeper is asked.

What QEMU's own `-sandbox` denies (old calls, other ids, new processes, priorities) is denied here, with more that it never needs:
QEMU takes 8 ms to compile its filter at each start, this one is a constant.

The other part keeps a template safe from its clones (seccomp_unotify(2)).

QEMU opens the RAM file for reading and writing even where it maps it privately, and to give a page back that its guest has freed
(free page reporting, the balloon) it punches a hole into that file: into the template, under the feet of all other clones. So two
system calls of a clone are decided here:

    openat(…, O_RDWR) of the RAM file      a descriptor that can only read is put in its place; a private mapping needs no more
    fallocate of the RAM file              said to have worked; QEMU then drops its own copy of the page, which is what was wanted

Everything else goes on as it would have. A QEMU that was taken over by its guest can not write to the template either.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

PATH = "/machine/ram"  # how QEMU calls it

# linux/seccomp.h, linux/filter.h, linux/audit.h
_SET_MODE_FILTER, _FLAG_NEW_LISTENER = 1, 8
_ALLOW, _USER_NOTIF, _REFUSE, _KILL = 0x7FFF0000, 0x7FC00000, 0x00050000, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_LEAST, _JUMP_SET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ARCH_X86_64, _X32, _ARGUMENTS = 0xC000003E, 0x40000000, 16
_CLONE_THREAD = 0x10000
_NR_SECCOMP, _NR_OPENAT, _NR_FALLOCATE, _NR_CLONE, _NR_CLONE3 = 317, 257, 285, 56, 435

# By number: /usr/include/x86_64-linux-gnu/asm/unistd_64.h
_DENIED = (
    134, 136, 139, 156, 174, 177, 178, 180, 181, 182, 183, 184, 185, 236,  # uselib, ustat, sysfs, _sysctl, …: obsolete
    105, 106, 109, 112, 113, 114, 116, 117, 119, 122, 123, 126,  # setuid … setfsgid, setpgid, setsid, setgroups, capset
    57, 58,  # fork, vfork
    141, 142, 144, 203, 314,  # setpriority, sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr
    101, 310, 311, 312, 438,  # ptrace, process_vm_readv, process_vm_writev, kcmp, pidfd_getfd
    155, 161, 165, 166, 272, 308, 428, 429, 430, 431, 432, 433, 442,  # pivot_root, chroot, mount …, unshare, setns
    103, 163, 167, 168, 169, 175, 176, 179, 246, 313, 320, 153,  # syslog, acct, swapon, reboot, modules, kexec, vhangup
    159, 164, 227, 305, 170, 171, 172, 173,  # clocks, host name, iopl, ioperm
    248, 249, 250, 298, 303, 304, 321, 323, 425, 426, 427,  # keys, perf, handles, bpf, userfaultfd, io_uring
)  # fmt: skip
_RECEIVE, _SEND, _ADD_FD = 0xC0502100, 0xC0182101, 0x40182103
_CONTINUE, _ADD_FD_SEND = 1, 2
_NOTIF = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, then seccomp_data: nr, arch, instruction pointer, args
_RESPONSE = struct.Struct("=QqiI")
_ADDFD = struct.Struct("=QIIII")

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def program() -> bytes:
    """The filter, as BPF. Put together from blocks, each of which ends in a decision or falls through to the next one."""
    denied = [(_JUMP_EQUAL, number, 0, 1, _RETURN, _REFUSE | errno.EPERM) for number in _DENIED]
    blocks: list[list[tuple[int, int, int, int]]] = [
        [(_LOAD, 4, 0, 0), (_JUMP_EQUAL, _ARCH_X86_64, 1, 0), (_RETURN, _KILL, 0, 0)],
        [(_LOAD, 0, 0, 0), (_JUMP_LEAST, _X32, 0, 1), (_RETURN, _REFUSE | errno.ENOSYS, 0, 0)],
        [(_JUMP_EQUAL, _NR_CLONE3, 0, 1), (_RETURN, _REFUSE | errno.ENOSYS, 0, 0)],  # flags out of sight; clone is used instead
        [(_JUMP_EQUAL, _NR_FALLOCATE, 0, 1), (_RETURN, _USER_NOTIF, 0, 0)],
        [
            (_JUMP_EQUAL, _NR_OPENAT, 0, 5),
            (_LOAD, _ARGUMENTS + 2 * 8, 0, 0),  # flags
            (_AND, os.O_ACCMODE, 0, 0),
            (_JUMP_EQUAL, os.O_RDWR, 0, 1),
            (_RETURN, _USER_NOTIF, 0, 0),
            (_RETURN, _ALLOW, 0, 0),
        ],
        [
            (_JUMP_EQUAL, _NR_CLONE, 0, 4),
            (_LOAD, _ARGUMENTS, 0, 0),  # flags
            (_JUMP_SET, _CLONE_THREAD, 0, 1),
            (_RETURN, _ALLOW, 0, 0),
            (_RETURN, _REFUSE | errno.EPERM, 0, 0),
        ],
        *([(code, number, true, false), (end, value, 0, 0)] for code, number, true, false, end, value in denied),
        [(_RETURN, _ALLOW, 0, 0)],
    ]
    return b"".join(struct.pack("=HBBI", code, true, false, value) for block in blocks for code, value, true, false in block)


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
