"""The nouns of the images room."""

from __future__ import annotations

from dataclasses import dataclass, field

from bothy.oci.image import History, ImageConfig


@dataclass(frozen=True)
class Image:
    """An image as the engine sees it. `id` is the digest of its configuration; `repo_tags` and `repo_digests` are familiar names
    (`debian:bookworm`); `layers` are diff ids, bottom first; `size` in bytes, the sum of its layers' files. Times are RFC 3339.
    `digest` is that of the manifest it came by, empty where it came by none."""

    id: str
    created: str
    architecture: str
    os: str
    size: int
    config: ImageConfig
    layers: list[str]
    repo_tags: list[str] = field(default_factory=list)
    repo_digests: list[str] = field(default_factory=list)
    digest: str = ""
    variant: str = ""
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    history: list[History] = field(default_factory=list)
    tagged: str = ""


@dataclass(frozen=True)
class Layer:
    """An unpacked layer. `folder` is its name below `layers/`, `size` the bytes of its files, `tar_size` of its tar.
    With `opaque_root` nothing below it is seen."""

    diff_id: str
    folder: str
    size: int
    tar_size: int
    opaque_root: bool


@dataclass(frozen=True)
class Usage:
    """What the store takes on disk, in bytes. `reclaimable` is what `prune` of all unused images would free."""

    images: int = 0
    layers: int = 0
    layers_size: int = 0
    disks: int = 0
    disks_size: int = 0
    reclaimable: int = 0
