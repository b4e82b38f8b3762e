"""What the verbs of the images room work on: the index, the layers, the configuration blobs, and how an image is put in.

images/
├── images.db                  the index
├── blobs/sha256/<hex>         configurations, byte for byte: their digest is the image's id
├── layers/ recipes/ tmp/      see `bothy.images.layers`
├── disks/<key>.erofs          see `bothy.images.disks`
└── lock                       held by the one process that uses the store
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from bothy.errors import Conflict, Invalid, NotFound
from bothy.images import times
from bothy.images.database import Database
from bothy.images.layers import LayerStore
from bothy.images.model import Image, Layer
from bothy.oci import digest as digests
from bothy.oci import reference as references
from bothy.oci.image import OCI, ImageDocument
from bothy.oci.reference import Reference

MAX_LAYERS = 127


def parse_document(config: bytes, what: str) -> ImageDocument:
    """An image configuration. Raises Invalid naming `what`."""
    try:
        document = OCI.loads(ImageDocument, config)
        for diff_id in document.rootfs.diff_ids:
            digests.parse(diff_id)
    except (ValueError, RecursionError) as exc:
        raise Invalid(f"{what}: the image configuration is invalid: {exc}") from None
    if len(document.rootfs.diff_ids) > MAX_LAYERS:
        raise Invalid(f"{what}: the image has {len(document.rootfs.diff_ids)} layers, more than {MAX_LAYERS}")
    return document


def parse_reference(text: str) -> Reference:
    """A reference with a tag or a digest. Raises Invalid."""
    try:
        return references.normalise(text)
    except ValueError as exc:
        raise Invalid(str(exc)) from None


class Content:
    """One image store on disk. Opening it repairs what a crash left. Raises Conflict if another process has it open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.disks = root / "disks"
        self.disks.mkdir(mode=0o700, exist_ok=True)
        self._lock_fd = _lock(root / "lock")
        self.database = Database(root / "images.db")
        self.layers = LayerStore(root, self.database)
        self._documents: dict[str, ImageDocument] = {}
        self._repair()

    def close(self) -> None:
        """Let go of the store; it may be opened again."""
        self.database.close()
        os.close(self._lock_fd)

    def _repair(self) -> None:
        self.layers.sweep()
        self.layers.collect()
        known = {digests.encoded(image) for image in self.database.images()}
        for blob in self._blobs.iterdir():
            if blob.name not in known:
                blob.unlink()

    # Putting in and taking out

    def add(self, config: bytes, names: Iterable[Reference], *, digest: str = "", what: str = "image") -> Image:
        """Add an image whose layers are there (and pinned), and give it names. Returns it. Raises Invalid."""
        document = parse_document(config, what)
        image = digests.of(config)
        blob = self._blobs / digests.encoded(image)
        if not blob.exists():
            with self.layers.workspace() as folder:
                (folder / "config").write_bytes(config)
                os.rename(folder / "config", blob)
        layers = [self.database.layer(diff_id) for diff_id in document.rootfs.diff_ids]
        size = sum(layer.size for layer in layers if layer is not None)
        with self.database.transaction():
            self.database.add_image(image, document.created, size, digest, config, document.rootfs.diff_ids)
            for name in names:
                self.database.tag(str(name), image, times.now())
        return self.image(image)

    def forget(self, image: str) -> list[Layer]:
        """Remove an image, and the layers that no other image has; returns those."""
        self.database.remove_image(image)
        self._documents.pop(image, None)
        (self._blobs / digests.encoded(image)).unlink(missing_ok=True)
        return self.layers.collect()

    # Looking at

    def image(self, image: str) -> Image:
        """The image with this id. Raises NotFound."""
        row = self.database.image(image)
        if row is None:
            raise NotFound(f"no such image: {image}")
        created, size, digest, config = row
        document = self._documents.get(image)
        if document is None:
            document = self._documents[image] = parse_document(config, image)
        tags = self.database.tags(image)
        return Image(
            id=image,
            created=created,
            architecture=document.architecture,
            os=document.os,
            size=size,
            config=document.config,
            layers=document.rootfs.diff_ids,
            repo_tags=[references.parse(name).familiar for name, _ in tags],
            repo_digests=[references.parse(name).familiar for name in self.database.digests(image)],
            digest=digest,
            variant=document.variant,
            author=document.author,
            comment=document.comment,
            docker_version=document.docker_version,
            history=document.history,
            tagged=max((when for _, when in tags), default=""),
        )

    def config(self, image: str) -> bytes:
        """The configuration blob of an image. Raises NotFound."""
        row = self.database.image(image)
        if row is None:
            raise NotFound(f"no such image: {image}")
        return bytes(row[3])

    def lowers(self, image: str) -> list[Layer]:
        """The layers that make the image's file system, topmost first.

        A layer that occurs twice is told once, at the top: all that it has there hides what it has below, and overlayfs
        refuses the same folder twice. Nothing is seen below a layer that says so of its root.
        """
        lowers: list[Layer] = []
        for layer in reversed(self.database.layers_of(image)):
            if layer not in lowers:
                lowers.append(layer)
            if layer.opaque_root:
                break
        return lowers


def _lock(path: Path) -> int:
    """Lock the store for this process. A record lock: children do not inherit it, and it goes with the process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise Conflict(f"the image store {path.parent} is in use by another engine", errno=exc.errno or 0) from None
    return fd
