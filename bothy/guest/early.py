"""What the agent does before the template is saved: file systems, modules, devices. Everything that all clones have in common.

    /proc /sys /dev      proc, sys with cgroup2, dev with pts, shm and mqueue: here, and as detached copies for the clone's root
    /disk/lower          an empty image's disk; a clone has a real one in its place (see `bothy.machines.rootdisk`)
    /disk/own            a tmpfs, the layer between the image and the scratch disk
    /disk/scratch        the scratch disk, pristine
    /disk/root           the overlay of the three; its folder `image` will be the root

Costs nothing in a clone, so as much as possible is done here.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import time
from dataclasses import dataclass

from bothy.guest import cards
from bothy.linux import links, mounts, netlink
from bothy.linux import syscalls as sc
from bothy.machines import rootdisk

PORT = "bothy"
SCRATCH = "/disk/scratch"
UPPER, WORK = f"{SCRATCH}/upper", f"{SCRATCH}/work"
LOWER = "/disk/lower"
ROOT = "/disk/root"
OWN = "/disk/own"
IMAGE = rootdisk.FOLDER
PROGRAMS = "/sys/fs/cgroup/programs"  # the cgroup of all programs: it may be limited, and frozen
DISK = "/disk"
FOLDERS = ("etc", "proc", "sys", "dev")
FILES = ("hosts", "hostname", "resolv.conf", "machine-id")
HOST = "/host"
SCRATCH_OPTIONS = "noinit_itable,discard"
_SETTLE = 1.2  # seconds; the carrier of a card is looked at once a second
# Free memory is given back to the host in pieces of 512 KiB (2 to the power of this, in pages). The kernel would choose 2 MiB, and
# begin when there are 32 pieces to spare, which a small machine hardly ever has.
_REPORTED = "7"
_BLKFLSBUF = 0x1261  # linux/fs.h
_LOOKED_AT = 1 << 20  # bytes; an empty disk has one block
_FINIT_MODULE = 313
_NOSUID_NODEV_NOEXEC = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC
_DEV_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


@dataclass(frozen=True)
class Kit:
    """Detached mounts by descriptor, to be attached at /proc, /sys and /dev of the clone's root; an rtnetlink socket; the folders
    of the disks, which can not be reached by name from the clone's root, and of the programs' cgroup; the devices of the network
    cards by number."""

    proc: int
    sys: int
    dev: int
    netlink: socket.socket
    disk: int
    programs: int
    cards: tuple[str, ...]


def prepare() -> Kit:
    """Mount the basics, load the modules, mount the scratch disk, set the first network card up. Raises OSError."""
    sc.mount("dev", "/dev", "devtmpfs", sc.MS_NOSUID, "mode=755")
    sc.mount("proc", "/proc", "proc", _NOSUID_NODEV_NOEXEC)
    sc.mount("sys", "/sys", "sysfs", _NOSUID_NODEV_NOEXEC)
    _load_modules("/lib/modules")
    _fill_dev()
    sc.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", _NOSUID_NODEV_NOEXEC, "nsdelegate")
    os.mkdir(PROGRAMS)
    _write("/sys/module/page_reporting/parameters/page_reporting_order", _REPORTED)
    links.loopback_up()
    devices = cards.prepare()
    for folder in (SCRATCH, LOWER, ROOT):
        os.makedirs(folder)
    sc.mount(scratch_device(), SCRATCH, "ext4", 0, SCRATCH_OPTIONS)
    for folder in (UPPER, WORK, f"{UPPER}/{IMAGE}"):
        os.mkdir(folder)
    _make_own_layer()
    for device in (root_device(), scratch_device(), used_device()):
        _simplify(os.path.basename(device))
    sc.mount(root_device(), LOWER, "erofs", sc.MS_RDONLY)
    sc.mount("overlay", ROOT, "overlay", 0, f"lowerdir={OWN}:{LOWER},upperdir={UPPER},workdir={WORK}")
    proc, sys, dev = (mounts.clone_tree(sc.AT_FDCWD, path, recursive=True) for path in ("/proc", "/sys", "/dev"))
    disk, cgroup = (os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in (DISK, PROGRAMS))
    return Kit(proc, sys, dev, _netlink(), disk, cgroup, devices)


def _make_own_layer() -> None:
    """A layer for files that the engine gives every machine, and for the places of mounts that an image may lack."""
    os.mkdir(OWN)
    sc.mount("own", OWN, "tmpfs", 0, "mode=755")
    for folder in ("", *FOLDERS):
        os.mkdir(f"{OWN}/{IMAGE}/{folder}", 0o755)
    for name in FILES:
        _write(f"{OWN}/{IMAGE}/etc/{name}", "")


def _simplify(disk: str) -> None:
    """The host schedules and merges; in the guest that is only more code on the way to the disk."""
    for name, value in (("scheduler", "none"), ("wbt_lat_usec", "0"), ("nomerges", "2")):
        _write(f"/sys/block/{disk}/queue/{name}", value)


def _netlink() -> socket.socket:
    """A socket for rtnetlink whose errors do not repeat the request."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, netlink.NETLINK_ROUTE)
    sock.setsockopt(netlink.SOL_NETLINK, netlink.NETLINK_CAP_ACK, 1)
    return sock


def nic_index() -> int:
    """The kernel's number of the first network card."""
    return socket.if_nametoindex(cards.FIRST)


def root_device() -> str:
    """The disk of the image."""
    return "/dev/vda"


def scratch_device() -> str:
    """The disk of the machine, if this is its first life."""
    return "/dev/vdb"


def used_device() -> str:
    """The disk of the machine in its later lives."""
    return "/dev/vdc"


def open_port() -> int:
    """The agent's virtio-serial port, by its name. FileNotFoundError if the machine has none."""
    folder = "/sys/class/virtio-ports"
    for device in os.listdir(folder):
        with open(f"{folder}/{device}/name") as file:
            if file.read().strip() == PORT:
                return os.open(f"/dev/{device}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    raise FileNotFoundError(2, "no such virtio-serial port", PORT)


def empty() -> None:
    """Remove what is loaded and will not be read again, and forget what the kernel has cached: the template gets smaller."""
    for name in os.listdir("/lib/modules"):
        os.unlink(f"/lib/modules/{name}")
    for folder, _, names in os.walk("/usr/lib"):
        for name in names:
            if name.endswith(".pyc"):
                os.unlink(f"{folder}/{name}")
    os.sync()
    _write("/proc/sys/vm/drop_caches", "3")
    _forget(root_device())
    _write("/proc/sys/vm/compact_memory", "1")


def _forget(device: str) -> None:
    """Have nothing of the disk in memory: in a clone it is another one. Raises OSError if the kernel keeps a piece of it."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _BLKFLSBUF, 0)
        address = _libc.mmap(None, _LOOKED_AT, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        resident = ctypes.create_string_buffer(_LOOKED_AT // mmap.PAGESIZE)
        if _libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(_LOOKED_AT), resident) or any(resident.raw):
            raise OSError(errno.EBUSY, "the kernel keeps pages of the image's disk", device)
        _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(_LOOKED_AT))
    finally:
        os.close(fd)


def settle() -> None:
    """Give the kernel time for what it does a moment later (the card's carrier, statistics, grace periods, compaction).

    It would do so in every clone otherwise, before the agent gets the processor. There is no event to wait for.
    """
    time.sleep(_SETTLE)


def _load_modules(folder: str) -> None:
    for name in sorted(os.listdir(folder)):
        fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.syscall(ctypes.c_long(_FINIT_MODULE), fd, b"", 0):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), name)
        finally:
            os.close(fd)


def _fill_dev() -> None:
    for name, target in _DEV_LINKS.items():
        os.symlink(target, f"/dev/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"/dev/{name}")
    sc.mount("devpts", "/dev/pts", "devpts", sc.MS_NOSUID | sc.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    sc.mount("shm", "/dev/shm", "tmpfs", _NOSUID_NODEV_NOEXEC, "mode=1777,size=64m")
    sc.mount("mqueue", "/dev/mqueue", "mqueue", _NOSUID_NODEV_NOEXEC)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
