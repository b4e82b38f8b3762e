"""Host folders and files that a guest sees: one 9p export, in a mount namespace of QEMU's own, with one numbered entry a share.

    exports/            a tmpfs that exists in QEMU's mount namespace only
    ├── 0               share 0: a folder or a file, bound here, read-only if the share is
    └── 1 …             or the layers of an image, over each other

9p is the one way to share files that goes with templates: it is in QEMU itself, and while it is not mounted it does not hinder
saving. What is not bound here, the guest can not reach.

What the host mounts below a share's source later is seen by the guest too, if the share asks for propagation. For that the
sources are taken hold of (`sources`) while we are still in the host's mount namespace.
"""

from __future__ import annotations

import errno
import os

from bothy.errors import StageError
from bothy.linux import mounts
from bothy.linux import syscalls as sc
from bothy.machines.model import Share


def sources(shares: list[Share]) -> list[int]:
    """A detached copy of each share's source, -1 for layers. To be called in the host's mount namespace. Raises StageError."""
    return [-1 if share.layers else _source(share) for share in shares]


def _source(share: Share) -> int:
    try:
        tree = mounts.clone_part(share.source, share.subpath, recursive=share.recursive)
        # A guest can mount nothing on the host: shared is as good as slave.
        mounts.set_attributes(tree, propagation=sc.MS_SLAVE if share.propagation else sc.MS_PRIVATE, recursive=share.recursive)
        if share.readonly:
            mounts.set_attributes(tree, attr_set=sc.MOUNT_ATTR_RDONLY, recursive=share.recursive and share.deep)
    except OSError as exc:
        raise _refused(share, exc) from exc
    return tree


def _refused(share: Share, exc: OSError) -> StageError:
    path = "/".join(part for part in (share.source, share.subpath) if part)
    words = {errno.EXDEV: "path escapes from the volume"} if share.subpath else {}
    if share.subpath and not share.layers:
        words[errno.ENOENT] = "cannot access path: no such file or directory"
    return StageError("share", words.get(exc.errno or 0, exc.strerror or str(exc)), errno=exc.errno or 0, path=path)


def export(folder: str, shares: list[Share], trees: list[int]) -> None:
    """Fill `folder` with the shares, whose sources `trees` are; those are closed. To be called in a mount namespace of its own,
    whose mounts are private. Raises OSError, and StageError for a part of an image that is not there.
    """
    sc.mount("exports", folder, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC, "mode=755,size=1m")
    for number, (share, tree) in enumerate(zip(shares, trees, strict=True)):
        if share.layers:
            try:
                tree = mounts.clone_layers(share.layers, share.subpath)
            except OSError as exc:
                raise _refused(share, exc) from exc
        place = f"{folder}/{number}"
        if mounts.is_folder(tree):
            os.mkdir(place)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        target = os.open(place, os.O_PATH | os.O_CLOEXEC)
        sc.move_mount(tree, target)
        os.close(target)
        os.close(tree)
