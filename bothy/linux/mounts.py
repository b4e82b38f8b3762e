"""Mounts by file descriptor: paths resolved inside a root that a stranger filled, detached mounts, mount options as data.

Every path inside a root is resolved by openat2(2) with RESOLVE_IN_ROOT: symbolic links, absolute ones and `..` too, stay below
the root, and magic links of /proc are refused. What was found is used by its descriptor, never by its name again.

    fd = make_folder(root, "/var/run/app")      made if missing, whatever links are on the way
    tree = clone_tree(AT_FDCWD, "/srv/data")    a detached copy of a mount
    set_attributes(tree, attr_set=MOUNT_ATTR_RDONLY)
    move_mount(tree, fd)                        now it is seen
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from bothy.linux import syscalls as sc

_IN_ROOT = sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS
_MAX_LINKS = 40

# mount(8) words: (flag of mount(2), flag is set or cleared)
_FLAGS = {
    "ro": (sc.MS_RDONLY, True), "rw": (sc.MS_RDONLY, False), "nosuid": (sc.MS_NOSUID, True), "suid": (sc.MS_NOSUID, False),
    "nodev": (sc.MS_NODEV, True), "dev": (sc.MS_NODEV, False), "noexec": (sc.MS_NOEXEC, True), "exec": (sc.MS_NOEXEC, False),
    "sync": (sc.MS_SYNCHRONOUS, True), "async": (sc.MS_SYNCHRONOUS, False), "dirsync": (sc.MS_DIRSYNC, True),
    "noatime": (sc.MS_NOATIME, True), "atime": (sc.MS_NOATIME, False), "nodiratime": (sc.MS_NODIRATIME, True),
    "diratime": (sc.MS_NODIRATIME, False), "relatime": (sc.MS_RELATIME, True), "norelatime": (sc.MS_RELATIME, False),
    "strictatime": (sc.MS_STRICTATIME, True), "nostrictatime": (sc.MS_STRICTATIME, False), "nosymfollow": (sc.MS_NOSYMFOLLOW, True),
    "bind": (sc.MS_BIND, True), "rbind": (sc.MS_BIND | sc.MS_REC, True), "defaults": (0, True),
}  # fmt: skip
_PROPAGATION = {
    "private": sc.MS_PRIVATE, "slave": sc.MS_SLAVE, "shared": sc.MS_SHARED, "unbindable": sc.MS_UNBINDABLE,
    "rprivate": sc.MS_PRIVATE | sc.MS_REC,
    "rslave": sc.MS_SLAVE | sc.MS_REC, "rshared": sc.MS_SHARED | sc.MS_REC,
    "runbindable": sc.MS_UNBINDABLE | sc.MS_REC,
}  # fmt: skip
_ATTRIBUTES = {
    sc.MS_RDONLY: sc.MOUNT_ATTR_RDONLY,
    sc.MS_NOSUID: sc.MOUNT_ATTR_NOSUID,
    sc.MS_NODEV: sc.MOUNT_ATTR_NODEV,
    sc.MS_NOEXEC: sc.MOUNT_ATTR_NOEXEC,
    sc.MS_NODIRATIME: sc.MOUNT_ATTR_NODIRATIME,
    sc.MS_NOSYMFOLLOW: sc.MOUNT_ATTR_NOSYMFOLLOW,
}


@dataclass(frozen=True)
class Options:
    """The words of one mount: flags of mount(2) to set and to clear, a propagation, the rest for the file system."""

    flags: int = 0
    cleared: int = 0
    propagation: int = 0
    data: list[str] = field(default_factory=list)

    @property
    def attr_set(self) -> int:
        """The flags as mount_setattr(2) has them."""
        attributes = sum(attribute for flag, attribute in _ATTRIBUTES.items() if self.flags & flag)
        if self.flags & sc.MS_NOATIME:
            attributes |= sc.MOUNT_ATTR_NOATIME
        elif self.flags & sc.MS_STRICTATIME:
            attributes |= sc.MOUNT_ATTR_STRICTATIME
        return attributes

    @property
    def attr_clr(self) -> int:
        """What mount_setattr(2) has to clear: flags taken back, and the access time mode as a whole when one is set."""
        attributes = sum(attribute for flag, attribute in _ATTRIBUTES.items() if self.cleared & flag)
        if (self.flags | self.cleared) & (sc.MS_NOATIME | sc.MS_RELATIME | sc.MS_STRICTATIME):
            attributes |= sc.MOUNT_ATTR__ATIME
        return attributes


def parse_options(words: Iterable[str]) -> Options:
    """mount(8) words as data; the last of contradicting ones counts. Unknown words are for the file system."""
    flags = cleared = propagation = 0
    data = []
    for word in words:
        if word in _FLAGS:
            flag, on = _FLAGS[word]
            flags, cleared = (flags | flag, cleared & ~flag) if on else (flags & ~flag, cleared | flag)
        elif word in _PROPAGATION:
            propagation = _PROPAGATION[word]
        elif word:
            data.append(word)
    return Options(flags, cleared, propagation, data)


def open_in_root(root: int, path: str, flags: int = os.O_PATH) -> int:
    """A descriptor of what `path` is inside the root folder `root`. OSError as open(2)."""
    return sc.openat2(root, path or "/", flags, _IN_ROOT)


def open_beneath(root: int, path: str, flags: int = os.O_PATH) -> int:
    """A descriptor of what the relative `path` is below the folder `root`; links that lead out of it are refused (EXDEV)."""
    return sc.openat2(root, path or ".", flags, sc.RESOLVE_BENEATH | sc.RESOLVE_NO_MAGICLINKS)


def make_folder(root: int, path: str, mode: int = 0o755) -> int:
    """An O_PATH descriptor of the folder `path` inside `root`, made with its parents where it is missing.

    Links on the way are followed inside the root; a dangling one has its target made. NotADirectoryError if something else is
    there.
    """
    try:
        return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        pass
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    here, links = "/", 0
    current = open_in_root(root, "/", os.O_PATH | os.O_DIRECTORY)
    try:
        while todo:
            part = todo.pop()
            following = os.path.join(here, part)
            try:
                found = open_in_root(root, following, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                try:
                    os.mkdir(part, mode, dir_fd=current)
                except FileExistsError:  # a link to what is not there: go where it points
                    links += 1
                    if links > _MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                    target = os.readlink(part, dir_fd=current)
                    todo += [p for p in reversed(target.split("/")) if p not in ("", ".")]
                    following = "/" if target.startswith("/") else here
                found = open_in_root(root, following, os.O_PATH | os.O_DIRECTORY)
            os.close(current)
            current, here = found, following
        current, result = -1, current
        return result
    finally:
        if current >= 0:
            os.close(current)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH descriptor of what `path` is inside `root`; an empty file, with the folders above it, where nothing is there."""
    try:
        return open_in_root(root, path)
    except FileNotFoundError:
        pass
    os.close(make_folder(root, os.path.dirname(path)))
    os.close(sc.openat2(root, path, os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY, _IN_ROOT, mode))
    return open_in_root(root, path)


def is_folder(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def clone_tree(dirfd: int, path: str = "", *, recursive: bool = False, nofollow: bool = False) -> int:
    """A detached copy of the mount that holds `path` (of `dirfd` itself, if empty), with that as its root; of mounts below too."""
    flags = sc.OPEN_TREE_CLONE | (sc.AT_RECURSIVE if recursive else 0) | (sc.AT_SYMLINK_NOFOLLOW if nofollow else 0)
    return sc.open_tree(dirfd, path, flags | (0 if path else sc.AT_EMPTY_PATH))


def clone_part(path: str, subpath: str = "", *, recursive: bool = False) -> int:
    """A detached copy of what is mounted at `path`, or of `subpath` in it.

    The subpath is opened once, never leads out (OSError EXDEV), and what was opened is copied: whoever changes names meanwhile
    changes nothing.
    """
    if not subpath:
        return clone_tree(sc.AT_FDCWD, path, recursive=recursive)
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        part = open_beneath(folder, subpath)
    finally:
        os.close(folder)
    try:
        return clone_tree(part, recursive=recursive)
    finally:
        os.close(part)


def set_attributes(tree: int, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """mount_setattr(2) of a mount by descriptor."""
    sc.mount_setattr(tree, sc.AT_RECURSIVE if recursive else 0, attr_set=attr_set, attr_clr=attr_clr, propagation=propagation)


def set_idmap(tree: int, userns: int, *, recursive: bool = False) -> None:
    """Show the ids of a detached mount as the user namespace maps them. OSError(EINVAL) where the file system has no idmaps."""
    sc.mount_setattr(tree, sc.AT_RECURSIVE if recursive else 0, attr_set=sc.MOUNT_ATTR_IDMAP, userns_fd=userns)


def mount_at(target: int, fstype: str, source: str, flags: int = 0, data: str = "") -> None:
    """mount(2) of a new file system onto the file or folder that `target` is (an O_PATH descriptor; /proc must be mounted)."""
    sc.mount(source, f"/proc/self/fd/{target}", fstype, flags, data or None)


def make_private() -> None:
    """Cut the propagation of every mount of this mount namespace, both ways."""
    sc.mount(None, "/", None, sc.MS_REC | sc.MS_PRIVATE)


def enter_root(root: int) -> None:
    """Make the mount that `root` is the root of this mount namespace and let go of the old one; the working folder is `/`."""
    os.fchdir(root)
    sc.pivot_root(".", ".")
    sc.umount2(".", sc.MNT_DETACH)
    os.chdir("/")


def clone_layers(lowers: list[str], subpath: str = "") -> int:
    """A detached, read-only mount of an image, the folders `lowers` (topmost first) over each other; or of `subpath` in it.

    For a mount namespace of one's own, whose mounts are private: for a moment the image is mounted over the folder that its topmost
    layer is in. Raises OSError; then nothing is mounted.
    """
    if len(lowers) == 1:
        whole = os.open(lowers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        tree = _clone_inside(whole, subpath)
        set_attributes(tree, attr_set=sc.MOUNT_ATTR_RDONLY)
        return tree
    place = os.path.dirname(lowers[0])
    fds = [os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for lower in lowers]
    try:  # mount(2) takes a page of options: names of layers as short as can be
        sc.mount("overlay", place, "overlay", sc.MS_RDONLY, overlay_data([f"/proc/self/fd/{fd}" for fd in fds], "", ""))
    finally:
        for fd in fds:
            os.close(fd)
    try:
        return _clone_inside(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), subpath)
    finally:
        sc.umount2(place, sc.MNT_DETACH)


def _clone_inside(whole: int, subpath: str) -> int:
    """A detached copy of what is at a path inside the open root folder `whole`, which is closed."""
    try:
        part = open_in_root(whole, subpath)
    finally:
        os.close(whole)
    try:
        return clone_tree(part)
    finally:
        os.close(part)


def overlay_data(lowers: list[str], upper: str, work: str, extra: Iterable[str] = ()) -> str:
    """The options of an overlay. `\\`, `:` and `,` in paths are escaped as the kernel wants them."""

    def escaped(path: str, characters: str) -> str:
        return "".join("\\" + c if c in characters else c for c in path)

    layers = ":".join(escaped(path, "\\:,") for path in lowers)
    words = [f"lowerdir={layers}"]
    if upper:
        words += [f"upperdir={escaped(upper, chr(92) + ',')}", f"workdir={escaped(work, chr(92) + ',')}"]
    return ",".join([*words, *extra])
