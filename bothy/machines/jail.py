"""What QEMU sees of the host: next to nothing. A root of its own, made anew for each machine in a mount namespace of its own.

    /usr, /lib…          the host's, read-only: QEMU, its libraries and firmware
    /dev/null, urandom, kvm
    /proc                only its own process
    /exports/N           the machine's shares
    /machine/ram         a name for the template's memory; what is opened by it is decided by `bothy.machines.guard`

No network (its taps are descriptors), no capabilities, an id that nobody else has. Only a machine with shares has a QEMU that is
root, with the few capabilities that it takes to be any user on the shares' file systems.
"""

from __future__ import annotations

import os
import stat

from bothy.linux import capabilities, mounts, syscalls
from bothy.linux import syscalls as sc
from bothy.machines import guard, shares
from bothy.machines.model import Share

EXPORTS = "/exports"
_OVERCOMMIT = "/proc/sys/vm/overcommit_memory"
_ASIDE = "/processes"  # where the processes are when /proc is a folder
_SYSTEM = ("usr", "lib", "lib64", "bin", "sbin", "lib32", "libx32", "nix", "etc/ld.so.cache")
_DEVICES = ("null", "urandom", "kvm")
_FIRST_ID = 0x7B000000  # above all ids of users and of containers
_IDS = 1 << 20
# What it takes to act for any user on the shares. Not CAP_MKNOD: a device made there would be one of the host.
_FILE_CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID")


def owner(machine: str) -> int:
    """The user and group id of a machine's QEMU: of the machine's name, which is hexadecimal as a rule."""
    return _FIRST_ID + int.from_bytes(machine.encode()[:8], "big") % _IDS


def enter(root: str, netns: int, wanted: list[Share], *, shows_overcommit: bool = False) -> None:
    """Put the calling process into a new root, mounted over the folder `root` in a mount namespace of its own. Raises OSError.

    It goes into the network namespace `netns` (see `bothy.machines.cards`), in which nothing leads anywhere. `shows_overcommit`:
    with a copy of /proc/sys/vm/overcommit_memory, which QEMU reads when it is to map memory unreserved.
    """
    overcommit = _read(_OVERCOMMIT) if shows_overcommit else ""
    trees = shares.sources(wanted)
    syscalls.setns(netns, sc.CLONE_NEWNET)
    syscalls.unshare(sc.CLONE_NEWNS | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS)
    mounts.make_private()
    sc.mount("jail", root, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755,size=1m")
    for name in _SYSTEM:
        _bind_system(root, name)
    os.mkdir(f"{root}/dev")
    for name in _DEVICES:
        _bind_file(f"/dev/{name}", f"{root}/dev/{name}")
    for name in ("proc", "machine", "exports"):
        os.mkdir(f"{root}/{name}")
    flags = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC
    processes = f"{root}/proc"
    if overcommit:
        processes = f"{root}{_ASIDE}"
        os.mkdir(processes)
        os.symlink(f"{_ASIDE}/self", f"{root}/proc/self")
        os.makedirs(os.path.dirname(root + _OVERCOMMIT))
        _write(root + _OVERCOMMIT, overcommit)
    sc.mount("proc", processes, "proc", flags, "hidepid=invisible,subset=pid")
    _touch(root + guard.PATH)
    shares.export(root + EXPORTS, wanted, trees)
    mounts.enter_root(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def drop_privileges(machine: str, *, has_shares: bool) -> None:
    """Keep no right that QEMU does not need."""
    allowed = capabilities.mask(_FILE_CAPABILITIES) & capabilities.effective() if has_shares else 0
    os.setgroups([])
    capabilities.limit_bounding(allowed)
    if not has_shares:
        identity = owner(machine)
        os.setresgid(identity, identity, identity)
        os.setresuid(identity, identity, identity)
    capabilities.clear_ambient()
    capabilities.capset(allowed, allowed, allowed)


def _bind_system(root: str, name: str) -> None:
    """A folder of the host, read-only; or the same link, where the host has a link (merged /usr)."""
    source, target = f"/{name}", f"{root}/{name}"
    try:
        status = os.lstat(source)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
        return
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(target)
        _attach(mounts.clone_tree(sc.AT_FDCWD, source), target, sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _touch(target)
        _attach(mounts.clone_tree(sc.AT_FDCWD, source), target, sc.MOUNT_ATTR_RDONLY)


def _bind_file(source: str, target: str) -> None:
    try:
        tree = mounts.clone_tree(sc.AT_FDCWD, source)
    except FileNotFoundError:
        return
    _touch(target)
    _attach(tree, target, sc.MOUNT_ATTR_NOSUID)


def _attach(tree: int, target: str, attributes: int) -> None:
    mounts.set_attributes(tree, attr_set=attributes)
    place = os.open(target, os.O_PATH | os.O_CLOEXEC)
    sc.move_mount(tree, place)
    os.close(place)
    os.close(tree)


def _touch(path: str) -> None:
    _write(path, "")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    os.write(fd, text.encode())
    os.close(fd)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
