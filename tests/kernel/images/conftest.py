"""An image store of its own for each test, and a check that nothing is left of what was begun."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bothy.images.store import ImageStore
from bothy.paths import Paths


class Tars:
    """Makes tars: each entry is (name, type, fields…)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __call__(self, *entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
        self._count += 1
        path = self._folder / f"{self._count}.tar"
        with tarfile.open(path, "w", format=form) as archive:
            for entry in entries:
                if isinstance(entry, tuple):
                    archive.addfile(entry[0], io.BytesIO(entry[1]))
                else:
                    archive.addfile(entry)
        return path


def file(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A regular file."""
    return entry(name, tarfile.REGTYPE, size=len(data), **fields), data


def entry(name: str, kind: bytes = tarfile.DIRTYPE, **fields: Any) -> tarfile.TarInfo:
    """Anything else; a folder unless told otherwise."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def symlink(name: str, target: str, **fields: Any) -> tarfile.TarInfo:
    return entry(name, tarfile.SYMTYPE, linkname=target, **fields)


def hardlink(name: str, target: str, **fields: Any) -> tarfile.TarInfo:
    return entry(name, tarfile.LNKTYPE, linkname=target, **fields)


@pytest.fixture
def tars(tmp_path: Path) -> Tars:
    folder = tmp_path / "tars"
    folder.mkdir()
    return Tars(folder)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


@pytest.fixture
def store(paths: Paths) -> Iterator[ImageStore]:
    mounts = Path("/proc/self/mountinfo").read_text()
    opened = ImageStore(paths)
    yield opened
    opened.close()
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert list((paths.images / "tmp").iterdir()) == []
    again = ImageStore(paths)
    assert_settled(again, paths)
    again.close()


def assert_settled(store: ImageStore, paths: Paths) -> None:
    """Every folder, recipe, blob and disk belongs to an image."""
    images = store.list()
    folders = {layer.folder for image in images for layer in store._content.database.layers_of(image.id)}
    assert {path.name for path in (paths.images / "layers").iterdir()} == folders
    assert {path.name for path in (paths.images / "recipes").iterdir()} == folders
    assert {path.name for path in (paths.images / "blobs/sha256").iterdir()} == {
        image.id.removeprefix("sha256:") for image in images
    }
