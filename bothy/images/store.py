"""The images of one engine: the door of this room.

    store = ImageStore(paths)
    image = store.resolve("debian")            an image by name, id, or beginning of an id
    store.layers(image)                        its overlay lowers, topmost first

All methods are plain functions to be called in threads; what is heavy in them happens in processes of its own
(`bothy.images.processes`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from bothy.errors import Invalid, NotFound
from bothy.images import bootstrap, committing, describe, importing, loading, removing, saving, times
from bothy.images.committing import Commit
from bothy.images.content import Content, parse_reference
from bothy.images.disks import Disks
from bothy.images.model import Image, Usage
from bothy.oci import digest as digests
from bothy.paths import Paths

Progress = Callable[[str], None]
Images = list[Image]
Names = list[str]
Folders = list[Path]
Steps = list[dict[str, Any]]
Changes = list[dict[str, str]]
_SHORT_ID = re.compile(r"[0-9a-f]{1,64}")


def every(_: Image) -> bool:
    """All images."""
    return True


def silent(_: str) -> None:
    """Progress that nobody looks at."""


class ImageStore:
    """Opens the store below `paths.images`, made if it is missing, and repairs what a crash left."""

    def __init__(self, paths: Paths) -> None:
        self._content = Content(paths.images)
        self._disks = Disks(self._content)
        self._disks.sweep()

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
        shown = ref if ":" in ref.rpartition("/")[2] or "@" in ref else f"{ref}:latest"  # as Docker says it
        raise NotFound(f"No such image: {shown}", hint=bootstrap.hint_for(ref))

    def list(self) -> Images:
        """All images, newest first."""
        return [self._content.image(image) for image in self._content.database.images()]

    def layers(self, image: Image) -> Folders:
        """The folders that an overlay of the image has as lowers, topmost first."""
        return [self._content.layers.path(layer) for layer in self._content.lowers(image.id)]

    def machine_disk(self, image: Image, progress: Progress = silent) -> Path:
        """The image's file system as a read-only EROFS file, made on first use (seconds). Raises NotFound, Unavailable."""
        return self._disks.ensure(image.id, progress)

    def history(self, image: Image) -> Steps:
        """The steps in which an image was made, newest first, in the Docker API's words."""
        sizes = {layer.diff_id: layer.size for layer in self._content.database.layers_of(image.id)}
        return describe.history(image, [sizes[diff_id] for diff_id in image.layers])

    def config(self, image: Image) -> bytes:
        """The image's configuration, byte for byte: its digest is the image's id."""
        return self._content.config(image.id)

    def usage(self, used: Collection[str] = ()) -> Usage:
        """What the store takes on disk; `used` are the ids of images that workloads use."""
        database = self._content.database
        images = database.images()
        layers = {layer.diff_id: layer.size for layer in database.layers()}
        kept = {layer.diff_id for image in images if image in used for layer in database.layers_of(image)}
        disks = self._disks.sizes()
        kept_disks = {self._disks.key(image) for image in images if image in used}
        return Usage(
            images=len(images),
            layers=len(layers),
            layers_size=sum(layers.values()),
            disks=len(disks),
            disks_size=sum(disks.values()),
            reclaimable=sum(size for diff_id, size in layers.items() if diff_id not in kept)
            + sum(size for key, size in disks.items() if key not in kept_disks),
        )

    # Making

    def bootstrap(self, source: str, name: str = "", include: Sequence[str] = (), progress: Progress = silent) -> Image:
        """Make an image from what this host has: `busybox`, or `debian:<suite>` with more packages.

        Raises Invalid, NotFound (a tool is missing), Unavailable (the archive, or the disk); then nothing is left.
        """
        return bootstrap.bootstrap(self._content, source, name, include, progress)

    def load(self, path: Path | str, progress: Progress = silent, *, label: str = "") -> Names:
        """Add the images of a docker archive or OCI layout (tar, compressed tar, folder). Returns their names, or ids of those
        without. `label` is what messages call the file. Raises Invalid, NotFound, Unavailable."""
        images = loading.load(self._content, Path(path), label or os.path.basename(path), progress)
        return [name for image, names in images for name in (names or [image.id])]

    def import_rootfs(
        self,
        path: Path | str,
        name: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
        *,
        label: str = "",
    ) -> Image:
        """Add an image of a root file system's tar (compressed or not), with Dockerfile instructions applied to its configuration.

        Raises Invalid, NotFound, Unavailable; then nothing is left.
        """
        shown = label or os.path.basename(path)
        return importing.import_rootfs(self._content, Path(path), name, changes, message, platform, shown)

    def commit(self, what: Commit, layer: int) -> Image:
        """Add an image with one more layer, whose tar is read from the descriptor `layer` (-1: no more layer).

        Raises Invalid, NotFound, Unavailable; then nothing is left.
        """
        return committing.commit(self._content, what, layer)

    def save(self, refs: Sequence[str], out: Path | int) -> None:
        """Write images to an archive that docker, podman and skopeo read: a file (removed after a failure), or an open fd.

        Raises NotFound, Unavailable, Broken.
        """
        pairs = [pair for ref in refs for pair in saving.expand(self._content, ref) or [(ref, self._id_of(ref))]]
        if not pairs:
            raise Invalid("no image to save")
        if isinstance(out, int):
            saving.save(self._content, pairs, out)
            return
        fd = saving.open_target(out)
        try:
            saving.save(self._content, pairs, fd)
        except BaseException:
            os.unlink(out)
            raise
        finally:
            os.close(fd)

    # Names and removal

    def tag(self, ref: str, new: str) -> None:
        """Give an image another name (`repository[:tag]`), taking it from the image that has it. Raises NotFound, Invalid."""
        image = self._id_of(ref)
        name = parse_reference(new)
        if name.digest:
            raise Invalid(f"invalid reference {new!r}: a name for an image can not have a digest")
        self._content.database.tag(str(name), image, times.now())

    def remove(self, ref: str, *, force: bool = False, used: Collection[str] = (), running: Collection[str] = ()) -> Changes:
        """Remove a name, and the image with its last one; or an image by id. `used` are the ids of images that workloads use (a
        mapping to those workloads' ids makes better messages), `running` those of running ones.

        Returns Docker's list of {"Untagged": name} and {"Deleted": id}. Raises NotFound, Conflict, having changed nothing.
        """
        image = self._id_of(ref)
        changes = removing.remove(self._content, ref, image, force=force, used=used, running=running)
        self._disks.sweep()
        return changes

    def prune(
        self,
        *,
        dangling_only: bool = True,
        used: Collection[str] = (),
        wanted: Callable[[Image], bool] = every,
    ) -> tuple[Changes, int]:
        """Remove the images without a name (or all) that no workload uses and that are `wanted`. Returns what was removed, and the
        bytes freed."""
        before = self.usage()
        changes: Changes = []
        for image in self.list():
            if image.id not in used and not (dangling_only and image.repo_tags) and wanted(image):
                changes += removing.remove(self._content, image.id, image.id, force=True, used=(), running=())
        self._disks.sweep()
        after = self.usage()
        return changes, before.layers_size + before.disks_size - after.layers_size - after.disks_size
