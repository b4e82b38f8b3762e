"""Which images an archive has: docker archives (manifest.json) and OCI layouts (index.json), as plans.

`docker save` of 25 and later writes both into one archive; manifest.json is taken then, since it has the names. Digests are
checked here for everything that is read here; those of layers are checked while they are unpacked.
Source: moby's image/tarexport, opencontainers/image-spec v1.1 image-layout.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bothy.errors import Invalid, NotFound
from bothy.images.archives import Archive
from bothy.images.content import parse_document
from bothy.images.layers import Source
from bothy.jsonable import PLAIN
from bothy.oci import digest as digests
from bothy.oci import distribution
from bothy.oci import platform as platforms
from bothy.oci import reference as references
from bothy.oci.distribution import Descriptor, Index, Manifest
from bothy.oci.reference import Reference

T = TypeVar("T")
MAX_DEPTH = 4
MAX_IMAGES = 1000


@dataclass(frozen=True)
class PlannedImage:
    """An image to be added: its configuration, and its layers (diff id, where its tar is), bottom first."""

    config: bytes
    layers: list[tuple[str, Source]]
    names: list[Reference] = field(default_factory=list)
    digest: str = ""


def plan(archive: Archive) -> list[PlannedImage]:
    """The images of an archive that are for this machine. Raises Invalid, and NotFound if none of several platforms is ours."""
    if archive.has("manifest.json"):
        return _docker(archive)
    if archive.has("index.json"):
        return list(_layout(archive))
    raise Invalid(
        f"{archive.label}: neither a docker archive nor an OCI layout", hint="a root file system comes in by `bothy import`"
    )


def _json(archive: Archive, name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise Invalid(f"{archive.label}: {name} is not JSON: {exc}") from None


# Docker archives


@dataclass(frozen=True)
class _Saved:
    """An entry of manifest.json."""

    config: str
    layers: list[str] = field(default_factory=list)
    repo_tags: list[str] = field(default_factory=list)


def _docker(archive: Archive) -> list[PlannedImage]:
    entries = _json(archive, "manifest.json", archive.read("manifest.json"))
    if not isinstance(entries, list) or len(entries) > MAX_IMAGES:
        raise Invalid(f"{archive.label}: manifest.json is not a list of images")
    return [_docker_image(archive, entry) for entry in entries]


def _docker_image(archive: Archive, entry: Any) -> PlannedImage:
    if not isinstance(entry, dict):
        raise Invalid(f"{archive.label}: manifest.json is not a list of images")
    lower = {"config": entry.get("Config"), "layers": entry.get("Layers"), "repoTags": entry.get("RepoTags")}
    try:
        saved = PLAIN.from_data(_Saved, lower, "manifest.json")
    except ValueError as exc:
        raise Invalid(f"{archive.label}: {exc}") from None
    config = archive.read(saved.config)
    promised = saved.config.removeprefix("blobs/sha256/").removesuffix(".json")
    if digests.is_digest(digests.PREFIX + promised) and digests.of(config) != digests.PREFIX + promised:
        raise Invalid(f"{archive.label}: digest of {saved.config} is {digests.of(config)}")
    diff_ids = parse_document(config, archive.label).rootfs.diff_ids
    if len(diff_ids) != len(saved.layers):
        raise Invalid(f"{archive.label}: the image has {len(diff_ids)} layers, of which {len(saved.layers)} are listed")
    layers = [(diff_id, archive.source(name)) for diff_id, name in zip(diff_ids, saved.layers, strict=True)]
    return PlannedImage(config, layers, [_tag(archive, tag) for tag in saved.repo_tags])


def _tag(archive: Archive, text: str) -> Reference:
    try:
        return references.normalise(text)
    except ValueError as exc:
        raise Invalid(f"{archive.label}: {exc}") from None


# OCI layouts


def _layout(archive: Archive) -> Iterator[PlannedImage]:
    index = _parse(archive, Index, "index.json", archive.read("index.json"))
    groups: dict[str, list[Descriptor]] = {}
    for descriptor in index.manifests[:MAX_IMAGES]:
        groups.setdefault(_name(descriptor), []).append(descriptor)
    for name, descriptors in groups.items():
        names = [_tag(archive, name)] if name else []
        several = len(descriptors) > 1 and any(descriptor.platform for descriptor in descriptors)
        for descriptor in [_ours(archive, descriptors)] if several else descriptors:
            yield _layout_image(archive, descriptor, names)


def _name(descriptor: Descriptor) -> str:
    """The name that an entry of index.json was saved with; a bare tag, as skopeo writes it, names nothing."""
    full = descriptor.annotations.get(distribution.CONTAINERD_NAME, "")
    name = descriptor.annotations.get(distribution.REF_NAME, "")
    return full or (name if "/" in name or ":" in name else "")


def _ours(archive: Archive, descriptors: list[Descriptor]) -> Descriptor:
    """The one of several that is for this machine. Raises NotFound naming those that there are."""
    host = platforms.host()
    real = [d for d in descriptors if distribution.ATTESTATION not in d.annotations]
    for descriptor in real:
        if descriptor.platform is not None and descriptor.platform.matches(host):
            return descriptor
    if len(real) == 1:
        return real[0]
    there = ", ".join(sorted(str(d.platform) for d in real if d.platform is not None)) or "nothing"
    raise NotFound(f"{archive.label}: no image for {host}; it has {there}")


def _layout_image(archive: Archive, descriptor: Descriptor, names: list[Reference]) -> PlannedImage:
    for _ in range(MAX_DEPTH):
        data = _blob(archive, descriptor)
        if not _is_index(archive, descriptor, data):
            return _manifest_image(archive, descriptor, _parse(archive, Manifest, descriptor.digest, data), names)
        descriptor = _ours(archive, _parse(archive, Index, descriptor.digest, data).manifests)
    raise Invalid(f"{archive.label}: indexes are nested too deeply")


def _is_index(archive: Archive, descriptor: Descriptor, data: bytes) -> bool:
    """Whether a descriptor points at an index; where no media type is told, the data tells."""
    if descriptor.media_type:
        return descriptor.media_type in distribution.INDEXES
    content = _json(archive, descriptor.digest, data)
    return isinstance(content, dict) and "manifests" in content


def _manifest_image(archive: Archive, descriptor: Descriptor, manifest: Manifest, names: list[Reference]) -> PlannedImage:
    if manifest.config.media_type and manifest.config.media_type not in distribution.CONFIGS:
        raise Invalid(f"{archive.label}: {descriptor.digest} is not an image but {manifest.config.media_type}")
    config = _blob(archive, manifest.config)
    diff_ids = parse_document(config, archive.label).rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise Invalid(f"{archive.label}: the image has {len(diff_ids)} layers, of which {len(manifest.layers)} are listed")
    layers = []
    for diff_id, layer in zip(diff_ids, manifest.layers, strict=True):
        layers.append((diff_id, archive.source(_blob_name(archive, layer), layer.digest)))
    return PlannedImage(config, layers, names, descriptor.digest)


def _blob_name(archive: Archive, descriptor: Descriptor) -> str:
    try:
        return f"blobs/sha256/{digests.encoded(descriptor.digest)}"
    except ValueError as exc:
        raise Invalid(f"{archive.label}: {exc}") from None


def _blob(archive: Archive, descriptor: Descriptor) -> bytes:
    """A small blob, its digest checked. Raises Invalid."""
    data = archive.read(_blob_name(archive, descriptor))
    if digests.of(data) != descriptor.digest:
        raise Invalid(f"{archive.label}: digest of a blob is {digests.of(data)}, should be {descriptor.digest}")
    return data


def _parse(archive: Archive, kind: type[T], name: str, data: bytes) -> T:
    try:
        return PLAIN.loads(kind, data)
    except (ValueError, RecursionError) as exc:
        raise Invalid(f"{archive.label}: {name}: {exc}") from None
