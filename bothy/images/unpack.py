"""Applies a layer's tar to a folder that is the process's whole world.

What is in a layer was written by a stranger. So the process that unpacks it has first made the folder its root in a mount
namespace of its own and let go of everything else (`enclose`): there is no host to climb out to, devices can not be opened
(nodev), and whatever links in the archive say, they say it inside. On top of that names that climb (`../x`) are refused,
existing files are never opened or followed (O_EXCL, link without following), and metadata that overlayfs would obey
(trusted.overlay.*) is not taken from archives.

Whiteouts (image-spec layer.md) become overlayfs's: `.wh.name` a character device 0:0, `.wh..wh..opq` the xattr
trusted.overlay.opaque. They speak of lower layers only: they never remove what the same layer brings.
"""

from __future__ import annotations

import errno
import os
import stat

from bothy.images import recipe as recipes
from bothy.images.streams import Stream
from bothy.linux import syscalls
from bothy.tar import headers, reader
from bothy.tar.headers import Damaged
from bothy.tar.unpack import clean

WHITEOUT, OPAQUE_MARK, AUFS_META = b".wh.", b".wh..wh..opq", b".wh..wh."
OPAQUE = "trusted.overlay.opaque"
MAX_ID = (1 << 32) - 2
ALLOWED_XATTRS = (b"user.", b"security.capability", b"system.posix_acl_")
DENIED_XATTRS = (b"user.overlay.",)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def enclose(folder: str) -> None:
    """Make `folder` the root of this process, in a mount namespace in which there is nothing else.

    Needs a process without threads and with CAP_SYS_ADMIN. Raises OSError; the process is then only good for ending.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(folder, folder, None, syscalls.MS_BIND)
    flags = syscalls.MS_NODEV | syscalls.MS_NOSUID | syscalls.MS_NOEXEC
    syscalls.mount(None, folder, None, syscalls.MS_BIND | syscalls.MS_REMOUNT | flags)
    os.chdir(folder)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")
    os.umask(0)


class Unpacker:
    """Applies entries below the current root. `size` is the sum of the files' sizes, in bytes.

    `spoiled`: an entry replaced the content of an earlier one, so that the recipe does not give the tar back.
    With `inline` the recipe has all contents in it and can not be spoiled.
    """

    def __init__(self, stream: Stream, recipe: recipes.Writer, *, inline: bool = False) -> None:
        self._reader = reader.Reader(stream, recipe)
        self._inline = inline
        self._folders: set[bytes] = {b""}
        self._metadata: dict[bytes, headers.Entry] = {}
        self._recorded: set[bytes] = set()
        self._whiteouts: set[bytes] = set()
        self.current = b""
        self.size = 0
        self.entries = 0
        self.spoiled = False
        self.opaque_root = False

    def run(self) -> None:
        """Apply everything. Raises Damaged or OSError (`current` is the entry's name); what is there by then stays."""
        os.chmod("/", 0o755)
        for entry in self._reader:
            self.current = entry.name
            self.entries += 1
            self._apply(entry)
        for path, entry in self._metadata.items():
            self.current = entry.name
            self._settle(path or b".", entry)

    def _apply(self, entry: headers.Entry) -> None:
        parent, base = self._place(entry.name)
        if not base:
            if entry.type == headers.DIRECTORY:
                self._metadata[b""] = entry
            return
        path = parent + b"/" + base if parent else base
        if base.startswith(WHITEOUT):
            self._whiteout(parent, base)
        elif entry.type == headers.REGULAR:
            self._file(path, entry)
        elif entry.type == headers.DIRECTORY:
            self._folder(path, entry)
        elif entry.type == headers.HARDLINK:
            self._hardlink(path, entry)
        else:
            self._special(path, entry)

    # Names

    def _place(self, name: bytes) -> tuple[bytes, bytes]:
        """The real folder (no symlink in it) that an entry goes to, made if missing, and its last component; both empty for
        the root. Raises Damaged."""
        if name.startswith(b"./"):
            name = name[2:]
        parent, _, base = name.rstrip(b"/").rpartition(b"/")
        if parent not in self._folders or base in (b"", b".", b".."):
            parent, _, base = clean(name).rpartition(b"/")
            if parent not in self._folders:
                parent = self._walk(parent)
        return parent, base

    def _walk(self, path: bytes) -> bytes:
        """The real name of a folder, following symlinks inside the root; missing folders are made (root's, 0755)."""
        real = b""
        for part in path.split(b"/"):
            step = real + b"/" + part if real else part
            if step not in self._folders:
                step = self._step(step)
            real = step
        return real

    def _step(self, path: bytes) -> bytes:
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            os.mkdir(path, 0o755)
            self._folders.add(path)
            return path
        if stat.S_ISLNK(mode):
            path = os.path.realpath(b"/" + path)[1:]
            mode = os.lstat(path or b".").st_mode if os.path.lexists(path or b".") else 0
        if path in self._whiteouts:
            self._make_folder(path)
            return path
        if not stat.S_ISDIR(mode):
            raise Damaged(f"{headers.show(path)} is not a folder, and is used as one")
        self._folders.add(path)
        return path

    # Kinds of entries

    def _whiteout(self, parent: bytes, base: bytes) -> None:
        if base == OPAQUE_MARK:
            self._set_opaque(parent)
            return
        if base.startswith(AUFS_META):
            return
        name = base[len(WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise Damaged(f"whiteout {headers.show(base)} names no file")
        path = parent + b"/" + name if parent else name
        try:
            os.mknod(path, stat.S_IFCHR, 0)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                self._set_opaque(path)
            return
        self._whiteouts.add(path)

    def _set_opaque(self, path: bytes) -> None:
        self.opaque_root = self.opaque_root or not path
        os.setxattr(path or b".", OPAQUE, b"y")

    def _file(self, path: bytes, entry: headers.Entry) -> None:
        fd = self._open_new(path, entry.mode)
        try:
            recorded = None if self._inline or entry.sparse is not None else path
            if recorded is not None and entry.size:
                self._recorded.add(path)
            if entry.size:
                for offset, piece in self._reader.content(entry, recorded_as=recorded):
                    _write_all(fd, piece, offset)
            if entry.sparse is not None:
                os.ftruncate(fd, entry.real_size)
            if entry.uid or entry.gid:
                os.fchown(fd, _checked_id(entry.uid), _checked_id(entry.gid))
            if entry.mode & 0o7000:
                os.fchmod(fd, entry.mode)
            if entry.xattrs:
                _set_xattrs(fd, entry.xattrs)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)
        self.size += entry.real_size

    def _open_new(self, path: bytes, mode: int) -> int:
        try:
            return os.open(path, _NEW_FILE, mode & 0o777)
        except FileExistsError:
            self._clear(path)
            return os.open(path, _NEW_FILE, mode & 0o777)

    def _folder(self, path: bytes, entry: headers.Entry) -> None:
        if path not in self._folders:
            self._make_folder(path)
        self._metadata[path] = entry

    def _make_folder(self, path: bytes) -> None:
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                hides = path in self._whiteouts
                self._clear(path)
                os.mkdir(path, 0o755)
                if hides:
                    self._set_opaque(path)
        self._folders.add(path)

    def _hardlink(self, path: bytes, entry: headers.Entry) -> None:
        parent, base = self._place(entry.link)
        target = parent + b"/" + base if parent else base
        if not base or target in self._whiteouts or target in self._folders:
            raise _dangling(entry)
        if target == path:
            return
        try:
            os.link(target, path, follow_symlinks=False)
        except FileExistsError:
            self._clear(path)
            os.link(target, path, follow_symlinks=False)
        except FileNotFoundError:
            raise Damaged(
                f"hard link {headers.show(entry.name)} to {headers.show(entry.link)}, which is no file of the layer"
            ) from None

    def _special(self, path: bytes, entry: headers.Entry) -> None:
        """Symlinks, devices and fifos."""
        try:
            _make_special(path, entry)
        except FileExistsError:
            self._clear(path)
            _make_special(path, entry)
        self._settle(path, entry)

    # Replacing and settling

    def _clear(self, path: bytes) -> None:
        """Remove what an earlier entry put here, with all that is below it (without recursion: depth is the stranger's choice)."""
        stack = [path]
        while stack:
            last = stack[-1]
            if not stat.S_ISDIR(os.lstat(last).st_mode):
                self.spoiled = self.spoiled or last in self._recorded
                self._whiteouts.discard(last)
                os.unlink(last)
            elif names := os.listdir(last):
                stack += [last + b"/" + name for name in names]
                continue
            else:
                self._folders.discard(last)
                self._metadata.pop(last, None)
                os.rmdir(last)
            stack.pop()

    def _settle(self, path: bytes, entry: headers.Entry) -> None:
        """Owner, mode, attributes and time of what is not a regular file. Changing the owner clears setuid: mode comes after."""
        os.lchown(path, _checked_id(entry.uid), _checked_id(entry.gid))
        if entry.type != headers.SYMLINK:
            os.chmod(path, entry.mode)
        if entry.xattrs:
            _set_xattrs(path, entry.xattrs)
        os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)


def _dangling(entry: headers.Entry) -> Damaged:
    return Damaged(f"hard link {headers.show(entry.name)} to {headers.show(entry.link)}, which is no file of the layer")


def _make_special(path: bytes, entry: headers.Entry) -> None:
    if entry.type == headers.SYMLINK:
        os.symlink(entry.link, path)
    elif entry.type == headers.FIFO:
        os.mkfifo(path, 0o600)
    else:
        kind = stat.S_IFCHR if entry.type == headers.CHARACTER else stat.S_IFBLK
        os.mknod(path, kind | 0o600, os.makedev(entry.major & 0xFFFFF, entry.minor & 0xFFFFFFFF))


def _write_all(fd: int, piece: memoryview, offset: int) -> None:
    while piece:
        done = os.pwrite(fd, piece, offset)
        if done == len(piece):
            return
        piece = piece[done:]
        offset += done


def _checked_id(number: int) -> int:
    if not 0 <= number <= MAX_ID:
        raise Damaged(f"owner {number} is out of range")
    return number


def _set_xattrs(target: bytes | int, xattrs: dict[bytes, bytes]) -> None:
    """Set those attributes that an archive may bring; a file system or a kind of file that has none is no failure, as in Docker."""
    for name, value in xattrs.items():
        if not name.startswith(ALLOWED_XATTRS) or name.startswith(DENIED_XATTRS) or b"\0" in name:
            continue
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as exc:
            if exc.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
