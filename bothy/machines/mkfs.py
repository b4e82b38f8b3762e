"""The empty file system of machines' scratch disks, made with each template. See `bothy.machines.disks`."""

from __future__ import annotations

import subprocess

from bothy.errors import Broken, Unsupported

SIZE = 64 << 30
_INODES = 1 << 20
# No lazy initialisation in the guest: the file is all zeros where nothing was written, mkfs may rely on it.
_EXTENDED = "nodiscard,lazy_itable_init=0,lazy_journal_init=1,assume_storage_prezeroed=1,packed_meta_blocks=1"


def mkfs_command(path: str) -> list[str]:
    """mke2fs(8) for a disk of SIZE: a small journal, no reserved blocks, no room to grow."""
    shape = ["-m", "0", "-N", str(_INODES), "-J", "size=4", "-O", "^resize_inode", "-E", _EXTENDED]
    return ["mkfs.ext4", "-q", "-F", *shape, path]


def make_pristine(path: str) -> None:
    """A new disk with an empty file system at `path`. Raises Unsupported without mkfs.ext4, Broken with its words."""
    with open(path, "xb") as file:
        file.truncate(SIZE)
    try:
        done = subprocess.run(mkfs_command(path), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unsupported("mkfs.ext4 is not installed", hint="install the package e2fsprogs") from None
    if done.returncode:
        raise Broken(f"mkfs.ext4 failed: {done.stderr.strip()}")
