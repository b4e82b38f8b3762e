"""What is in an image archive, without unpacking it: files by name, each with its place in the archive.

    TarArchive       a plain tar: every member's offset and size, found in one pass over the headers
    FolderArchive    an OCI layout that is a folder

`read` gives a small file (JSON), `source` a big one (a layer) as a place that a worker reads by itself. Names in archives are a
stranger's words: they are looked up in a table, or opened below the folder without following links out of it.
"""

from __future__ import annotations

import os
import posixpath
import stat
from pathlib import Path
from types import TracebackType
from typing import Protocol

from bothy.errors import Invalid
from bothy.images import magic
from bothy.images.layers import Source
from bothy.linux import syscalls
from bothy.tar import headers
from bothy.tar.headers import BLOCK, Damaged, Entry

MAX_MEMBERS = 100_000
MAX_JSON = 16 << 20
MAX_LINKS = 8


class Archive(Protocol):
    """`label` names the archive in messages. A context manager: open while its sources are used."""

    label: str

    def has(self, name: str) -> bool: ...
    def read(self, name: str) -> bytes: ...
    def source(self, name: str, digest: str = "") -> Source: ...
    def __enter__(self) -> Archive: ...
    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None: ...


class TarArchive:
    """A plain tar file. Raises Invalid if it is none."""

    def __init__(self, path: Path, label: str) -> None:
        self.label = label
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._members = _scan(self._fd)
        except Damaged as exc:
            os.close(self._fd)
            raise Invalid(f"{label}: {exc}") from None
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> TarArchive:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._fd)

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def read(self, name: str) -> bytes:
        """A small file of the archive. Raises Invalid if it is missing or too big."""
        offset, size = self._place(name)
        if size > MAX_JSON:
            raise Invalid(f"{self.label}: {name} has {size} bytes")
        return os.pread(self._fd, size, offset)

    def source(self, name: str, digest: str = "") -> Source:
        """Where a file of the archive is. Raises Invalid if it is missing."""
        offset, size = self._place(name)
        return Source(self._fd, offset, size, digest)

    def _place(self, name: str) -> tuple[int, int]:
        place = self._find(name)
        if place is None:
            raise Invalid(f"{self.label}: {name} is missing")
        return place

    def _find(self, name: str) -> tuple[int, int] | None:
        """(offset, size) of a regular file, through symlinks and hard links inside the archive (docker save of 20.10 has them)."""
        name = posixpath.normpath(name)
        for _ in range(MAX_LINKS):
            member = self._members.get(name)
            if not isinstance(member, str):
                return member
            name = member
        return None


def _scan(fd: int) -> dict[str, tuple[int, int] | str]:
    """Every file's (offset, size), every link's target, by normalised name; the last of a name counts. Raises Damaged."""
    members: dict[str, tuple[int, int] | str] = {}
    end = os.fstat(fd).st_size
    at = 0
    long_name = long_link = b""
    pax: dict[bytes, bytes] = {}
    while len(block := os.pread(fd, BLOCK, at)) == BLOCK and block != headers.ZEROS:
        if not headers.checksum_is_right(block):
            raise Damaged("this is not a tar archive" if not at else "a header's checksum is wrong")
        entry = Entry(block)
        at += BLOCK
        if entry.type in (headers.GNU_NAME, headers.GNU_LINK, headers.PAX):
            if not 0 <= entry.size <= headers.MAX_EXTENSION:
                raise Damaged(f"an extended header has {entry.size} bytes")
            data = os.pread(fd, entry.size, at)
            at += entry.size + -entry.size % BLOCK
            long_name = headers.text(data) if entry.type == headers.GNU_NAME else long_name
            long_link = headers.text(data) if entry.type == headers.GNU_LINK else long_link
            pax = headers.parse_pax(data) if entry.type == headers.PAX else pax
            continue
        entry.name, entry.link = long_name or entry.name, long_link or entry.link
        headers.apply_pax(entry, pax)
        size = entry.size if entry.type in (headers.REGULAR, headers.PAX_GLOBAL, headers.GNU_SPARSE) else 0
        if size < 0 or at + size > end:
            raise Damaged("archive ends too early")
        _note(members, entry, at)
        at += size + -size % BLOCK
        long_name = long_link = b""
        pax = {}
    if not at:
        raise Damaged("this is not a tar archive")
    return members


def _note(members: dict[str, tuple[int, int] | str], entry: Entry, at: int) -> None:
    """Remember one entry of a scan. Raises Damaged if there are too many."""
    name = posixpath.normpath(os.fsdecode(entry.name).lstrip("/"))
    target = os.fsdecode(entry.link)
    if entry.type == headers.REGULAR:
        members[name] = (at, entry.size)
    elif entry.type == headers.SYMLINK:
        members[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    elif entry.type == headers.HARDLINK:
        members[name] = posixpath.normpath(target)
    if len(members) > MAX_MEMBERS:
        raise Damaged(f"the archive has more than {MAX_MEMBERS} members")


class FolderArchive:
    """A folder, of which nothing outside is ever opened."""

    def __init__(self, path: Path, label: str) -> None:
        self.label = label
        self._folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: list[int] = []

    def __enter__(self) -> FolderArchive:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        for fd in (*self._open, self._folder):
            os.close(fd)

    def has(self, name: str) -> bool:
        try:
            self._file(name)
        except Invalid:
            return False
        return True

    def read(self, name: str) -> bytes:
        """A small file of the folder. Raises Invalid if it is missing or too big."""
        fd, size = self._file(name)
        if size > MAX_JSON:
            raise Invalid(f"{self.label}: {name} has {size} bytes")
        return os.pread(fd, size, 0)

    def source(self, name: str, digest: str = "") -> Source:
        """Where a file of the folder is. Raises Invalid if it is missing."""
        fd, size = self._file(name)
        return Source(fd, 0, size, digest)

    def _file(self, name: str) -> tuple[int, int]:
        """(fd, size) of a regular file; the fd stays open as long as the archive."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        try:
            fd = syscalls.openat2(self._folder, name, flags, syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS)
        except OSError as exc:
            raise Invalid(f"{self.label}: {name}: {exc.strerror}") from None
        self._open.append(fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Invalid(f"{self.label}: {name} is not a file")
        return fd, status.st_size


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed in one of the ways that `bothy.images.streams` can undo."""
    with path.open("rb") as file:
        return magic.is_compressed(file.read(magic.ENOUGH))
