"""Paths inside the root that a visit is in, as Docker reads them; and what is there.

The visit's own root is the workload's, so no link leads out of it. What is resolved is resolved by openat2(2) all the same, without
the magic links of /proc, behind which another process's root may be.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import Any

from bothy.linux import mounts

_MAX_LINKS = 255
# os.FileMode of Go: the bits beside the permissions
_DIR, _SYMLINK, _DEVICE, _PIPE, _SOCKET, _SETUID, _SETGID, _CHAR, _STICKY = (
    1 << bit for bit in (31, 27, 26, 25, 24, 23, 22, 21, 20)
)
_KINDS = {
    stat.S_IFDIR: _DIR, stat.S_IFLNK: _SYMLINK, stat.S_IFBLK: _DEVICE, stat.S_IFCHR: _DEVICE | _CHAR, stat.S_IFIFO: _PIPE,
    stat.S_IFSOCK: _SOCKET,
}  # fmt: skip


def clean(path: str) -> str:
    """An absolute path without `..` and `.`, which are taken away as text. A `/` or `/.` at the end stays: it says "a folder"."""
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    if posixpath.basename(path) == ".":
        return cleaned.rstrip("/") + "/."
    return cleaned.rstrip("/") + "/" if path.endswith("/") else cleaned


def go_mode(mode: int) -> int:
    """A file's mode as Go's os.FileMode has it."""
    bits = (mode & 0o777) | _KINDS.get(stat.S_IFMT(mode), 0)
    for bit, there in ((stat.S_ISUID, _SETUID), (stat.S_ISGID, _SETGID), (stat.S_ISVTX, _STICKY)):
        bits |= there if mode & bit else 0
    return bits


def status_of(root: int, path: str) -> os.stat_result:
    """What is at a cleaned path; a link in the last place is told, not followed, unless the path says that it is a folder."""
    fd = mounts.open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        status = os.fstat(fd)
        if path.endswith(("/", "/.")) and not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return status
    finally:
        os.close(fd)


def told(path: str, status: os.stat_result) -> dict[str, Any]:
    """The description of a file that Docker's clients get; `mtime` in nanoseconds."""
    target = follow(path) if stat.S_ISLNK(status.st_mode) else ""
    name = posixpath.basename(path.rstrip("/")) or "/"
    return {
        "name": name,
        "size": status.st_size,
        "mode": go_mode(status.st_mode),
        "mtime": status.st_mtime_ns,
        "linkTarget": target,
    }


def follow(path: str) -> str:
    """Where a link leads in the end, as an absolute path; as far as that can be told. Raises OSError (ELOOP)."""
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    here, links = "", 0
    while todo:
        part = todo.pop()
        if part == "..":
            here = here.rpartition("/")[0]
            continue
        step = f"{here}/{part}"
        try:
            target = os.readlink(step)
        except OSError:
            here = step
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        todo += [p for p in reversed(target.split("/")) if p not in ("", ".")]
        here = "" if target.startswith("/") else here
    return here or "/"


def parent_and_name(root: int, path: str) -> tuple[int, str]:
    """The open folder that a cleaned path's last part is in, and that part; `.` for the root and for what says it is a folder.

    Raises OSError.
    """
    if path.endswith(("/", "/.")):
        return mounts.open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY), "."
    folder, name = posixpath.split(path)
    return mounts.open_in_root(root, folder, os.O_RDONLY | os.O_DIRECTORY), name
