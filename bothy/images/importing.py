"""A root file system's tar as an image: `import`."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from bothy.errors import Invalid, NotFound
from bothy.images import changes, times
from bothy.images.content import Content, parse_reference
from bothy.images.layers import Source
from bothy.images.model import Image
from bothy.images.rootfs import add_rootfs
from bothy.oci import platform as platforms
from bothy.oci.image import ImageConfig


def import_rootfs(
    content: Content, path: Path, name: str, instructions: Sequence[str], message: str, platform: str, label: str
) -> Image:
    """Add an image of a tar (plain, gzip, zstd, xz or bzip2), named if `name` is not empty.

    Raises NotFound (no such file), Invalid (no tar, bad instruction), Unavailable (disk full); then nothing is left.
    """
    names = [parse_reference(name)] if name else []
    if names and names[0].digest:
        raise Invalid(f"invalid reference {name!r}: a name for an image can not have a digest")
    config = changes.apply(ImageConfig(), instructions)
    try:
        wanted = platforms.parse(platform) if platform else None
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except ValueError as exc:
        raise Invalid(str(exc)) from None
    except OSError as exc:
        kind = NotFound if exc.errno == errno.ENOENT else Invalid
        raise kind(f"{label}: {exc.strerror}", errno=exc.errno or 0) from None
    try:
        comment = message or f"Imported from {label}"
        return add_rootfs(content, Source(fd), config, names, created=times.now(), what=label, comment=comment, platform=wanted)
    finally:
        os.close(fd)
