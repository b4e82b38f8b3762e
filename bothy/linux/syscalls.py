"""System calls that Python 3.11's standard library has no function for, by ctypes. Nothing more.

Names and arguments are those of the man pages; every failure is an OSError with the path or name that it was about. Constants stand
beside the calls that use them. Convenience and policy are elsewhere (`mounts`, `namespaces`, `capabilities`, …).

Numbers: system calls from 424 on have one number on every architecture; the older ones that glibc does not wrap are in `_NUMBERS`.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_DEFAULT_ACTION = bytes(32)  # the kernel's struct sigaction: SIG_DFL, no flags, no restorer, no mask
_SIGSET_BYTES = 8

_NUMBERS = {
    "x86_64": {"rt_sigaction": 13, "pivot_root": 155, "keyctl": 250, "seccomp": 317, "bpf": 321},
    "aarch64": {"rt_sigaction": 134, "pivot_root": 41, "keyctl": 219, "seccomp": 277, "bpf": 280},
}
_NUMBER = _NUMBERS.get(os.uname().machine, _NUMBERS["aarch64"])  # the other new architectures share arm64's table
_OPEN_TREE, _MOVE_MOUNT, _CLONE3, _CLOSE_RANGE, _OPENAT2, _MOUNT_SETATTR = 428, 429, 435, 436, 437, 442

AT_FDCWD = -100
AT_EMPTY_PATH, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT = 0x1000, 0x8000, 0x100, 0x800

# mount(2), umount2(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS, MS_REMOUNT, MS_MANDLOCK, MS_DIRSYNC = 1, 2, 4, 8, 16, 32, 64, 128
MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_MOVE, MS_REC, MS_SILENT = 256, 1024, 2048, 4096, 8192, 16384, 32768
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_RELATIME, MS_STRICTATIME = 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 24
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

# open_tree(2), move_mount(2), mount_setattr(2): linux/mount.h
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR__ATIME, MOUNT_ATTR_RELATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME = 0x70, 0, 0x10, 0x20
MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_IDMAP, MOUNT_ATTR_NOSYMFOLLOW = 0x80, 0x100000, 0x200000

# openat2(2): linux/openat2.h
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x01, 0x02, 0x04, 0x08, 0x10

# clone(2), unshare(2), setns(2): linux/sched.h
CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000
CLONE_INTO_CGROUP, CLONE_PARENT = 0x200000000, 0x8000

# prctl(2): linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME, PR_SET_SECCOMP = 1, 4, 8, 15, 22
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 23, 24, 28, 36, 38
PR_SET_THP_DISABLE = 41
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECBIT_NO_SETUID_FIXUP = 1 << 2

CLOSE_RANGE_CLOEXEC = 4
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
KEYCTL_JOIN_SESSION_KEYRING = 1
SECCOMP_SET_MODE_FILTER = 1


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid", "set_tid_size",
            "cgroup",
        )
    ]  # fmt: skip


class _SockFprog(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _failed(name: str | int | None = None) -> OSError:
    """The OSError of the call that has just failed."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name) if name is not None else OSError(number, os.strerror(number))


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    if _libc.mount(_bytes(source), _bytes(target), _bytes(fstype), ctypes.c_ulong(flags), _bytes(data)):
        raise _failed(target)


def default_signal(number: int) -> None:
    """SIG_DFL for any signal, also for the two that the C library keeps to itself and does not let signal(2) touch."""
    if _syscall(_NUMBER["rt_sigaction"], number, _DEFAULT_ACTION, None, _SIGSET_BYTES):
        raise _failed()


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    if _libc.umount2(_bytes(target), flags):
        raise _failed(target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    if _syscall(_NUMBER["pivot_root"], _bytes(new_root), _bytes(put_old)):
        raise _failed(new_root)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2); the fd is close-on-exec."""
    fd: int = _syscall(_OPEN_TREE, dirfd, _bytes(path), flags | OPEN_TREE_CLOEXEC)
    if fd < 0:
        raise _failed(path or dirfd)
    return fd


def move_mount(from_fd: int, to_fd: int) -> None:
    """move_mount(2) of the mount that `from_fd` is onto the file that `to_fd` is."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    if _syscall(_MOVE_MOUNT, from_fd, b"", to_fd, b"", flags):
        raise _failed()


def mount_setattr(fd: int, flags: int, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, userns_fd: int = 0) -> None:
    """mount_setattr(2) on the mount that `fd` is; `flags` may have AT_RECURSIVE."""
    attr = _MountAttr(attr_set, attr_clr, propagation, userns_fd)
    if _syscall(_MOUNT_SETATTR, fd, b"", flags | AT_EMPTY_PATH, ctypes.byref(attr), ctypes.sizeof(attr)):
        raise _failed()


def openat2(dirfd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2); the fd is close-on-exec. EAGAIN (somebody renamed on the way) is tried again, as the man page asks."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(128):
        fd: int = _syscall(_OPENAT2, dirfd, _bytes(path), ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return fd
        if ctypes.get_errno() != 11:
            break
    raise _failed(path)


def syncfs(fd: int) -> None:
    """syncfs(2): write out everything of the file system that `fd` is in."""
    if _libc.syncfs(fd):
        raise _failed(fd)


def renameat2(old: str, new: str, flags: int) -> None:
    """renameat2(2) of paths, with RENAME_NOREPLACE or RENAME_EXCHANGE."""
    if _libc.renameat2(AT_FDCWD, _bytes(old), AT_FDCWD, _bytes(new), flags):
        raise _failed(new)


def trim_heap() -> None:
    """Give free memory of the C library's heap back to the kernel (malloc_trim(3)); nothing where there is no such call."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def unshare(flags: int) -> None:
    """unshare(2)."""
    if _libc.unshare(flags):
        raise _failed()


def setns(fd: int, flags: int = 0) -> None:
    """setns(2); `fd` is a namespace, or a pidfd together with `flags`."""
    if _libc.setns(fd, flags):
        raise _failed()


def prctl(option: int, value: int = 0, third: int = 0) -> int:
    """prctl(2) with integer arguments."""
    long = ctypes.c_ulong
    result: int = _libc.prctl(option, long(value), long(third), long(0), long(0))
    if result < 0:
        raise _failed()
    return result


def setdomainname(name: str) -> None:
    data = os.fsencode(name)
    if _libc.setdomainname(data, len(data)) < 0:
        raise _failed(name)


def set_name(name: str) -> None:
    """The name of the calling process as `ps` shows it (15 bytes), by PR_SET_NAME."""
    if _libc.prctl(PR_SET_NAME, os.fsencode(name)[:15], 0, 0, 0):
        raise _failed(name)


def leave_terminal(name: str) -> None:
    """Become a process that stays: a session of its own, nothing on stdin, no folder held, `name` in the list of processes."""
    try:
        os.setsid()
    except PermissionError:
        pass  # a process group's leader already
    set_name(name)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    os.chdir("/")


def setfsids(uid: int, gid: int) -> None:
    """setfsuid(2) and setfsgid(2), which never fail audibly: the result is read back. PermissionError if it is another."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    if _libc.setfsuid(uid) != uid or _libc.setfsgid(gid) != gid:
        raise PermissionError(1, "setfsuid", str(uid))


def close_range(first: int, last: int = 0x7FFFFFFF, flags: int = 0) -> None:
    """close_range(2) of the fds from `first` to `last`; with CLOSE_RANGE_CLOEXEC they close at exec."""
    if _syscall(_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), flags):
        raise _failed()


def join_session_keyring() -> None:
    """keyctl(2) KEYCTL_JOIN_SESSION_KEYRING: an anonymous keyring instead of the inherited one."""
    if _syscall(_NUMBER["keyctl"], KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0) < 0:
        raise _failed()


def seccomp_filter(program: bytes) -> None:
    """seccomp(2) SECCOMP_SET_MODE_FILTER with a program of 8-byte `struct sock_filter`s."""
    code = _SockFprog(len(program) // 8, program)
    if _syscall(_NUMBER["seccomp"], SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(code)):
        raise _failed()


def bpf(command: int, attributes: Any) -> int:
    """bpf(2); `attributes` is a ctypes structure laid out as the command's part of `union bpf_attr`."""
    result: int = _syscall(_NUMBER["bpf"], command, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if result < 0:
        raise _failed()
    return result


_before_fork, _after_parent, _after_child = (
    getattr(ctypes.pythonapi, name) for name in ("PyOS_BeforeFork", "PyOS_AfterFork_Parent", "PyOS_AfterFork_Child")
)
for _hook in (_before_fork, _after_parent, _after_child):
    _hook.restype, _hook.argtypes = None, []
_locked_syscall = ctypes.PyDLL(None, use_errno=True).syscall  # keeps the interpreter's lock: the child must own it
_locked_syscall.restype = ctypes.c_long


def fork_into_cgroup(cgroup_fd: int, *, sibling: bool = False) -> int:
    """os.fork, with the child born in the cgroup (v2) whose folder `cgroup_fd` is (-1: in our own): clone3(2), CLONE_INTO_CGROUP.

    With `sibling` the child's parent is the calling process's parent (CLONE_PARENT).

    Moving a process afterwards waits for an RCU grace period (measured: 6 ms), this does not. Only for single-threaded processes.
    """
    flags = (CLONE_INTO_CGROUP if cgroup_fd >= 0 else 0) | (CLONE_PARENT if sibling else 0)
    # A sibling's exit signal is that of the calling process, and naming one is an error.
    arguments = _CloneArgs(flags=flags, exit_signal=0 if sibling else 17, cgroup=max(0, cgroup_fd))
    _before_fork()
    pid: int = _locked_syscall(_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    if pid == 0:
        _after_child()
        return 0
    _after_parent()
    if pid < 0:
        raise _failed()
    return pid
