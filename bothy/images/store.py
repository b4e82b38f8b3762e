"""The images of one engine: the door of this room.

    store = ImageStore(paths)
    image = store.resolve("debian")            an image by name, id, or beginning of an id
    store.layers(image)                        its overlay lowers, topmost first

All methods are plain functions to be called in threads; what is heavy in them happens in processes of its own
(`bothy.images.processes`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bothy.errors import NotFound
from bothy.images import bootstrap
from bothy.images.content import Content, parse_reference
from bothy.images.model import Image
from bothy.oci import digest as digests
from bothy.paths import Paths

Progress = Callable[[str], None]
Images = list[Image]
Folders = list[Path]
_SHORT_ID = re.compile(r"[0-9a-f]{1,64}")


def silent(_: str) -> None:
    """Progress that nobody looks at."""


class ImageStore:
    """Opens the store below `paths.images`, made if it is missing, and repairs what a crash left."""

    def __init__(self, paths: Paths) -> None:
        self._content = Content(paths.images)

    def close(self) -> None:
        """Let go of the store."""
        self._content.close()

    # Looking at

    def resolve(self, ref: str) -> Image:
        """The image that a name, an id (`sha256:…` or bare hex) or the beginning of one means. Raises Invalid, or NotFound
        with a hint."""
        return self._content.image(self._id_of(ref))

    def _id_of(self, ref: str) -> str:
        database = self._content.database
        bare = ref.removeprefix(digests.PREFIX)
        is_hex = _SHORT_ID.fullmatch(bare) is not None
        if is_hex and len(bare) == 64 and database.image(digests.PREFIX + bare):
            return digests.PREFIX + bare
        if not ref.startswith(digests.PREFIX) and not (is_hex and len(bare) == 64):
            found = database.named(str(parse_reference(ref)))
            if found is not None:
                return found
        if is_hex:
            matches = database.with_prefix(bare)
            if len(matches) == 1:
                return matches[0]
        raise NotFound(f"no such image: {ref}", hint=bootstrap.hint_for(ref))

    def list(self) -> Images:
        """All images, newest first."""
        return [self._content.image(image) for image in self._content.database.images()]

    def layers(self, image: Image) -> Folders:
        """The folders that an overlay of the image has as lowers, topmost first."""
        return [self._content.layers.path(layer) for layer in self._content.lowers(image.id)]

    # Making

    def bootstrap(self, source: str, name: str = "", include: Sequence[str] = (), progress: Progress = silent) -> Image:
        """Make an image from what this host has: `busybox`, or `debian:<suite>` with more packages."""
        return bootstrap.bootstrap(self._content, source, name, include, progress)
