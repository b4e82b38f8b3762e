"""Capabilities of the calling process, by their names. Source: capabilities(7), linux/capability.h."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from bothy.linux import syscalls

NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
    "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
    "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(NAMES)}
_VERSION_3 = 0x20080522


_HEADER = struct.pack("=Ii", _VERSION_3, 0)  # struct __user_cap_header_struct, of the calling thread
_libc = ctypes.CDLL(None, use_errno=True)


def mask(names: Iterable[str]) -> int:
    """A bit set of names. Raises KeyError for a name that is none."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


def names(bits: int) -> list[str]:
    """The names in a bit set, in the order of their numbers; bits without a name are left out."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def _status(field: bytes) -> int:
    with open("/proc/self/status", "rb", buffering=0) as status:
        for line in status.read().split(b"\n"):
            if line.startswith(field):
                return int(line.split()[1], 16)
    return 0


def bounding() -> int:
    """The bounding set of the calling process."""
    return _status(b"CapBnd:")


def effective() -> int:
    """The effective set of the calling process."""
    return _status(b"CapEff:")


def limit_bounding(allowed: int) -> None:
    """Drop from the bounding set what is not in `allowed`. Needs CAP_SETPCAP; what the kernel does not know is passed over."""
    for number in range(len(NAMES)):
        if not allowed >> number & 1:
            try:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
            except OSError as exc:
                if exc.errno != 22:
                    raise


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of the calling thread."""
    low = 0xFFFFFFFF
    sets = (effective, permitted, inheritable)
    if _libc.capset(_HEADER, struct.pack("=6I", *(bits & low for bits in sets), *(bits >> 32 & low for bits in sets))):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "capset")


def clear_ambient() -> None:
    """Empty the ambient set."""
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
