"""Bringing images in from archives: `load`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bothy.errors import Invalid, NotFound
from bothy.images.archives import Archive, FolderArchive, TarArchive, is_compressed
from bothy.images.content import Content
from bothy.images.contents import PlannedImage, plan
from bothy.images.model import Image
from bothy.images.processes import run


def load(content: Content, path: Path, label: str, progress: Callable[[str], None]) -> list[tuple[Image, list[str]]]:
    """Add the images of a docker archive or an OCI layout (a tar, perhaps compressed, or a folder).

    Returns each with the names that it came with. Raises Invalid, NotFound (no file, or no image for this machine), Unavailable
    (disk full). After a failure the images that were whole by then are there, the others are not, and nothing is left of them.
    """
    with content.layers.workspace() as folder:
        with _opened(path, label, folder, progress) as archive:
            plans = plan(archive)
            return [(_add(content, archive, planned, progress), [name.familiar for name in planned.names]) for planned in plans]


def _opened(path: Path, label: str, folder: Path, progress: Callable[[str], None]) -> Archive:
    """The archive at a path; a compressed one is first decompressed into `folder`."""
    try:
        if path.is_dir():
            return FolderArchive(path, label)
        if is_compressed(path):
            progress(f"{label}: decompressing")
            with path.open("rb") as file:
                run("spool", {"fd": file.fileno(), "out": str(folder / "archive.tar")}, fds=[file.fileno()], what=label)
            path = folder / "archive.tar"
        return TarArchive(path, label)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except OSError as exc:
        raise Invalid(f"{path}: {exc.strerror}", errno=exc.errno or 0) from None


def _add(content: Content, archive: Archive, planned: PlannedImage, progress: Callable[[str], None]) -> Image:
    """Unpack the layers that are missing, then add the image."""
    sources = dict(planned.layers)
    name = planned.names[0].familiar if planned.names else archive.label
    try:
        with content.layers.pinned(list(sources)):
            content.layers.ensure(sources, archive.label, lambda words: progress(f"{name}: {words}"))
            return content.add(planned.config, planned.names, digest=planned.digest, what=archive.label)
    finally:
        content.layers.collect()
