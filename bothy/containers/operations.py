"""The steps by which a container's root file system is made, as data: one value a step, each can say what it will do.

Built by `rootfs.plan`, carried out in order by `build.Builder`. Paths are inside the container unless said otherwise; ids are the
container's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bothy.linux.secretfiles import SecretFile


@dataclass(frozen=True)
class Overlay:
    """The root itself. Host paths; with `idmap`, `store` is seen with the container's ids while the layers are looked up."""

    store: str
    lowers: list[str]
    upper: str
    work: str
    idmap: bool
    volatile: bool = False

    def describe(self) -> str:
        return f"overlay of {len(self.lowers)} layers, upper {self.upper}" + (", idmapped" if self.idmap else "")


@dataclass(frozen=True)
class Filesystem:
    """A new file system. `flags` as mount(2) has them, `data` the file system's own words."""

    fstype: str
    source: str
    destination: str
    flags: int = 0
    data: list[str] = field(default_factory=list)

    def describe(self) -> str:
        return f"mount -t {self.fstype} -o flags={self.flags:#x},{','.join(self.data)} {self.source} {self.destination}"


@dataclass(frozen=True)
class Bind:
    """A piece of the host's tree. `source` is a host path, `subpath` what is meant below it and never outside of it; `attr_set`,
    `attr_clr` as mount_setattr(2) has them, `deep`: for mounts below it too.
    """

    source: str
    destination: str
    recursive: bool = True
    attr_set: int = 0
    attr_clr: int = 0
    propagation: int = 0
    idmap: bool = False
    subpath: str = ""
    deep: bool = False

    def describe(self) -> str:
        return f"mount --{'rbind' if self.recursive else 'bind'} {self.source} {self.destination} (set {self.attr_set:#x})"


@dataclass(frozen=True)
class SharedMemory:
    """The /dev/shm of the mount namespace at the path `namespace`."""

    namespace: str
    destination: str = "/dev/shm"

    def describe(self) -> str:
        return f"another container's {self.destination}"


@dataclass(frozen=True)
class Layers:
    """An image, read-only: layer folders (host paths below the overlay's store, topmost first), or what is at `subpath` in it."""

    lowers: list[str]
    destination: str
    subpath: str = ""

    def describe(self) -> str:
        return f"image of {len(self.lowers)} layers at {self.destination}"


@dataclass(frozen=True)
class CgroupView:
    """The container's own cgroup folders, on every hierarchy that the host has, below `destination`."""

    destination: str
    attr_set: int = 0

    def describe(self) -> str:
        return f"own cgroups at {self.destination}"


@dataclass(frozen=True)
class Node:
    """A device node (`type` c, b or p). One that is there already is replaced."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        return f"mknod -m {self.mode:o} {self.path} {self.type} {self.major} {self.minor}"


@dataclass(frozen=True)
class Link:
    """A symbolic link; what is there already stays."""

    path: str
    target: str

    def describe(self) -> str:
        return f"ln -s {self.target} {self.path}"


@dataclass(frozen=True)
class Console:
    """The container's terminal, made from its devpts, at /dev/console too."""

    def describe(self) -> str:
        return "pty at /dev/console"


@dataclass(frozen=True)
class Mask:
    """Hide a file or folder that is there."""

    path: str

    def describe(self) -> str:
        return f"mask {self.path}"


@dataclass(frozen=True)
class Readonly:
    """Make a file or folder that is there read-only, with all that is mounted below it."""

    path: str

    def describe(self) -> str:
        return f"remount {self.path} ro"


@dataclass(frozen=True)
class ReadonlyRoot:
    def describe(self) -> str:
        return "remount / ro"


@dataclass(frozen=True)
class Sysctl:
    name: str
    value: str

    def describe(self) -> str:
        return f"sysctl -w {self.name}={self.value}"


@dataclass(frozen=True)
class Secrets:
    """Files in memory; `files` say where their contents are on the host."""

    files: list[SecretFile]
    id_base: int

    def describe(self) -> str:
        return f"{len(self.files)} secrets"


_Mounted = Overlay | Filesystem | Bind | SharedMemory | Layers | CgroupView | Secrets
Operation = _Mounted | Node | Link | Console | Mask | Readonly | ReadonlyRoot | Sysctl
