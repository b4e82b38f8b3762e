"""Secrets as files inside: read from the host's store, written into a file system in memory, in a container's root or a guest's.

    store (root's, 0600) ── read ─▶ bytes ── place ─▶ tmpfs at /run/secrets, read-only; files elsewhere are mounts of its files

What was read is nowhere else: not in a plan on disk, not in a layer, not on a share.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from bothy.linux import mounts
from bothy.linux import syscalls as sc

FOLDER = "/run/secrets"
LARGEST = 500 * 1024
_FLAGS = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC
_HIDDEN = ".bothy-"


@dataclass(frozen=True)
class SecretFile:
    """`source` is the file in the host's store; `target` an absolute path inside. Ids as the inside sees them."""

    source: str
    target: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


def read(source: str) -> bytes:
    """What a secret is. Raises OSError; EFBIG for what is no secret of ours."""
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with open(fd, "rb", closefd=False) as file:
            data = file.read(LARGEST + 1)
    finally:
        os.close(fd)
    if len(data) > LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), source)
    return data


def place(root: int, files: Sequence[tuple[SecretFile, bytes]], id_base: int = 0) -> None:
    """Have the files inside the root folder `root`, whose id 0 is `id_base` here. Raises OSError; the root is of no use then."""
    target = mounts.make_folder(root, FOLDER)
    data = f"mode=755,uid={id_base},gid={id_base},size={len(files) * (LARGEST + 8192)}"
    try:
        mounts.mount_at(target, "tmpfs", "secrets", _FLAGS, f"{data},noswap")
    except OSError as exc:  # a kernel before 6.4
        if exc.errno != errno.EINVAL:
            raise
        mounts.mount_at(target, "tmpfs", "secrets", _FLAGS, data)
    os.close(target)
    folder = mounts.open_in_root(root, FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    elsewhere = []
    for number, (file, content) in enumerate(files):
        is_below = file.target.startswith(f"{FOLDER}/")
        name = file.target[len(FOLDER) + 1 :] if is_below else f"{_HIDDEN}{number}"
        _write(folder, name, file, content, id_base)
        if not is_below:
            elsewhere.append((name, file.target))
    for name, path in elsewhere:
        _mount_file(root, folder, name, path)
    if len(elsewhere) == len(files):
        sc.umount2(f"/proc/self/fd/{folder}", sc.MNT_DETACH)
    else:
        mounts.set_attributes(folder, attr_set=sc.MOUNT_ATTR_RDONLY)
    os.close(folder)


def _write(folder: int, name: str, file: SecretFile, content: bytes, id_base: int) -> None:
    if "/" in name:
        os.close(mounts.make_folder(folder, os.path.dirname(name)))
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fchown(fd, id_base + file.uid, id_base + file.gid)
        os.fchmod(fd, file.mode)
    finally:
        os.close(fd)


def _mount_file(root: int, folder: int, name: str, path: str) -> None:
    """Show a file of the folder at another place too, and there alone."""
    tree = mounts.clone_tree(folder, name)
    mounts.set_attributes(tree, attr_set=sc.MOUNT_ATTR_RDONLY)
    target = mounts.make_file(root, path)
    sc.move_mount(tree, target)
    os.close(target)
    os.close(tree)
    os.unlink(name, dir_fd=folder)
