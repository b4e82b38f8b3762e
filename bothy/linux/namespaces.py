"""Namespaces as file descriptors: made by a child that ends, joined by number of kind.

Sources: namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import os

from bothy.linux import syscalls as sc

# the OCI spec's names: (flag of clone(2), file in /proc/<pid>/ns)
KINDS = {
    "user": (sc.CLONE_NEWUSER, "user"),
    "mount": (sc.CLONE_NEWNS, "mnt"),
    "network": (sc.CLONE_NEWNET, "net"),
    "ipc": (sc.CLONE_NEWIPC, "ipc"),
    "uts": (sc.CLONE_NEWUTS, "uts"),
    "cgroup": (sc.CLONE_NEWCGROUP, "cgroup"),
    "pid": (sc.CLONE_NEWPID, "pid"),
    "time": (sc.CLONE_NEWTIME, "time"),
}


def open_namespace(kind: str, pid: int | str = "self") -> int:
    """A descriptor of a process's namespace of an OCI kind (`mount`, `network`, …). FileNotFoundError without the process."""
    return os.open(f"/proc/{pid}/ns/{KINDS[kind][1]}", os.O_RDONLY | os.O_CLOEXEC)


def join(fd: int, kind: str) -> None:
    """setns(2), which refuses what is not of that kind."""
    sc.setns(fd, KINDS[kind][0])


def same(kind: str, pid: int | str, other: int | str = "self") -> bool:
    """Are two processes in the same namespace of that kind?"""
    name = KINDS[kind][1]
    one, two = os.stat(f"/proc/{pid}/ns/{name}"), os.stat(f"/proc/{other}/ns/{name}")
    return (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)


def write_id_maps(pid: int, base: int, size: int = 65536) -> None:
    """Map `size` ids from 0 on to host ids from `base` on, for users and groups, in the user namespace of `pid`."""
    line = f"0 {base} {size}\n".encode()
    for name in ("uid_map", "gid_map"):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)
