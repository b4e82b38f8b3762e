"""The disk image of a volume with a quota: a sparse file with an ext4 in it, mounted by a loop device.

The quota is the size of the image, so it holds whoever writes, over either wall, and df(1) tells it. Blocks that are freed inside
go back to the host (`discard`). The journal makes it whole again when it is mounted after a crash.
"""

from __future__ import annotations

import os
import subprocess

from bothy.errors import Broken, Conflict, Unsupported
from bothy.linux import filesystems, loops
from bothy.linux import syscalls as sc
from bothy.volumes.options import Call

NAME = "disk.ext4"
_SMALL = 64 << 20
# No lazy initialisation by the kernel: the file is all zeros where nothing was written, mkfs may rely on it.
_EXTENDED = "nodiscard,lazy_itable_init=0,lazy_journal_init=1,assume_storage_prezeroed=1,root_owner=0:0"
_CHECKED = (0, 1)  # e2fsck(8): no errors, errors corrected


def make(path: str, size: int) -> None:
    """A new, empty disk image of `size` bytes. Some 30 ms. Raises Unsupported without e2fsprogs, Broken, OSError."""
    with open(path, "xb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(size)
    block = "1024" if size < _SMALL else "4096"
    _run(["mkfs.ext4", "-q", "-F", "-b", block, "-m", "0", "-i", "16384", "-E", _EXTENDED, path])
    _without_lost_and_found(path)


def mount(path: str, target: str) -> None:
    """Mount the image at the folder `target`. Raises OSError."""
    with loops.attached(path) as device:
        Call(device, "ext4", data="discard").make(target)


def write_out(folder: str) -> None:
    """Wait until all that was written to the file system of a folder is on the disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sc.syncfs(fd)
    finally:
        os.close(fd)


def give_back(folder: str) -> None:
    """Before it is unmounted: blocks that were freed last go back to the host, which the kernel does in the background and leaves
    at unmounting. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sc.syncfs(fd)
        filesystems.trim(fd)
    finally:
        os.close(fd)


def copy(source: str, target: str) -> None:
    """A new file with the same in it, shared blocks or as sparse. Nobody may write to the source meanwhile. Raises OSError."""
    below = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            filesystems.copy_file(below, made, os.fstat(below).st_size)
        finally:
            os.close(made)
    finally:
        os.close(below)


def grow_mounted(path: str, folder: int, size: int) -> None:
    """Grow a mounted image to `size` bytes; `folder` is open in it. The kernel's journal makes that safe.

    Raises PermissionError where the kernel does not let us (CAP_SYS_RESOURCE), Conflict if nothing has the image; then it is as it
    was.
    """
    device = loops.device_of(path)
    if not device:
        raise Conflict(f"{path} is not mounted")
    before = os.stat(path).st_size
    os.truncate(path, size)
    loops.file_has_grown(device)
    try:
        filesystems.grow_ext4(folder, size // os.fstatvfs(folder).f_bsize)
    except OSError:
        os.truncate(path, before)
        loops.file_has_grown(device)
        raise


def grow(path: str, size: int) -> None:
    """Grow an image that is not mounted. Interrupted, it is spoiled: so this is for copies. Raises Broken, Unsupported."""
    os.truncate(path, size)
    _run(["e2fsck", "-f", "-p", path], _CHECKED)
    _run(["resize2fs", path])
    _without_lost_and_found(path)


def _without_lost_and_found(path: str) -> None:
    """A volume is an empty folder at first: databases refuse one that is not, and copy-up asks for it. e2fsck can do without."""
    _run(["debugfs", "-w", "-R", "rmdir lost+found", path])


def _run(command: list[str], good: tuple[int, ...] = (0,)) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Unsupported(f"{command[0]} is not installed", hint="install the package e2fsprogs") from None
    if done.returncode not in good:
        raise Broken(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")
