"""Images made from what this host has: no registry needed.

busybox              Debian's busybox-static (`bothy.images.busybox`)
debian:bookworm      a minimal Debian from the archive that the host's apt is configured for (`bothy.images.debian`)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bothy.errors import Invalid
from bothy.images import times
from bothy.images.content import Content, parse_reference
from bothy.images.layers import Source
from bothy.images.model import Image
from bothy.images.rootfs import add_rootfs
from bothy.oci.image import ImageConfig

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def hint_for(ref: str) -> str:
    """What to do about an image that is not here."""
    kind = ref.partition(":")[0]
    if kind in ("busybox", "debian"):
        return f"make it with `bothy image bootstrap {'busybox' if kind == 'busybox' else ref}`"
    return "`bothy images` lists what is here; bring it with `bothy load -i FILE` or `bothy import ROOTFS.tar NAME`"


def bootstrap(content: Content, source: str, name: str, include: Sequence[str], progress: Callable[[str], None]) -> Image:
    """Make an image called `name` (or, if that is empty, `source`). Raises Invalid, NotFound, Unavailable; then nothing is left."""
    kind, _, tag = source.partition(":")
    if kind not in ("busybox", "debian"):
        raise Invalid(f"can not bootstrap {source!r}", hint="what can be made here: `busybox`, `debian:bookworm` and other suites")
    if kind == "busybox" and (tag or include):
        raise Invalid("busybox has no suites and no packages", hint="use `bothy image bootstrap busybox`")
    names = [parse_reference(name or source)]
    how = " ".join(["bothy image bootstrap", source, *(["--include", ",".join(include)] if include else [])])
    with content.layers.workspace() as folder:
        if kind == "busybox":
            from bothy.images import busybox  # both are for a moment, the daemon that asks for them stays

            progress("busybox: collecting its applets")
            tar, config = folder / "rootfs.tar", ImageConfig(env=[PATH], cmd=["sh"])
            with tar.open("wb") as out:
                created = busybox.write_rootfs(out) * 1_000_000_000
        else:
            from bothy.images import debian

            tar = debian.write_rootfs(folder, debian.suite_of(tag), include, progress)
            config, created = ImageConfig(env=[PATH], cmd=["bash"]), time.time_ns()
        progress(f"{source}: unpacking")
        with tar.open("rb") as file:
            when = times.rfc3339(created)
            return add_rootfs(content, Source(file.fileno()), config, names, created=when, what=source, created_by=how)
