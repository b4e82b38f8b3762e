"""Images made from what this host has: no registry needed.

busybox              Debian's busybox-static (`bothy.images.busybox`)
debian:bookworm      a minimal Debian from the archive that the host's apt is configured for (`bothy.images.debian`)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bothy.errors import Invalid
from bothy.images import busybox, times
from bothy.images.content import Content, parse_reference
from bothy.images.layers import Source
from bothy.images.model import Image
from bothy.images.rootfs import add_rootfs
from bothy.oci.image import ImageConfig

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def hint_for(ref: str) -> str:
    """What to do about an image that is not here."""
    return "x"


def bootstrap(content: Content, source: str, name: str, include: Sequence[str], progress: Callable[[str], None]) -> Image:
    """Make an image called `name` (or, if that is empty, `source`). Raises Invalid, NotFound, Unavailable; then nothing is left."""
    tag = parse_reference(name or source)
    with content.layers.workspace() as folder:
        with open(folder / "rootfs.tar", "w+b") as file:
            if source.partition(":")[0] == "busybox":
                progress("busybox: copying")
                created = busybox.write_rootfs(file)
                config = ImageConfig(env=[PATH], cmd=["sh"])
            else:
                raise Invalid("later")
            file.flush()
            when = times.rfc3339(created * 10**9)
            how = f"bothy image bootstrap {source}"
            return add_rootfs(content, Source(file.fileno()), config, [tag], created=when, what=source, created_by=how)
