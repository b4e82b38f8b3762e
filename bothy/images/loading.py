"""Bringing images in from archives: `load`."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bothy.errors import BothyError, Invalid, NotFound
from bothy.images.archives import Archive, FolderArchive, TarArchive, is_compressed
from bothy.images.content import Content
from bothy.images.contents import PlannedImage, plan
from bothy.images.layers import Source
from bothy.images.model import Image
from bothy.images.processes import run

WORKERS = max(1, min(4, os.cpu_count() or 1))


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
    """Unpack the layers that are missing, several at once, then add the image."""
    sources: dict[str, Source] = dict(planned.layers)
    name = planned.names[0].familiar if planned.names else "image"

    def ensure(number: int, diff_id: str) -> None:
        progress(f"{name}: layer {number} of {len(sources)}")
        content.layers.ensure(diff_id, sources[diff_id], f"{archive.label}: layer {number}")

    try:
        with content.layers.pinned(list(sources)):
            _each([(number, diff_id) for number, diff_id in enumerate(sources, 1)], ensure)
            return content.add(planned.config, planned.names, digest=planned.digest, what=archive.label)
    finally:
        content.layers.collect()


def _each(jobs: list[tuple[int, str]], do: Callable[[int, str], None]) -> None:
    """Do all jobs in a few threads. Raises the first failure, the others as notes, when none runs any more."""
    if len(jobs) == 1:
        do(*jobs[0])
        return
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="layers") as pool:
        futures = [pool.submit(do, *job) for job in jobs]
        for future in futures:
            if future.exception() is not None:
                pool.shutdown(wait=True, cancel_futures=True)
                break
    failures = [exc for future in futures if not future.cancelled() and (exc := future.exception()) is not None]
    for other in failures[1:]:
        failures[0].add_note(other.message if isinstance(other, BothyError) else str(other))
    if failures:
        raise failures[0]
