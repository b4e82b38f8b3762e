"""The plan of one container, as data: everything the stages behind the fork wall need, made by the engine, JSON on disk.

`spec` is an OCI runtime spec and says what it says there. What the spec has no words for stands beside it: where the layers
are, which id range the container has, and which seccomp program (already compiled) it gets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bothy.linux.links import Attachment
from bothy.linux.secretfiles import SecretFile
from bothy.oci.runtime import Spec


@dataclass(frozen=True)
class Rootfs:
    """An overlay. `store` is the folder that all of `lowers`, `upper` and `work` lie below: one idmapped clone of it
    serves them all. `lowers` are the image's layer folders, topmost first; all paths absolute. `volatile`: nothing in `upper` need
    survive a crash of the host (containers that are removed at exit), so that fsync and unmounting do not wait for the disk."""

    store: str
    lowers: list[str]
    upper: str
    work: str
    volatile: bool = False


@dataclass(frozen=True)
class ContainerPlan:
    """`id_base` is the host id of the container's id 0 (0: `--userns host`, no user namespace); its range is 65536 ids.

    `attachments` are its interfaces, in their order (none with the modes `none` and `host`).
    `cgroup` is the path below each cgroup root (`/bothy/<id>`). `seccomp` is the path of a compiled BPF program, or empty.
    `shm`: the path of a mount namespace whose /dev/shm is this container's too.
    `idmapped_binds`: bind mounts get the container's id range too (host uid 0 shows as container uid 0).
    """

    id: str
    spec: Spec
    rootfs: Rootfs
    id_base: int = 0
    attachments: list[Attachment] = field(default_factory=list)
    cgroup: str = ""
    seccomp: str = ""
    init: bool = False
    idmapped_binds: bool = True
    shm: str = ""
    secrets: list[SecretFile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
