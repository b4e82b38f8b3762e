"""Images as an archive: `save`. A docker archive that is an OCI layout too, as Docker writes it since version 25:

blobs/sha256/<hex>      configurations, manifests, and the layers' plain tars
index.json, oci-layout  for those who read OCI layouts (skopeo, podman, containerd)
manifest.json           for those who read docker archives (docker 20.10 and later)
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bothy.errors import NotFound
from bothy.images.content import Content
from bothy.images.model import Layer
from bothy.images.processes import run
from bothy.jsonable import PLAIN
from bothy.oci import digest as digests
from bothy.oci import distribution
from bothy.oci import reference as references
from bothy.oci.distribution import Descriptor, Manifest
from bothy.oci.platform import Platform
from bothy.oci.reference import Reference


@dataclass
class _Saved:
    """One image of the archive: its configuration, its layers (bottom first, with repetitions), the names to be saved with it."""

    config: bytes
    layers: list[Layer]
    platform: Platform
    names: list[Reference] = field(default_factory=list)


def save(content: Content, refs: Sequence[tuple[str, str]], out: int) -> None:
    """Write an archive of images to an open file or pipe. `refs` are (what was asked for, image id).

    Raises NotFound, Unavailable (disk full), Broken; what was written by then is not an archive.
    """
    images: dict[str, _Saved] = {}
    for ref, image in refs:
        saved = images.setdefault(image, _collect(content, image))
        saved.names += [name for name in _names(content, ref, image) if name not in saved.names]
    pinned = [layer.diff_id for saved in images.values() for layer in saved.layers]
    with content.layers.pinned(pinned), content.layers.workspace() as folder:
        blobs = _blobs(images)
        files = []
        for number, (name, data) in enumerate(blobs.items()):
            (folder / str(number)).write_bytes(data)
            files.append([name, str(folder / str(number))])
        layers = {layer.diff_id: layer for saved in images.values() for layer in saved.layers}
        jobs = [_layer_job(content, layer) for layer in layers.values()]
        job = {"fd": out, "folders": ["blobs", "blobs/sha256"], "files": files, "layers": jobs}
        run("assemble", job, fds=[out], what="save")


def expand(content: Content, ref: str) -> list[tuple[str, str]]:
    """The (reference, image id) pairs that one argument of `save` means, if it is a name without a tag: all tags of that name,
    as in Docker. Empty if it is something else."""
    if digests.is_digest(ref):
        return []
    try:
        reference = references.parse(ref)
    except ValueError:
        return []
    return content.database.tags_of(reference.name) if not reference.tag and not reference.digest else []


def _collect(content: Content, image: str) -> _Saved:
    found = content.image(image)
    by_id = {layer.diff_id: layer for layer in content.database.layers_of(image)}
    platform = Platform(found.architecture, found.os, found.variant)
    return _Saved(content.config(image), [by_id[diff_id] for diff_id in found.layers], platform)


def _names(content: Content, ref: str, image: str) -> list[Reference]:
    """The name to save an image with: the one that was asked for, none if it was an id."""
    try:
        reference = references.normalise(ref)
    except ValueError:
        return []
    return [reference] if content.database.named(str(reference)) == image and reference.tag else []


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digests.encoded(digest)}"


def _layer_job(content: Content, layer: Layer) -> dict[str, Any]:
    return {
        "name": _blob_name(layer.diff_id),
        "folder": str(content.layers.path(layer)),
        "recipe": str(content.layers.recipe(layer)),
        "size": layer.tar_size,
        "diff_id": layer.diff_id,
    }


def _blobs(images: dict[str, _Saved]) -> dict[str, bytes]:
    """All small files of the archive by name."""
    blobs: dict[str, bytes] = {}
    index: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    for image, saved in images.items():
        config = Descriptor(image, len(saved.config), distribution.OCI_CONFIG)
        layers = [Descriptor(layer.diff_id, layer.tar_size, distribution.OCI_LAYER) for layer in saved.layers]
        manifest = _compact(PLAIN.to_data(Manifest(config, layers, media_type=distribution.OCI_MANIFEST)))
        blobs[_blob_name(image)] = saved.config
        blobs[_blob_name(digests.of(manifest))] = manifest
        named = [{distribution.CONTAINERD_NAME: str(name), distribution.REF_NAME: name.tag} for name in saved.names]
        for labels in named or [{}]:
            descriptor = Descriptor(digests.of(manifest), len(manifest), distribution.OCI_MANIFEST, saved.platform, labels)
            index.append(PLAIN.to_data(descriptor))
        listed.append(
            {
                "Config": _blob_name(image),
                "RepoTags": [name.familiar for name in saved.names] or None,
                "Layers": [_blob_name(layer.diff_id) for layer in saved.layers],
            }
        )
    blobs["index.json"] = _compact({"schemaVersion": 2, "mediaType": distribution.OCI_INDEX, "manifests": index})
    blobs["manifest.json"] = _compact(listed)
    blobs["oci-layout"] = _compact({"imageLayoutVersion": "1.0.0"})
    return blobs


def _compact(data: Any) -> bytes:
    """JSON without what was not set."""

    def pruned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: pruned(v) for key, v in value.items() if v not in ("", {}, []) or key in ("layers", "manifests")}
        return [pruned(v) for v in value] if isinstance(value, list) else value

    return json.dumps(pruned(data), separators=(",", ":")).encode()


def open_target(path: Path) -> int:
    """Open (make, empty) the file that an archive goes to. Raises NotFound if its folder is missing."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise NotFound(f"no such folder: {path.parent}") from None
