"""What the agent does in every clone before any code of the user runs: make this machine another than its siblings, and its root.

    clock, random numbers, host name, addresses → overlay of image disk and scratch disk, becomes /
    → /proc /sys /dev → files, tmpfs, shares, sysctls

The order in which things are used from the plan (see `bothy.machines.launch.boot_message`). Failures are StageErrors that name the
step.
"""

from __future__ import annotations

import base64
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from bothy.errors import StageError
from bothy.guest import early
from bothy.jsonable import PLAIN
from bothy.linux import links, mounts
from bothy.linux import syscalls as sc
from bothy.linux.links import Interface

RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
_OWN = ("/proc", "/sys", "/dev", "/dev/pts", "/dev/mqueue", "/sys/fs/cgroup")  # mounts of the spec that are the agent's business
_SHARES = "trans=virtio,version=9p2000.L,msize=262144,cache=mmap"
_NIC = "/sys/class/net/eth0/device"


def set_up(plan: dict[str, Any], trees: early.Trees) -> None:
    """Do all of it. Raises StageError; the machine is of no use then."""
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("clock", lambda: set_clock(plan["time"])),
        ("random", lambda: add_entropy(base64.b64decode(plan["entropy"]))),
        ("hostname", lambda: socket.sethostname(plan["hostname"])),
        ("network", lambda: set_network(plan.get("interface"))),
        ("root", lambda: make_root(fresh=plan["fresh"], readonly=plan["readonly"])),
        ("mount", lambda: attach(trees)),
        ("files", lambda: write_files(plan["files"])),
        ("mount", lambda: mount_tmpfs(plan["mounts"])),
        ("share", lambda: mount_shares(plan["shares"])),
        ("sysctl", lambda: set_sysctls(plan["sysctl"])),
        ("root", lambda: seal(readonly=plan["readonly"])),
    )
    for stage, step in steps:
        try:
            step()
        except OSError as exc:
            path = str(exc.filename or "")
            raise StageError(stage, exc.strerror or str(exc), errno=exc.errno or 0, path=path) from exc
        except (KeyError, ValueError, TypeError) as exc:
            raise StageError(stage, f"{type(exc).__name__}: {exc}") from exc


def set_clock(nanoseconds: int) -> None:
    time.clock_settime_ns(time.CLOCK_REALTIME, nanoseconds)


def add_entropy(seed: bytes) -> None:
    """Mix fresh randomness of the host into the kernel's pool and have its generator start from it, see random(4)."""
    fd = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, RNDADDENTROPY, struct.pack("ii", len(seed) * 8, len(seed)) + seed)
        fcntl.ioctl(fd, RNDRESEEDCRNG)
    finally:
        os.close(fd)


def set_network(interface: dict[str, Any] | None) -> None:
    """Give the card its addresses; a machine without network has no card at all, only lo."""
    if interface is None:
        device = os.path.basename(os.readlink(_NIC))
        _write(f"{_NIC}/driver/unbind", device)
        return
    plan = PLAIN.from_data(Interface, interface)
    if any(":" in address for address in plan.addresses):
        _write(f"/proc/sys/net/ipv6/conf/{plan.name}/disable_ipv6", "0")
    links.configure(plan)


def make_root(*, fresh: bool, readonly: bool) -> None:
    """The overlay of image and scratch disk becomes the root. A scratch disk that is not pristine is mounted anew first."""
    if not fresh:
        sc.umount2(early.SCRATCH)
        sc.mount(early.scratch_device(), early.SCRATCH, "ext4", 0, early.SCRATCH_OPTIONS)
    sc.mount(early.root_device(), early.LOWER, "erofs", sc.MS_RDONLY)
    layers = f"lowerdir={early.LOWER},upperdir={early.SCRATCH}/upper,workdir={early.SCRATCH}/work"
    sc.mount("overlay", early.ROOT, "overlay", 0, layers)
    # Moved over the old root rather than chroot'ed into: so programs can make user namespaces and pivot_root of their own.
    os.chdir(early.ROOT)
    sc.mount(".", "/", None, sc.MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def attach(trees: early.Trees) -> None:
    for tree, path in ((trees.proc, "/proc"), (trees.sys, "/sys"), (trees.dev, "/dev")):
        os.makedirs(path, exist_ok=True)
        target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sc.move_mount(tree, target)
        finally:
            os.close(target)
            os.close(tree)


def write_files(files: dict[str, str]) -> None:
    """Files that the engine writes into the machine's own disk (hosts, resolv.conf, …)."""
    for path, text in files.items():
        try:
            _replace(path, text)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _replace(path, text)


def _replace(path: str, text: str) -> None:
    try:
        os.unlink(path)  # images have links here that point to nowhere
    except FileNotFoundError:
        pass
    _write(path, text, os.O_CREAT | os.O_EXCL)


def mount_tmpfs(wanted: list[dict[str, Any]]) -> None:
    """The tmpfs mounts of the spec; /dev/shm is there already and gets its size."""
    for mount in wanted:
        target = mount["destination"]
        if mount.get("type") != "tmpfs" or target in _OWN:
            continue
        options = mounts.parse_options(mount.get("options") or ())
        data = ",".join(options.data)
        if target == "/dev/shm":
            sc.mount(None, target, None, sc.MS_REMOUNT | options.flags, data)
        else:
            os.makedirs(target, exist_ok=True)
            sc.mount("tmpfs", target, "tmpfs", options.flags, data)


def mount_shares(shares: list[dict[str, Any]]) -> None:
    """Bind each share, which is a numbered entry of the one 9p file system, to where it shall be seen."""
    if not shares:
        return
    host = "/dev/shm"  # any folder will do: what is mounted is detached at once
    sc.mount("host", host, "9p", 0, _SHARES)
    root = os.open(host, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    slash = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, share in enumerate(shares):
            tree = mounts.clone_tree(root, str(number))
            try:
                if share.get("readonly"):
                    mounts.set_attributes(tree, attr_set=sc.MOUNT_ATTR_RDONLY)
                make = mounts.make_folder if mounts.is_folder(tree) else mounts.make_file
                target = make(slash, share["destination"])
                try:
                    sc.move_mount(tree, target)
                finally:
                    os.close(target)
            finally:
                os.close(tree)
    finally:
        os.close(slash)
        os.close(root)
        sc.umount2(host, sc.MNT_DETACH)


def set_sysctls(sysctls: dict[str, str]) -> None:
    for name, value in sysctls.items():
        _write("/proc/sys/" + name.replace(".", "/"), value)


def seal(*, readonly: bool) -> None:
    """A read-only root, if wanted."""
    if readonly:
        sc.mount(None, "/", None, sc.MS_REMOUNT | sc.MS_BIND | sc.MS_RDONLY)


def _write(path: str, text: str, flags: int = 0) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
