"""Host folders and files that a guest sees: one 9p export, in a mount namespace of QEMU's own, with one numbered entry a share.

    exports/            a tmpfs that exists in QEMU's mount namespace only
    ├── 0               share 0: a folder or a file, bound here, read-only if the share is
    └── 1 …

9p is the one way to share files that goes with templates: it is in QEMU itself, and while it is not mounted it does not hinder
saving. What is not bound here, the guest can not reach.
"""

from __future__ import annotations

import os

from bothy.errors import StageError
from bothy.linux import mounts
from bothy.linux import syscalls as sc
from bothy.machines.model import Share


def export(folder: str, shares: list[Share]) -> None:
    """Fill `folder` with the shares. To be called in a mount namespace of its own, whose mounts are private.

    Raises OSError, and StageError for a source that is not there.
    """
    sc.mount("exports", folder, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC, "mode=755,size=1m")
    for number, share in enumerate(shares):
        try:
            tree = mounts.clone_tree(sc.AT_FDCWD, share.source, recursive=True)
        except OSError as exc:
            raise StageError("share", exc.strerror or str(exc), errno=exc.errno or 0, path=share.source) from exc
        try:
            if share.readonly:
                mounts.set_attributes(tree, attr_set=sc.MOUNT_ATTR_RDONLY, recursive=True)
            place = f"{folder}/{number}"
            if mounts.is_folder(tree):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            target = os.open(place, os.O_PATH | os.O_CLOEXEC)
            try:
                sc.move_mount(tree, target)
            finally:
                os.close(target)
        finally:
            os.close(tree)
