"""What the agent does in every clone before any code of the user runs: make this machine another than its siblings, and its root.

    clock, random numbers, host name, addresses → overlay of image disk and scratch disk, becomes /
    → /proc /sys /dev → files, tmpfs, shares, sysctls

The order in which things are used from the plan (see `bothy.machines.launch.boot_message`). Failures are StageErrors that name the
step.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable
from typing import Any

from bothy.errors import StageError
from bothy.guest import cards, early
from bothy.linux import mounts, secretfiles, sysctl
from bothy.linux import syscalls as sc
from bothy.linux.secretfiles import SecretFile

RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
_SHARES = "trans=virtio,version=9p2000.L,msize=262144,cache=mmap"


def set_up(plan: dict[str, Any], kit: early.Kit) -> None:
    """Do all of it. Raises StageError; the machine is of no use then.

    All of this runs for the first time in each clone, and under emulation it is code that runs for the first time that costs (some
    6 microseconds for every few instructions): so the keeper prepares what it can, and what is done is done by the shortest way.
    """
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("clock", lambda: set_clock(plan["time"])),
        ("random", lambda: add_entropy(bytes.fromhex(plan["entropy"]))),
        ("hostname", lambda: socket.sethostname(plan["hostname"])),
        ("network", lambda: set_networks(plan, kit)),
        ("disk", lambda: mount_disks(fresh=plan["fresh"], mounted=plan["mounted"])),
        ("files", lambda: write_files(plan["files"], fresh=plan["fresh"])),
        ("root", lambda: make_root(prepared=plan["fresh"] and plan["mounted"])),
        ("mount", lambda: attach(kit)),
        ("mount", lambda: mount_tmpfs(plan["mounts"])),
        ("share", lambda: mount_shares(plan["shares"])),
        ("secret", lambda: place_secrets(plan["secrets"])),
        ("sysctl", lambda: set_sysctls(plan["sysctl"])),
        ("pids", lambda: limit_programs(plan["pids"])),
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


def rehearse(plan: dict[str, Any], kit: early.Kit) -> None:
    """Go through what `set_up` will do, and undo it: an emulated processor has the code of it translated then.

    Raises OSError, for what could not be done; nothing of it is left in any case.
    """
    set_clock(plan["time"])
    add_entropy(bytes.fromhex(plan["entropy"]))
    socket.sethostname(socket.gethostname())
    for requests in plan["network"]:
        set_network(kit.netlink, requests)
    if plan["mounted"]:
        os.lstat(f"{early.ROOT}/{early.IMAGE}/etc")
        _resemble_image(fresh=True)


def set_clock(nanoseconds: int) -> None:
    time.clock_settime_ns(time.CLOCK_REALTIME, nanoseconds)


def add_entropy(seed: bytes) -> None:
    """Mix fresh randomness of the host into the kernel's pool and have its generator start from it.

    `seed` is a struct rand_pool_info, see random(4).
    """
    fd = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, RNDADDENTROPY, seed)
        fcntl.ioctl(fd, RNDRESEEDCRNG)
    finally:
        os.close(fd)


def set_networks(plan: dict[str, Any], kit: early.Kit) -> None:
    """Configure the cards that lead somewhere; a machine without network has no card at all, only lo."""
    for number, requests in enumerate(plan["network"]):
        if number:
            cards.allow_ipv6(cards.FIRST)
        set_network(kit.netlink, requests)
    if not plan["network"] and not plan["cards"]:
        cards.hide(kit.cards[0])
    for number, wanted in plan["cards"]:
        cards.plug(kit.cards[number], wanted)


def set_network(netlink: socket.socket, requests: str) -> None:
    """Give the first card, which is up already, its addresses.

    `requests`: rtnetlink messages in hexadecimal, ready to be sent, the last one with NLM_F_ACK.
    """
    netlink.send(bytes.fromhex(requests))
    answer = netlink.recv(4096)
    for at in range(0, len(answer) - 19, 36):  # struct nlmsghdr, the error, and (NETLINK_CAP_ACK) the request's header
        number = int.from_bytes(answer[at + 16 : at + 20], "little", signed=True)
        if number:
            raise OSError(-number, os.strerror(-number))


def mount_disks(*, fresh: bool, mounted: bool) -> None:
    """Both disks are mounted already, as a rule; not so a scratch disk that was used, and an image's disk of another layout."""
    if fresh and mounted:
        return
    sc.umount2(early.ROOT)
    if not fresh:
        sc.umount2(early.SCRATCH)  # behind it is nothing
        sc.mount(early.used_device(), early.SCRATCH, "ext4", 0, early.SCRATCH_OPTIONS)
    if not mounted:
        sc.umount2(early.LOWER)
        sc.mount(early.root_device(), early.LOWER, "erofs", sc.MS_RDONLY)


def lower() -> str:
    """Where the image's tree is on its disk."""
    place = f"{early.LOWER}/{early.IMAGE}"
    return place if os.path.isdir(place) else early.LOWER


def make_root(*, prepared: bool) -> None:
    """The overlay of image, own files and scratch disk becomes the root."""
    place = f"{early.ROOT}/{early.IMAGE}"
    if not prepared:
        place = early.ROOT
        upper = f"upperdir={early.UPPER}/{early.IMAGE},workdir={early.WORK}"
        sc.mount("overlay", place, "overlay", 0, f"lowerdir={early.OWN}/{early.IMAGE}:{lower()},{upper}")
    # Put over the old root rather than chroot'ed into: so programs can make user namespaces and pivot_root of their own.
    tree = mounts.clone_tree(sc.AT_FDCWD, place)
    slash = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sc.move_mount(tree, slash)
    os.close(slash)
    os.fchdir(tree)
    os.close(tree)
    os.chroot(".")
    os.chdir("/")


def attach(kit: early.Kit) -> None:
    """The prepared mounts, at their places in the new root."""
    for tree, path in ((kit.proc, "/proc"), (kit.sys, "/sys"), (kit.dev, "/dev")):
        target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sc.move_mount(tree, target)
        os.close(target)
        os.close(tree)


def write_files(files: dict[str, str], *, fresh: bool) -> None:
    """Small files in /etc (by name) that the engine gives every machine: hosts, resolv.conf, …

    They are in a layer of their own, in memory, between the image and the machine's disk: so they hide what the image has of that
    name (a link to nowhere for example), and what an earlier life of the machine has made of them is removed.
    """
    for name in early.FILES:
        if name not in files:
            os.unlink(f"{early.OWN}/{early.IMAGE}/etc/{name}")
    for name, text in files.items():
        _write(f"{early.OWN}/{early.IMAGE}/etc/{name}", text, os.O_CREAT)
        if not fresh:
            _remove(f"{early.UPPER}/{early.IMAGE}/etc/{name}")
    _resemble_image(fresh=fresh)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            raise


def _resemble_image(*, fresh: bool) -> None:
    """Folders of ours look like those of the image that they are merged with."""
    image = lower()
    if fresh:
        _resemble(f"{early.UPPER}/{early.IMAGE}", image)
    for folder in early.FOLDERS:
        _resemble(f"{early.OWN}/{early.IMAGE}/{folder}", f"{image}/{folder}")


def _resemble(folder: str, model: str) -> None:
    """The mode and owner of the image's folder, if it has one: those of the layer above are what is seen."""
    try:
        status = os.lstat(model)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode) and (status.st_mode & 0o7777, status.st_uid, status.st_gid) != (0o755, 0, 0):
        os.chown(folder, status.st_uid, status.st_gid)
        os.chmod(folder, status.st_mode & 0o7777)


def mount_tmpfs(wanted: list[dict[str, Any]]) -> None:
    """The tmpfs mounts of the spec; /dev/shm is there already and gets its size."""
    for mount in wanted:
        target = mount["destination"]
        options = mounts.parse_options(mount.get("options") or ())
        data = ",".join(options.data)
        if target == "/dev/shm":
            sc.mount(None, target, None, sc.MS_REMOUNT | options.flags, data)
        else:
            if "mode=" not in data and os.path.isdir(target):  # it looks like what it covers
                data = ",".join([*options.data, f"mode={os.stat(target).st_mode & 0o7777:o}"])
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


def place_secrets(secrets: list[dict[str, Any]]) -> None:
    """Secrets, as files in memory."""
    if not secrets:
        return
    files = [(SecretFile("", s["target"], s["uid"], s["gid"], s["mode"]), bytes.fromhex(s["data"])) for s in secrets]
    slash = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        secretfiles.place(slash, files)
    finally:
        os.close(slash)


def set_sysctls(sysctls: dict[str, str]) -> None:
    for name, value in sysctls.items():
        _write(f"/proc/sys/{sysctl.path(name)}", value)


def limit_programs(pids: int) -> None:
    """How many processes there may be, of the program and of all execs (0: as many as the kernel can)."""
    limit = f"{early.PROGRAMS}/pids.max"
    if pids > 0:
        _write("/sys/fs/cgroup/cgroup.subtree_control", "+pids")
        _write(limit, str(pids))
    elif os.path.exists(limit):
        _write(limit, "max")


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
