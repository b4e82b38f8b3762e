"""Tar archives, odd ones too, for tests that have them unpacked."""

from __future__ import annotations

import io
import tarfile


def tar(*entries: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    """An archive of entries as they are, and of files with a name and a content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def entry(name: str, kind: bytes, link: str = "", **more: int) -> tarfile.TarInfo:
    """An entry of a kind; `more` are further fields of it."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    for key, value in more.items():
        setattr(info, key, value)
    return info
