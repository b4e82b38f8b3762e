"""From a tar to a tree: what is copied into a workload, or out of one.

Docker's rules: what is there is replaced, a folder is merged with a folder; missing folders are made; names that climb out of the
target are refused. Nothing that is there is opened, but for a file that something is mounted on, which can not be replaced.

Devices are left out where the kernel does not let us make them. What belongs to somebody for whom there is no number here (in the
user namespace of a container) becomes root's.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from typing import Protocol

from bothy.errors import StageError
from bothy.tar import headers
from bothy.tar.headers import Damaged, Entry, show
from bothy.tar.pack import FOLDER, MAX_DEPTH, XATTRS
from bothy.tar.reader import Forgetful, Reader, Stream

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DENIED_XATTRS = (b"user.overlay.",)
_ALLOWED_XATTRS = tuple(name.encode() for name in XATTRS)
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_UNMAPPED = (errno.EINVAL, errno.EPERM, errno.EOVERFLOW)


def clean(name: bytes) -> bytes:
    """An entry's name without leading slashes, dots and inner `..`; empty for the root itself. Raises Damaged if it climbs out."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise Damaged(f"entry {show(name)} climbs out of the root")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


class Places(Protocol):
    """Where the folders of an archive are."""

    def folder(self, path: bytes) -> int:
        """A descriptor of the folder at `path` (clean, relative, empty for the target), made with its parents where it is missing.

        Raises OSError; NotADirectoryError where there is something else.
        """


class Owners(enum.Enum):
    """To whom belongs what is made: to whom the archive says, or to whom makes it. In the latter case nothing that gives rights is
    taken from the archive: no set-id bits, no capabilities, no devices."""

    KEPT = "kept"
    OURS = "ours"


class Extractor:
    """Applies an archive. `strict`: no folder takes the place of another kind of file, or the other way round.

    `owner`: a (uid, gid) for all, or a rule. `renamed`: the first part that entries' names have, and what is to be there instead;
    if it is empty, they all go below the other.
    """

    def __init__(
        self,
        stream: Stream,
        places: Places,
        *,
        strict: bool = False,
        owner: tuple[int, int] | Owners = Owners.KEPT,
        renamed: tuple[bytes, bytes] | None = None,
    ) -> None:
        self._reader = Reader(stream, Forgetful())
        self._places = places
        self._strict = strict
        self._owner = owner
        self._renamed = renamed
        self._open: tuple[bytes, int] = (b"", -1)
        self._folders: dict[bytes, Entry] = {}

    def run(self) -> None:
        """Apply everything. Raises Damaged, OSError, StageError, BrokenOff; what is there by then stays."""
        for entry in self._reader:
            try:
                self._apply(entry)
            except OSError as exc:
                if exc.filename is None or isinstance(exc.filename, int):
                    exc.filename = entry.name
                raise
        for name, entry in reversed(self._folders.items()):
            try:
                fd = self._folder_fd(name)
            except OSError:
                continue  # the archive itself, or the workload, has put something else there
            os.utime(fd, ns=(entry.mtime, entry.mtime))
            os.close(fd)
        if self._open[1] >= 0:
            os.close(self._open[1])

    def _apply(self, entry: Entry) -> None:
        name = self._name(entry.name)
        if not name:
            return  # the target is there, and stays as it is
        parent, _, base = name.rpartition(b"/")
        folder = self._parent(parent)
        there = _lstat(folder, base)
        if there is not None:
            self._make_room(folder, base, entry, there)
        if entry.type == headers.DIRECTORY:
            self._folder(folder, base, name, entry)
        elif entry.type == headers.REGULAR:
            self._file(folder, base, entry)
        elif entry.type == headers.HARDLINK:
            self._hardlink(folder, base, entry)
        else:
            self._special(folder, base, entry)

    # Places

    def _name(self, name: bytes) -> bytes:
        """Where an entry goes: a clean, relative path, empty for the target itself. Raises Damaged."""
        cleaned = clean(name)
        if self._renamed is None:
            return cleaned
        old, new = self._renamed
        if not old:
            return (new + b"/" + cleaned).rstrip(b"/")
        first, slash, rest = cleaned.partition(b"/")
        return new + slash + rest if first == old else cleaned

    def _parent(self, path: bytes) -> int:
        """The open folder at `path` below the target, made if it is missing; open until the next one is asked for."""
        known, fd = self._open
        if fd >= 0 and known == path:
            return fd
        if fd >= 0:
            os.close(fd)
        self._open = (b"", -1)
        try:
            fd = self._places.folder(path)
        except NotADirectoryError as exc:
            raise Damaged(f"{show(path)} is not a folder, and is used as one") from exc
        self._open = (path, fd)
        return fd

    def _folder_fd(self, name: bytes) -> int:
        parent, _, base = name.rpartition(b"/")
        return os.open(base, FOLDER, dir_fd=self._parent(parent))

    def _make_room(self, folder: int, base: bytes, entry: Entry, there: os.stat_result) -> None:
        """Take away what the entry replaces. Raises StageError where a folder would be replaced and must not."""
        is_folder, becomes_folder = stat.S_ISDIR(there.st_mode), entry.type == headers.DIRECTORY
        if self._strict and is_folder and not becomes_folder:
            raise StageError("archive", f"cannot overwrite directory {show(entry.name)} with non-directory")
        if self._strict and becomes_folder and not is_folder:
            raise StageError("archive", f"cannot overwrite non-directory {show(entry.name)} with directory")
        if is_folder and becomes_folder:
            return
        if not is_folder:
            try:
                os.unlink(base, dir_fd=folder)
            except OSError as exc:
                if exc.errno != errno.EBUSY or entry.type != headers.REGULAR:
                    raise
            return
        remove(folder, base)
        self._folders = {name: kept for name, kept in self._folders.items() if not _is_below(name, self._name(entry.name))}

    # Kinds of entries

    def _folder(self, folder: int, base: bytes, name: bytes, entry: Entry) -> None:
        try:
            os.mkdir(base, 0o700, dir_fd=folder)
        except FileExistsError:
            pass
        fd = os.open(base, FOLDER, dir_fd=folder)
        try:
            self._own(fd, entry)
            os.fchmod(fd, self._mode(entry))
            _set_xattrs(fd, entry, ours=self._owner is Owners.OURS)
        finally:
            os.close(fd)
        self._folders.pop(name, None)
        self._folders[name] = entry

    def _file(self, folder: int, base: bytes, entry: Entry) -> None:
        try:
            fd = os.open(base, _NEW_FILE, 0o600, dir_fd=folder)
        except FileExistsError:
            fd = os.open(base, _OLD_FILE, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StageError("archive", f"{show(entry.name)} can not be replaced", errno=errno.EBUSY)
            for offset, piece in self._reader.content(entry, recorded_as=b""):
                while piece:
                    done = os.pwrite(fd, piece, offset)
                    piece, offset = piece[done:], offset + done
            if entry.sparse is not None:
                os.ftruncate(fd, entry.real_size)
            self._own(fd, entry)
            os.fchmod(fd, self._mode(entry))
            _set_xattrs(fd, entry, ours=self._owner is Owners.OURS)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _hardlink(self, folder: int, base: bytes, entry: Entry) -> None:
        parent, _, name = self._name(entry.link).rpartition(b"/")
        here = os.dup(folder)  # the parent that is open may become another
        try:
            source = self._parent(parent)
            os.link(name or b".", base, src_dir_fd=source, dst_dir_fd=here, follow_symlinks=False)
        except (FileNotFoundError, IsADirectoryError, PermissionError) as exc:
            raise Damaged(f"hard link {show(entry.name)} to {show(entry.link)}: {exc.strerror}") from exc
        finally:
            os.close(here)

    def _special(self, folder: int, base: bytes, entry: Entry) -> None:
        """Links, pipes and devices."""
        if entry.type == headers.SYMLINK:
            os.symlink(entry.link, base, dir_fd=folder)
        elif entry.type == headers.FIFO:
            os.mkfifo(base, 0o600, dir_fd=folder)
        else:
            if self._owner is Owners.OURS:
                return
            kind = stat.S_IFCHR if entry.type == headers.CHARACTER else stat.S_IFBLK
            try:
                os.mknod(base, kind | 0o600, os.makedev(entry.major & 0xFFF, entry.minor & 0xFFFFF), dir_fd=folder)
            except PermissionError:
                return
        self._own_link(folder, base, entry)
        if entry.type != headers.SYMLINK:
            os.chmod(base, self._mode(entry), dir_fd=folder)
        os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)

    # Owners and rights

    def _mode(self, entry: Entry) -> int:
        return entry.mode & ~_SET_IDS if self._owner is Owners.OURS else entry.mode

    def _own(self, fd: int, entry: Entry) -> None:
        """Give a file its owner. Before its mode and its attributes: a new owner takes those away that give rights."""
        if self._owner is Owners.OURS:
            return
        uid, gid = self._owner if isinstance(self._owner, tuple) else (entry.uid, entry.gid)
        try:
            os.fchown(fd, uid, gid)
        except (OSError, OverflowError) as exc:
            _check_unmapped(exc)
            os.fchown(fd, 0, 0)

    def _own_link(self, folder: int, base: bytes, entry: Entry) -> None:
        if self._owner is Owners.OURS:
            return
        uid, gid = self._owner if isinstance(self._owner, tuple) else (entry.uid, entry.gid)
        try:
            os.chown(base, uid, gid, dir_fd=folder, follow_symlinks=False)
        except (OSError, OverflowError) as exc:
            _check_unmapped(exc)
            os.chown(base, 0, 0, dir_fd=folder, follow_symlinks=False)


def _check_unmapped(exc: OSError | OverflowError) -> None:
    """Pass over the refusal of an owner for whom there is no number; raise any other."""
    if isinstance(exc, OSError) and exc.errno not in _UNMAPPED:
        raise exc


def _lstat(folder: int, base: bytes) -> os.stat_result | None:
    try:
        return os.stat(base, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_below(name: bytes, folder: bytes) -> bool:
    return name == folder or name.startswith(folder + b"/")


def remove(folder: int, name: bytes) -> None:
    """Remove the folder `name` of an open folder with all that is in it. Raises OSError, StageError (nested too deeply)."""
    levels: list[tuple[int, bytes]] = [(os.open(name, FOLDER, dir_fd=folder), name)]
    try:
        while levels:
            fd, label = levels[-1]
            below = _empty(fd)
            if below is not None:
                if len(levels) >= MAX_DEPTH:
                    raise StageError("remove", "folders are nested too deeply", errno=errno.ELOOP)
                levels.append((os.open(below, FOLDER, dir_fd=fd), below))
                continue
            levels.pop()
            os.close(fd)
            os.rmdir(label, dir_fd=levels[-1][0] if levels else folder)
    finally:
        for fd, _ in levels:
            os.close(fd)


def _empty(fd: int) -> bytes | None:
    """Remove what an open folder has, but for folders that are not empty: the first of those, None if there is none."""
    for text in os.listdir(fd):
        name = os.fsencode(text)
        try:
            if not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=fd)
                continue
            os.rmdir(name, dir_fd=fd)
        except FileNotFoundError:
            continue
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return name
    return None


def _set_xattrs(fd: int, entry: Entry, *, ours: bool) -> None:
    """Those attributes that an archive may bring; a file system that has none is no failure, as in Docker."""
    for name, value in entry.xattrs.items():
        if not name.startswith(_ALLOWED_XATTRS) or name.startswith(_DENIED_XATTRS) or b"\0" in name:
            continue
        if ours and not name.startswith(b"user."):
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as exc:
            if exc.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
