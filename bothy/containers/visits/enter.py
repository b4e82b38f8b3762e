"""How a visit of a container gets into it: our own code, with the ids of the container's root, and no rights on the host.

    spawner ── fork ──▶ visit: reads where to go, from the engine's line
                          │ live: joins the user and mount namespaces of its init, and copies the mounts
                          │ else: mounts the root as a start does, but for nobody else to see, and pivots
                          │ becomes root in the container's user namespace, with the rights to handle files and no others
                          ▼ serve.py

It is in no control group of the container's, so a paused one may be visited, and in no pid namespace, so nothing inside sees it.
What it mounts is in a mount namespace of its own, which goes with the process, however that ends. Devices can not be opened:
everything is nodev there.
"""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import replace
from typing import NoReturn

from bothy.containers import process, rootfs
from bothy.containers import sandbox as sandboxes
from bothy.containers.build import Builder, mount_overlay, show_idmapped
from bothy.containers.model import ContainerPlan, Rootfs
from bothy.containers.operations import Bind, Layers, Operation, Overlay, ReadonlyRoot
from bothy.containers.sandbox import Sandbox
from bothy.containers.visits import model, serve
from bothy.containers.visits.changes import Trees
from bothy.containers.visits.model import Place
from bothy.containers.visits.serve import View
from bothy.containers.visits.wire import BrokenOff, Line
from bothy.errors import StageError
from bothy.jsonable import PLAIN
from bothy.linux import capabilities, mounts, namespaces, syscalls
from bothy.tar.pack import FOLDER

TITLE = "bothy-visit"
_RIGHTS = capabilities.mask(("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP"))
_TREES = ("upper", "lower", "merged")  # in the order of `Trees`
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def attend(line_fd: int, sandbox: Sandbox | None, parent: int) -> NoReturn:
    """Be a visit, in a process forked from the spawner (`parent`) with no other descriptors; never returns.

    `line_fd` is the engine's socket. `sandbox`: namespaces that were made ahead, to have no rights in.
    """
    try:
        _die_with(parent)
        os.setsid()
        syscalls.set_name(TITLE)
        process.reset_signals()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.umask(0)
        os.dup2(line_fd, 0)
        os.dup2(line_fd, 1)
        line = Line(0, 1)
        try:
            place = PLAIN.from_data(Place, line.message())
            view = _enter(place, sandbox)
            _die_with(parent)
        except BrokenOff:
            os._exit(0)
        except Exception as exc:
            line.say(error=serve.failure(exc))
            os._exit(0)
        serve.serve(line, view)
    finally:
        os._exit(0)


def _die_with(parent: int) -> None:
    """End with the spawner. To be said again after ids have changed, which undoes it."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _enter(place: Place, sandbox: Sandbox | None) -> View:
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if place.view == model.LIVE:
        _join(place)
    elif place.view == model.FOLDER:
        _alone(place.plan.rootfs.upper)
    else:
        _mount(place, sandbox or sandboxes.make(place.id_base))
    syscalls.close_range(2)
    _drop_rights()
    return View(
        os.open("/", _FOLDER),
        bare=lambda: os.open("/", FOLDER),
        trees=lambda: Trees(*(os.open(f"/{name}", FOLDER) for name in _TREES)),
    )


def _drop_rights() -> None:
    """From (container) root with all capabilities to one that can handle files."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    capabilities.limit_bounding(_RIGHTS)
    capabilities.clear_ambient()
    capabilities.capset(_RIGHTS, _RIGHTS, 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def _become_root() -> None:
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


# A running container


def _join(place: Place) -> None:
    """Into the mounts that the container's init sees: a copy of them, as they are now."""
    try:
        pidfd = os.pidfd_open(place.pid)
        _check_member(place.pid, place.plan.cgroup)
        syscalls.setns(pidfd, syscalls.CLONE_NEWNS | (syscalls.CLONE_NEWUSER if place.id_base else 0))
    except (ProcessLookupError, FileNotFoundError) as exc:
        raise StageError("gone", "the container does not run", errno=exc.errno or 0) from exc
    _become_root()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    root = os.open("/", _FOLDER)
    mounts.set_attributes(root, propagation=syscalls.MS_PRIVATE, recursive=True)
    mounts.set_attributes(root, attr_set=syscalls.MOUNT_ATTR_NODEV, recursive=True)
    os.close(root)


def _check_member(pid: int, cgroup: str) -> None:
    """The process is the container's; the number might be somebody else's by now. To be asked while a pidfd of it is held."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        groups = [line.rstrip("\n").split(":", 2)[2] for line in file]
    if not any(group == cgroup or group.startswith(cgroup + "/") for group in groups):
        raise ProcessLookupError(3, "no process of the container")


# A folder of the host


def _alone(folder: str) -> None:
    """Make a folder the whole world. Its ids are those on disk, as the host's root sees them."""
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
    syscalls.unshare(flags)
    mounts.make_private()
    tree = mounts.clone_tree(syscalls.AT_FDCWD, folder, recursive=True)
    unsafe = syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC
    mounts.set_attributes(tree, attr_set=unsafe, recursive=True)
    target = os.open(folder, _FOLDER)
    syscalls.move_mount(tree, target)
    os.close(target)
    mounts.enter_root(tree)


# A root of our own


def _mount(place: Place, sandbox: Sandbox) -> None:
    """Make the view in a mount namespace of our own, be there alone, and join the sandbox."""
    plan, base = replace(place.plan, id_base=place.id_base), place.id_base
    store = plan.rootfs.store
    builder = Builder(_mounted(plan, place.view), userns=sandbox.userns, id_base=base, cgroup_folders=[])
    syscalls.prctl(syscalls.PR_SET_SECUREBITS, syscalls.SECBIT_NO_SETUID_FIXUP)
    syscalls.setfsids(base, base)
    builder.sources()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    mounts.make_private()
    show_idmapped(store, sandbox.userns)
    syscalls.mount("desk", place.desk, "tmpfs", 0, f"mode=755,uid={base},gid={base},size=16m")
    if place.view == model.LAYERS:
        root = _lay_out(plan.rootfs, place.desk)
    else:
        builder.root = root = _root(plan.rootfs, place)
        builder.run()
    mounts.set_attributes(root, attr_set=syscalls.MOUNT_ATTR_NODEV, recursive=True)
    mounts.enter_root(root)
    _join_sandbox(sandbox)


def _mounted(plan: ContainerPlan, view: str) -> list[Operation]:
    """What is mounted in the root besides the root: what the user asked for, and the small files that are there since a start."""
    if view not in (model.DISK, model.COPY):
        return []
    wanted = [op for op in rootfs.plan(plan) if isinstance(op, Layers) or (isinstance(op, Bind) and os.path.lexists(op.source))]
    return [*wanted, *([ReadonlyRoot()] if plan.spec.root.readonly and view == model.DISK else [])]


def _root(tree: Rootfs, place: Place) -> int:
    """The container's root: its own layer to be written to, or another one over it, in memory."""
    if place.view == model.DISK:
        return mount_overlay(Overlay(tree.store, tree.lowers, tree.upper, tree.work, idmap=True, volatile=tree.volatile))
    upper, work = f"{place.desk}/upper", f"{place.desk}/work"
    os.mkdir(upper)
    os.mkdir(work)
    status = os.stat(tree.upper)
    os.chown(upper, status.st_uid, status.st_gid)
    os.chmod(upper, status.st_mode & 0o7777)
    return mount_overlay(Overlay(tree.store, [tree.upper, *tree.lowers], upper, work, idmap=True, volatile=True))


def _lay_out(tree: Rootfs, desk: str) -> int:
    """Three folders, `upper`, `lower` and `merged`; a descriptor of the folder that they are in."""
    for name in _TREES:
        os.mkdir(f"{desk}/{name}", 0o755)
    os.close(mount_overlay(Overlay(tree.store, [tree.upper, *tree.lowers], "", "", idmap=True), f"{desk}/merged"))
    if len(tree.lowers) > 1:
        os.close(mount_overlay(Overlay(tree.store, tree.lowers, "", "", idmap=True), f"{desk}/lower"))
    for name, folder in (("upper", tree.upper), *([("lower", tree.lowers[0])] if len(tree.lowers) == 1 else [])):
        clone = mounts.clone_tree(syscalls.AT_FDCWD, folder)
        mounts.set_attributes(clone, attr_set=syscalls.MOUNT_ATTR_RDONLY)
        target = os.open(f"{desk}/{name}", _FOLDER)
        syscalls.move_mount(clone, target)
        os.close(target)
        os.close(clone)
    return os.open(desk, _FOLDER)


def _join_sandbox(sandbox: Sandbox) -> None:
    for kind, fd in (("network", sandbox.netns), ("ipc", sandbox.ipcns), ("uts", sandbox.utsns), ("user", sandbox.userns)):
        namespaces.join(fd, kind)
    _become_root()
