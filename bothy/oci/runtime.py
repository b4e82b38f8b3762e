"""The OCI runtime specification (config.json) as far as bothy uses it.

Source: opencontainers/runtime-spec v1.1, config.md and config-linux.md. Read and written by `bothy.jsonable`; names are the
spec's, in snake_case. `process.user.username` carries Docker's `--user` text (`name`, `uid`, `name:group`, `uid:gid`) where it
has to be looked up in the image's own /etc/passwd and /etc/group; the process stage resolves it inside the root.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class User:
    """`username` and `additional_groups` are words for the root's own files; the latter are not in the specification."""

    uid: int = 0
    gid: int = 0
    additional_gids: list[int] = field(default_factory=list)
    username: str = ""
    additional_groups: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Capabilities:
    """Sets of names with the CAP_ prefix."""

    bounding: list[str] = field(default_factory=list)
    effective: list[str] = field(default_factory=list)
    permitted: list[str] = field(default_factory=list)
    inheritable: list[str] = field(default_factory=list)
    ambient: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rlimit:
    """`type` is RLIMIT_NOFILE and the like. Limits above what the host allows are clamped by the process stage."""

    type: str
    soft: int
    hard: int


@dataclass(frozen=True)
class Box:
    """A terminal's size in characters."""

    height: int
    width: int


@dataclass(frozen=True)
class Process:
    args: list[str]
    cwd: str = "/"
    env: list[str] = field(default_factory=list)
    terminal: bool = False
    console_size: Box | None = None
    user: User = field(default_factory=User)
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] = field(default_factory=list)
    no_new_privileges: bool = False
    oom_score_adj: int | None = None


@dataclass(frozen=True)
class Root:
    path: str
    readonly: bool = False


@dataclass(frozen=True)
class Mount:
    """One mount inside the root, in order. `options` are mount(8) words: ro, rbind, nosuid, size=64m, …"""

    destination: str
    type: str = "bind"
    source: str = ""
    options: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Device:
    path: str
    type: str
    major: int
    minor: int
    file_mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class DeviceRule:
    """A rule of the device cgroup: `type` a, b or c; `access` of r, w, m; None is every number."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


@dataclass(frozen=True)
class Memory:
    """Bytes; -1 is unlimited. `swap` is memory plus swap, as in the spec and in Docker."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    disable_oom_killer: bool = field(default=False, metadata={"json": "disableOOMKiller"})
    swappiness: int | None = None


@dataclass(frozen=True)
class Cpu:
    """`quota` and `period` in microseconds; `cpus` and `mems` in list format (`0-2,7`)."""

    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    cpus: str = ""
    mems: str = ""


@dataclass(frozen=True)
class Pids:
    limit: int


@dataclass(frozen=True)
class Throttle:
    """Bytes or operations a second of one block device."""

    major: int
    minor: int
    rate: int


@dataclass(frozen=True)
class BlockIO:
    throttle_read_bps_device: list[Throttle] = field(default_factory=list)
    throttle_write_bps_device: list[Throttle] = field(default_factory=list)
    throttle_read_iops_device: list[Throttle] = field(default_factory=list, metadata={"json": "throttleReadIOPSDevice"})
    throttle_write_iops_device: list[Throttle] = field(default_factory=list, metadata={"json": "throttleWriteIOPSDevice"})


@dataclass(frozen=True)
class Resources:
    devices: list[DeviceRule] = field(default_factory=list)
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = field(default=None, metadata={"json": "blockIO"})


@dataclass(frozen=True)
class IdMapping:
    container_id: int = field(metadata={"json": "containerID"})
    host_id: int = field(metadata={"json": "hostID"})
    size: int = 65536


@dataclass(frozen=True)
class Namespace:
    """`type` is pid, network, mount, ipc, uts, user, cgroup or time. With a path it is joined, without one it is made.

    A namespace that is not listed is shared with the host.
    """

    type: str
    path: str = ""


@dataclass(frozen=True)
class Linux:
    namespaces: list[Namespace] = field(default_factory=list)
    uid_mappings: list[IdMapping] = field(default_factory=list)
    gid_mappings: list[IdMapping] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    cgroups_path: str = ""
    resources: Resources = field(default_factory=Resources)
    rootfs_propagation: str = ""
    masked_paths: list[str] = field(default_factory=list)
    readonly_paths: list[str] = field(default_factory=list)
    sysctl: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    process: Process
    root: Root
    hostname: str = ""
    mounts: list[Mount] = field(default_factory=list)
    linux: Linux = field(default_factory=Linux)
    annotations: dict[str, str] = field(default_factory=dict)
    oci_version: str = "1.1.0"
    domainname: str = ""
