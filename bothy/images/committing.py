"""An image out of another one and one more layer: `commit`."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from bothy.errors import Invalid
from bothy.images import times
from bothy.images.content import MAX_LAYERS, Content, parse_document, parse_reference
from bothy.images.layers import Source
from bothy.images.model import Image
from bothy.oci.image import History, ImageConfig, RootFS, document_data
from bothy.oci.reference import Reference


@dataclass(frozen=True)
class Commit:
    """What the image will be: `parent` is the id of the one below, `name` may be empty."""

    parent: str
    config: ImageConfig
    name: str = ""
    author: str = ""
    comment: str = ""
    created_by: str = ""


def name_of(text: str) -> list[Reference]:
    """The name for a new image, none if it is empty. Raises Invalid."""
    if not text:
        return []
    name = parse_reference(text)
    if name.digest:
        raise Invalid(f"invalid reference {text!r}: a name for an image can not have a digest")
    return [name]


def commit(content: Content, what: Commit, layer_fd: int) -> Image:
    """Add the image. `layer_fd`: where the layer's tar is read from (no file, it is read once), -1 for no changes.

    Raises Invalid, NotFound (the parent), Unavailable (disk full); then nothing is left.
    """
    names = name_of(what.name)
    parent = parse_document(content.config(what.parent), what.parent)
    below = parent.rootfs.diff_ids
    if layer_fd >= 0 and len(below) >= MAX_LAYERS:
        raise Invalid(f"the image has {len(below)} layers, no more fit", hint="bothy export and bothy import make one of them")
    created = times.now()
    with content.layers.holding():
        layers = [content.layers.adopt(Source(layer_fd), "the workload's changes").diff_id] if layer_fd >= 0 else []
        step = History(created, what.created_by, what.author, what.comment, empty_layer=not layers)
        document = replace(
            parent,
            created=created,
            author=what.author,
            comment=what.comment,
            config=what.config,
            rootfs=RootFS([*below, *layers]),
            history=[*parent.history, step],
        )
        image = content.add(json.dumps(document_data(document), separators=(",", ":")).encode(), names, what=what.name or "commit")
    content.layers.collect()
    return image
