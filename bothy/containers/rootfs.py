"""From a container's plan to the list of operations that make its root file system. Pure: nothing here touches the kernel."""

from __future__ import annotations

from bothy.containers.model import ContainerPlan
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
from bothy.linux import mounts, syscalls, sysctl
from bothy.oci.runtime import Mount

_DEV_LINKS = (
    ("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0"), ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"), ("/dev/core", "/proc/kcore"), ("/dev/ptmx", "pts/ptmx"),
)  # fmt: skip
_DATA_LESS = ("proc", "sysfs", "mqueue")  # file systems that take no words
_IGNORED = ("tmpcopyup", "notmpcopyup", "copy", "nocopy", "z", "Z", "consistent", "cached", "delegated", "rro")
_SUBDIR, _LAYER = "X-mount.subdir=", "lowerdir+="
IPC_SYSCTLS = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    "kernel.shm_rmid_forced",
)  # fmt: skip


def plan(container: ContainerPlan) -> list[Operation]:
    """Every step, in order. Raises StageError (stage `plan`) for what can not be done."""
    spec, linux = container.spec, container.spec.linux
    rootfs = container.rootfs
    operations: list[Operation] = [
        Overlay(rootfs.store, rootfs.lowers, rootfs.upper, rootfs.work, bool(container.id_base), rootfs.volatile)
    ]
    operations += [
        SharedMemory(container.shm) if container.shm and mount.destination == "/dev/shm" else _mount(mount, container)
        for mount in spec.mounts
    ]
    if container.secrets:
        operations.append(Secrets(container.secrets, container.id_base))
    operations += [Node(d.path, d.type, d.major, d.minor, d.file_mode, d.uid, d.gid) for d in linux.devices]
    if any(mount.destination == "/dev" and mount.type == "tmpfs" for mount in spec.mounts):
        operations += [Link(path, target) for path, target in _DEV_LINKS]
    if spec.process.terminal:
        operations.append(Console())
    operations += [_sysctl(name, value, container) for name, value in linux.sysctl.items()]
    operations += [Readonly(path) for path in linux.readonly_paths]
    operations += [Mask(path) for path in linux.masked_paths]
    if spec.root.readonly:
        operations.append(ReadonlyRoot())
    return operations


def _mount(mount: Mount, container: ContainerPlan) -> Operation:
    """One mount of the spec."""
    if not mount.destination.startswith("/"):
        raise StageError("plan", "the destination of a mount must be absolute", errno=22, path=mount.destination)
    options = mounts.parse_options(mount.options)
    if mount.type == "cgroup" or mount.type == "cgroup2":
        return CgroupView(mount.destination, options.attr_set)
    subpath = next((word.removeprefix(_SUBDIR) for word in options.data if word.startswith(_SUBDIR)), "")
    if mount.type == "bind" or options.flags & syscalls.MS_BIND:
        deep = "rro" in mount.options
        return Bind(
            source=mount.source,
            destination=mount.destination,
            recursive="bind" not in mount.options,
            attr_set=options.attr_set | (syscalls.MOUNT_ATTR_RDONLY if deep else 0),
            attr_clr=options.attr_clr,
            propagation=options.propagation & ~syscalls.MS_REC,
            idmap=bool(container.id_base) and container.idmapped_binds,
            subpath=subpath,
            deep=deep,
        )
    if mount.type == "overlay":
        lowers = [word.removeprefix(_LAYER) for word in options.data if word.startswith(_LAYER)]
        return Layers(lowers, mount.destination, subpath)
    data = [] if mount.type in _DATA_LESS else [_shifted(word, container.id_base) for word in options.data if word not in _IGNORED]
    if mount.type == "tmpfs" and container.id_base:
        data = [f"{key}={container.id_base}" for key in ("uid", "gid") if not _has(data, key)] + data
    return Filesystem(mount.type, mount.source or mount.type, mount.destination, options.flags, data)


def _has(data: list[str], key: str) -> bool:
    return any(word.startswith(key + "=") for word in data)


def _shifted(word: str, base: int) -> str:
    """`uid=` and `gid=` are the container's, the kernel is told the host's."""
    key, _, value = word.partition("=")
    return f"{key}={int(value) + base}" if key in ("uid", "gid") and value.isdecimal() else word


def _sysctl(name: str, value: str, container: ContainerPlan) -> Sysctl:
    """Only what belongs to the container's own namespaces may be set: else it would be the host's."""
    private = {namespace.type for namespace in container.spec.linux.namespaces}
    try:
        path = sysctl.path(name)
    except ValueError:
        path = ""
    own = (
        (path.startswith("net/") and "network" in private)
        or ((path.replace("/", ".") in IPC_SYSCTLS or path.startswith("fs/mqueue/")) and "ipc" in private)
        or (path == "kernel/domainname" and "uts" in private)
    )
    if not own:
        raise StageError("plan", f"sysctl {name} is not one of the container's own", errno=1, path=name)
    return Sysctl(name, value)
