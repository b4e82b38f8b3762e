"""Puts tars together again, in the worker: the job of `save`.

Small files come from the disk as they are; a layer's tar is made of its recipe and its folder, and its digest is checked on the
way: what is written is what came, or nothing.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from bothy.images import recipe as recipes
from bothy.linux import syscalls

CHUNK = 1 << 20


def assemble(job: dict[str, Any], say: Callable[..., None]) -> dict[str, Any]:
    """Write a tar to file `fd`: `files` ([name, path]), then `layers` ({name, folder, recipe, size, diff_id}), in that order.

    Raises ValueError if a layer's folder does not give its tar any more; what was written by then is not an archive.
    """
    del say
    out = job["fd"]
    for folder in job["folders"]:
        _write(out, _header(folder, 0, tarfile.DIRTYPE, 0o755))
    for name, path in job["files"]:
        with open(path, "rb") as file:
            data = file.read()
        _write(out, _header(name, len(data)) + data + bytes(-len(data) % 512))
    for layer in job["layers"]:
        _write(out, _header(layer["name"], layer["size"]))
        digest = hashlib.sha256()
        written = 0
        for piece in tar_of(layer["folder"], layer["recipe"]):
            digest.update(piece)
            _write(out, piece)
            written += len(piece)
        if f"sha256:{digest.hexdigest()}" != layer["diff_id"] or written != layer["size"]:
            raise ValueError(f"the files of layer {layer['diff_id']} have been changed in the store")
        _write(out, bytes(-written % 512))
    _write(out, bytes(2 * tarfile.BLOCKSIZE))
    return {}


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.mode = size, kind, mode
    return entry.tobuf(tarfile.PAX_FORMAT)


def _write(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


def tar_of(folder: str, recipe: str) -> Iterator[bytes]:
    """The tar of a layer in pieces. Raises ValueError for a damaged recipe or a file that is not as long as it was."""
    root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(recipe, "rb") as source:
            for record in recipes.records(source):
                if isinstance(record, bytes):
                    yield record
                else:
                    yield from _file(root, *record)
    finally:
        os.close(root)


def _file(root: int, path: bytes, size: int) -> Iterator[bytes]:
    """The content of one file of a layer's folder; nothing outside of it, and nothing that is no file, is opened."""
    resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
    fd = syscalls.openat2(root, os.fsdecode(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise ValueError(f"file {os.fsdecode(path)!r} has been changed in the store")
        left = size
        while left:
            piece = os.read(fd, min(left, CHUNK))
            if not piece:
                raise ValueError(f"file {os.fsdecode(path)!r} has been changed in the store")
            left -= len(piece)
            yield piece
    finally:
        os.close(fd)
