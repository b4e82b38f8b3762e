"""Carry out a container's operations: the one loop that mounts.

    sources()   in the host's mount namespace: a detached, idmapped copy of every bind's source; a missing one fails here, before
                anything was made
    run()       in a mount namespace of its own, with the host's root and its capabilities, but with the container's ids on what
                is made (setfsuid): overlay, mounts, nodes, links, masks
    enter()     pivot_root; the host's tree is gone

Every place inside the root is found by `mounts.open_in_root`, so what an image put there can not lead out of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

from bothy.containers.operations import (
    Bind,
    CgroupView,
    Console,
    Filesystem,
    Layers,
    Link,
    Mask,
    Node,
    Operation,
    Overlay,
    Readonly,
    ReadonlyRoot,
    Secrets,
    SharedMemory,
    Sysctl,
)
from bothy.errors import StageError
from bothy.linux import mounts, namespaces, secretfiles, syscalls, terminal
from bothy.linux.mounts import make_file, make_folder, open_in_root
from bothy.linux.secretfiles import SecretFile
from bothy.linux.sysctl import path as sysctl_path

_KINDS = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}
_PAGE = 4096
_SAFE = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC


class Builder:
    """The state between operations: descriptors that the next ones need. For a process that will exec or end soon: it closes
    nothing that exec closes.

    `cgroup_folders` are (name, host path) pairs of the container's cgroups; of a v2 hierarchy one pair with an empty name.
    """

    def __init__(self, operations: list[Operation], *, userns: int, id_base: int, cgroup_folders: list[tuple[str, str]]) -> None:
        self._operations = operations
        self._userns = userns
        self._id_base = id_base
        self._cgroups = cgroup_folders
        self._sources: dict[int, int] = {}
        self._cgroup_sources: list[tuple[str, int]] = []
        self._contents: list[tuple[SecretFile, bytes]] = []
        self._null = -1
        self._empty = -1
        self.root = -1
        self.master = -1
        self.slave = -1
        self.warnings: list[str] = []
        self._doers: dict[type, Callable[[Any], None]] = {
            Overlay: self._overlay,
            Filesystem: self._filesystem,
            Layers: self._layers,
            CgroupView: self._cgroup_view,
            Node: self._node,
            Link: self._link,
            Console: self._console,
            Mask: self._mask,
            Readonly: self._readonly,
            ReadonlyRoot: self._readonly_root,
            Sysctl: self._sysctl,
            Secrets: self._secrets,
        }

    def sources(self) -> None:
        """Open what the host gives. Raises StageError naming the source."""
        for number, operation in enumerate(self._operations):
            if isinstance(operation, Bind):
                try:
                    self._sources[number] = self._bind_source(operation)
                except OSError as exc:
                    raise _no_source(operation, exc) from exc
            elif isinstance(operation, SharedMemory):
                try:
                    self._sources[number] = _shared_memory(operation)
                except OSError as exc:
                    raise StageError("mount", f"{operation.describe()}: {exc.strerror}", errno=exc.errno or 0) from exc
            elif isinstance(operation, Secrets):
                self._contents = [(file, _secret(file)) for file in operation.files]
            elif isinstance(operation, CgroupView):
                for name, folder in self._cgroups:
                    tree = mounts.clone_tree(syscalls.AT_FDCWD, folder)
                    mounts.set_attributes(tree, attr_set=operation.attr_set | _SAFE, propagation=syscalls.MS_PRIVATE)
                    self._cgroup_sources.append((name, tree))

    def run(self) -> None:
        """Make the root and everything in it. Raises StageError naming the operation."""
        mounts.make_private()
        self._null = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
        for number, operation in enumerate(self._operations):
            try:
                if isinstance(operation, (Bind, SharedMemory)):
                    self._attach(self._sources[number], operation.destination)
                else:
                    self._doers[type(operation)](operation)
            except OSError as exc:
                stage = "sysctl" if isinstance(operation, Sysctl) else "mount"
                message = f"{operation.describe()}: {exc.strerror or exc}"
                raise StageError(stage, message, errno=exc.errno or 0, path=getattr(operation, "destination", "")) from exc

    def enter(self) -> None:
        """Leave the host's tree for the new root."""
        mounts.enter_root(self.root)

    # Operations

    def _bind_source(self, bind: Bind) -> int:
        tree = mounts.clone_part(bind.source, bind.subpath, recursive=bind.recursive)
        if bind.idmap:
            self._idmap(tree, bind)
        propagation = bind.propagation or syscalls.MS_PRIVATE
        mounts.set_attributes(tree, propagation=propagation, recursive=bind.recursive)
        if bind.attr_set or bind.attr_clr:
            mounts.set_attributes(tree, attr_set=bind.attr_set, attr_clr=bind.attr_clr, recursive=bind.deep and bind.recursive)
        return tree

    def _idmap(self, tree: int, bind: Bind) -> None:
        """With the container's ids as far as the file systems below allow it: what does not stays as it is, owned by nobody."""
        try:
            mounts.set_idmap(tree, self._userns, recursive=bind.recursive)
        except OSError:
            try:
                mounts.set_idmap(tree, self._userns)
                self.warnings.append(f"some file systems below {bind.source} have no id mapping, they belong to nobody inside")
            except OSError:
                self.warnings.append(f"the file system of {bind.source} has no id mapping, it belongs to nobody inside")

    def _overlay(self, overlay: Overlay) -> None:
        if overlay.idmap:
            show_idmapped(overlay.store, self._userns)
        self.root = mount_overlay(overlay)

    def _filesystem(self, operation: Filesystem) -> None:
        try:
            target, is_new = open_in_root(self.root, operation.destination, os.O_PATH | os.O_DIRECTORY), False
        except FileNotFoundError:
            target, is_new = make_folder(self.root, operation.destination), True
        data = list(operation.data)
        if operation.fstype == "tmpfs" and not is_new and not any(word.startswith("mode=") for word in data):
            # It looks like what it covers; where nothing was, it is everybody's, as in Docker.
            data.append(f"mode={os.fstat(target).st_mode & 0o7777:o}")
        mounts.mount_at(target, operation.fstype, operation.source, operation.flags, ",".join(data))
        os.close(target)

    def _layers(self, layers: Layers) -> None:
        """The layers are found by their paths, where the idmapped store is by now."""
        self._attach(mounts.clone_layers(layers.lowers, layers.subpath), layers.destination)

    def _attach(self, tree: int, destination: str) -> None:
        make = make_folder if mounts.is_folder(tree) else make_file
        target = make(self.root, destination)
        syscalls.move_mount(tree, target)
        os.close(target)
        os.close(tree)

    def _cgroup_view(self, view: CgroupView) -> None:
        target = make_folder(self.root, view.destination)
        if len(self._cgroup_sources) == 1 and not self._cgroup_sources[0][0]:
            syscalls.move_mount(self._cgroup_sources[0][1], target)
            os.close(target)
            return
        mounts.mount_at(target, "tmpfs", "cgroup", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC, "mode=755,size=64k")
        os.close(target)
        folder = open_in_root(self.root, view.destination, os.O_PATH | os.O_DIRECTORY)
        for name, tree in self._cgroup_sources:
            os.mkdir(name, 0o755, dir_fd=folder)
            place = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=folder)
            syscalls.move_mount(tree, place)
            os.close(place)
            os.close(tree)
            for part in name.split(",") if "," in name else ():
                os.symlink(name, part, dir_fd=folder)
        if view.attr_set & syscalls.MOUNT_ATTR_RDONLY:
            mounts.set_attributes(folder, attr_set=syscalls.MOUNT_ATTR_RDONLY)
        os.close(folder)

    def _secrets(self, secrets: Secrets) -> None:
        secretfiles.place(self.root, self._contents, secrets.id_base)
        self._contents.clear()

    def _node(self, node: Node) -> None:
        folder, name = self._parent(node.path)
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        os.mknod(name, _KINDS[node.type] | node.mode, os.makedev(node.major, node.minor), dir_fd=folder)
        if node.uid or node.gid:
            os.chown(name, self._id_base + node.uid, self._id_base + node.gid, dir_fd=folder, follow_symlinks=False)
        os.close(folder)

    def _link(self, link: Link) -> None:
        folder, name = self._parent(link.path)
        try:
            os.symlink(link.target, name, dir_fd=folder)
        except FileExistsError:
            pass
        os.close(folder)

    def _console(self, _: Console) -> None:
        self.master, self.slave = terminal.open_pty(self.root)
        pts = open_in_root(self.root, f"/dev/pts/{terminal.number(self.master)}")
        tree = mounts.clone_tree(pts)
        target = make_file(self.root, "/dev/console", 0o600)
        syscalls.move_mount(tree, target)
        for fd in (pts, tree, target):
            os.close(fd)

    def _mask(self, mask: Mask) -> None:
        target = self._existing(mask.path)
        if target < 0:
            return
        if not mounts.is_folder(target):
            tree = mounts.clone_tree(self._null)
            syscalls.move_mount(tree, target)
            os.close(tree)
        elif self._empty < 0:
            mounts.mount_at(target, "tmpfs", "tmpfs", syscalls.MS_RDONLY, "size=0,nr_inodes=2,mode=755")
            self._empty = open_in_root(self.root, mask.path)
        else:
            tree = mounts.clone_tree(self._empty)
            syscalls.move_mount(tree, target)
            os.close(tree)
        os.close(target)

    def _readonly(self, operation: Readonly) -> None:
        target = self._existing(operation.path)
        if target < 0:
            return
        tree = mounts.clone_tree(target, recursive=True)
        mounts.set_attributes(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY, recursive=True)
        syscalls.move_mount(tree, target)
        os.close(tree)
        os.close(target)

    def _readonly_root(self, _: ReadonlyRoot) -> None:
        mounts.set_attributes(self.root, attr_set=syscalls.MOUNT_ATTR_RDONLY)

    def _sysctl(self, sysctl: Sysctl) -> None:
        """By the host's /proc/sys, which shows the namespaces of who looks. Those of ipc belong to the container's root, and no
        capability opens them: be that for a moment."""
        path = sysctl_path(sysctl.name)
        os.seteuid(0 if path == "kernel/domainname" else self._id_base)  # which belongs to the host's root wherever it is
        try:
            fd = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, sysctl.value.encode())
            finally:
                os.close(fd)
        finally:
            os.seteuid(0)
            syscalls.setfsids(self._id_base, self._id_base)

    # Places

    def _parent(self, path: str) -> tuple[int, str]:
        """The folder that `path` is in, made if missing, and the last part of the name."""
        folder, name = os.path.split(path.rstrip("/"))
        if not name or name in (".", ".."):
            raise OSError(errno.EINVAL, "not the name of a file", path)
        return make_folder(self.root, folder), name

    def _existing(self, path: str) -> int:
        """A descriptor of what is at `path`, -1 if nothing is. A symbolic link there is not followed, and ELOOP."""
        try:
            fd = open_in_root(self.root, path, os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.ELOOP, "a symbolic link is in the place", path)
        return fd


def _secret(file: SecretFile) -> bytes:
    """What it says. Raises StageError."""
    try:
        return secretfiles.read(file.source)
    except OSError as exc:
        name = file.target.rpartition("/")[2]
        raise StageError("secret", f"{name} can not be read: {exc.strerror}", errno=exc.errno or 0) from exc


def _shared_memory(operation: SharedMemory) -> int:
    """A detached copy of what is mounted there. What is there is whatever the other container has made of it: nothing of it is
    looked at, and no name leads out of its root."""
    here = namespaces.open_namespace("mount")
    there = os.open(operation.namespace, os.O_RDONLY | os.O_CLOEXEC)
    namespaces.join(there, "mount")
    try:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        place = open_in_root(root, operation.destination, os.O_PATH | os.O_DIRECTORY)
        tree = mounts.clone_tree(place)
        os.close(place)
        os.close(root)
    finally:
        namespaces.join(here, "mount")
        os.close(there)
        os.close(here)
    mounts.set_attributes(tree, propagation=syscalls.MS_PRIVATE)
    return tree


def show_idmapped(store: str, userns: int) -> None:
    """Have the folder `store` seen with the ids of a user namespace, in this mount namespace. Raises OSError."""
    tree = mounts.clone_tree(syscalls.AT_FDCWD, store, recursive=True)
    try:
        mounts.set_idmap(tree, userns, recursive=True)
    except OSError as exc:
        raise OSError(exc.errno, f"the file system of {store} has no id mapping ({exc.strerror})") from exc
    place = os.open(store, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.move_mount(tree, place)
    os.close(place)
    os.close(tree)


def mount_overlay(overlay: Overlay, place: str = "") -> int:
    """Mount it at `place` (if empty: over its own upper folder); an O_PATH descriptor of its root. Without an upper folder it is
    read-only. Raises OSError."""
    extra = ["index=off", "redirect_dir=off", "metacopy=off"]
    if overlay.volatile:
        extra.append("volatile")
    if overlay.upper:
        _forget_volatile(overlay.work)
    target = place or overlay.upper
    where, lowers, upper, work = _short(overlay)
    os.chdir(where)
    syscalls.mount("overlay", target, "overlay", 0, mounts.overlay_data(lowers, upper, work, extra))
    os.chdir("/")
    return os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _no_source(bind: Bind, exc: OSError) -> StageError:
    """What is said of a source that can not be had."""
    words = {errno.ENOENT: "bind source path does not exist"}
    if bind.subpath:
        words = {errno.ENOENT: "cannot access path: no such file or directory", errno.EXDEV: "path escapes from the volume"}
    path = "/".join(part for part in (bind.source, bind.subpath) if part)
    return StageError("mount", words.get(exc.errno or 0, exc.strerror or str(exc)), errno=exc.errno or 0, path=path)


def _forget_volatile(work: str) -> None:
    """The kernel refuses an overlay that was volatile before until its mark is gone; the caller said that nothing need survive."""
    mark = f"{work}/work/incompat/volatile"
    try:
        os.unlink(f"{mark}/dirty")
        os.rmdir(mark)
    except FileNotFoundError:
        pass


def _short(overlay: Overlay) -> tuple[str, list[str], str, str]:
    """The folder to mount from, and the paths as seen from there: relative ones where the whole would not fit into a page."""
    data = mounts.overlay_data(overlay.lowers, overlay.upper, overlay.work)
    if len(os.fsencode(data)) < _PAGE - 128:
        return "/", overlay.lowers, overlay.upper, overlay.work
    where = os.path.commonpath(overlay.lowers)
    if where in overlay.lowers:
        where = os.path.dirname(where)
    lowers = [os.path.relpath(lower, where) for lower in overlay.lowers]
    upper, work = (os.path.relpath(path, where) if path else "" for path in (overlay.upper, overlay.work))
    if len(os.fsencode(mounts.overlay_data(lowers, upper, work))) >= _PAGE - 128:
        raise OSError(errno.E2BIG, f"{len(overlay.lowers)} layers are more than one mount can name")
    return where, lowers, upper, work
