"""The two disks that are made with each template: an empty scratch disk and an empty image. See `disks` and `rootdisk`."""

from __future__ import annotations

import subprocess
import tempfile

from bothy.errors import Broken, Unsupported
from bothy.machines import disks, rootdisk

IMAGE_SIZE = 1 << 40
_INODES = 1 << 20
# No lazy initialisation in the guest: the file is all zeros where nothing was written, mkfs may rely on it.
_EXTENDED = "nodiscard,lazy_itable_init=0,lazy_journal_init=1,assume_storage_prezeroed=1,packed_meta_blocks=1"


def mkfs_command(path: str) -> list[str]:
    """mke2fs(8) for a disk of `disks.SIZE`: a small journal, no reserved blocks, no room to grow."""
    shape = ["-m", "0", "-N", str(_INODES), "-J", "size=4", "-O", "^resize_inode", "-E", _EXTENDED]
    return ["mkfs.ext4", "-q", "-F", *shape, path]


def make_pristine(path: str) -> None:
    """A new disk with an empty file system at `path`. Raises Unsupported without mkfs.ext4, Broken with its words."""
    with open(path, "xb") as file:
        file.truncate(disks.SIZE)
    _run(mkfs_command(path), "e2fsprogs")


def make_empty_image(path: str) -> None:
    """An image's disk with nothing in it, as large as any: the real one shall not be too long for the guest. Raises likewise."""
    with tempfile.TemporaryDirectory() as folder:
        rootdisk.arrange(folder)
        _run(["mkfs.erofs", "--quiet", path, folder], "erofs-utils")
    with open(path, "r+b") as file:
        file.truncate(IMAGE_SIZE)


def _run(command: list[str], package: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unsupported(f"{command[0]} is not installed", hint=f"install the package {package}") from None
    if done.returncode:
        raise Broken(f"{command[0]} failed: {done.stderr.strip()}")
