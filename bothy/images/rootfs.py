"""An image of one layer out of a root file system: what import and bootstrap end in."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bothy.images.content import Content
from bothy.images.layers import Source
from bothy.images.model import Image
from bothy.oci import platform as platforms
from bothy.oci.image import History, ImageConfig, ImageDocument, RootFS, document_data
from bothy.oci.platform import Platform
from bothy.oci.reference import Reference


def add_rootfs(
    content: Content,
    source: Source,
    config: ImageConfig,
    names: Sequence[Reference],
    *,
    created: str,
    what: str,
    comment: str = "",
    created_by: str = "",
    platform: Platform | None = None,
) -> Image:
    """Unpack a root file system's tar as the one layer of a new image with these names. Raises Invalid, Unavailable; then
    nothing is left."""
    ours = platform or platforms.host()
    with content.layers.holding():
        layer = content.layers.adopt(source, what)
        document = ImageDocument(
            architecture=ours.architecture,
            os=ours.os,
            variant=ours.variant,
            created=created,
            comment=comment,
            config=config,
            rootfs=RootFS([layer.diff_id]),
            history=[History(created=created, created_by=created_by, comment=comment)],
        )
        image = content.add(json.dumps(document_data(document), separators=(",", ":")).encode(), names, what=what)
    content.layers.collect()
    return image
