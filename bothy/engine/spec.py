"""From a workload's record to the plan that its keeper gets: an OCI spec and what stands beside it. Pure, tested without root.

record (Config merged with the image's, HostConfig, mounts) ──▶ Spec ──▶ ContainerPlan │ MachinePlan ──▶ KeeperPlan
+ where the layers are, which addresses and id range it got at this start
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bothy.containers import defaults
from bothy.containers.model import ContainerPlan, Rootfs
from bothy.engine import limits, merge, security
from bothy.engine.model import ExecRequest, HostConfig, Workload
from bothy.errors import Invalid
from bothy.linux.links import Attachment
from bothy.machines.model import Disk, MachinePlan, Share
from bothy.oci.runtime import Box, IdMapping, Linux, Mount, Namespace, Process, Resources, Root, Spec, User
from bothy.paths import Paths

FILES = ("resolv.conf", "hostname", "hosts")
_SUBDIR = "X-mount.subdir="


@dataclass(frozen=True)
class Place:
    """What a start has found or been given for a workload. `peer`: the first id of who it shares a network with; -1: nobody.
    `joined`: paths of others' namespaces by their kind; of a mount namespace it gets /dev/shm."""

    lowers: Sequence[Path] = ()
    images: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    attachments: Sequence[Attachment] = ()
    seccomp: str = ""
    peer: int = -1
    joined: Mapping[str, str] = field(default_factory=dict)


def hostname(record: Workload) -> str:
    """The name that the workload has inside: its own, the beginning of its id, or the host's with the host's network."""
    if record.host_config.uts_mode == "host":
        return os.uname().nodename
    if record.config.hostname:
        return record.config.hostname
    return os.uname().nodename if record.host_config.network_mode == "host" else record.id[:12]


def has_user_namespace(host: HostConfig) -> bool:
    """Whether the container's root is not the host's: always, but for `--privileged` and `--userns host`."""
    return not (host.privileged or host.userns_mode == "host")


def process(record: Workload) -> tuple[Process, list[str]]:
    """The main program and warnings about capabilities that can not be given."""
    config, host = record.config, record.host_config
    own_user_ids = has_user_namespace(host) or record.wall == "vm"
    capabilities, warnings = defaults.capabilities(
        host.cap_add, host.cap_drop, privileged=host.privileged, bounding=security.ALL_CAPABILITIES if own_user_ids else None
    )
    return (
        Process(
            args=merge.arguments(config),
            cwd=config.working_dir or "/",
            env=merge.process_env(config, hostname(record)),
            terminal=config.tty,
            console_size=box(host.console_size),
            user=User(username=config.user, additional_groups=host.group_add),
            capabilities=capabilities,
            rlimits=limits.rlimits(host),
            no_new_privileges=security.options(host.security_opt, privileged=host.privileged).no_new_privileges,
            oom_score_adj=host.oom_score_adj or None,
        ),
        warnings,
    )


def box(size: Sequence[int] | None) -> Box | None:
    """The size of a terminal of [height, width]; None where there is none, or it is Docker's [0, 0]."""
    return Box(size[0], size[1]) if size and len(size) == 2 and all(0 < n < 65536 for n in size) else None


def exec_process(record: Workload, request: ExecRequest, console: Sequence[int] | None = None) -> Process:
    """The process of an exec: the main one's surroundings with the request's changes. Raises Invalid without a command."""
    if not request.cmd or not request.cmd[0]:
        raise Invalid("no exec command specified")
    main, _ = process(record)
    size = console or request.console_size
    capabilities = main.capabilities
    if request.privileged:
        capabilities, _ = defaults.capabilities(privileged=True, bounding=security.ALL_CAPABILITIES)
    env = merge.merged_env(main.env, request.env)
    if request.tty and not any(entry.startswith("TERM=") for entry in env):
        env.append("TERM=xterm")
    return replace(
        main,
        args=list(request.cmd),
        cwd=request.working_dir or main.cwd,
        env=env,
        terminal=request.tty,
        console_size=box(size),
        user=replace(main.user, username=request.user) if request.user else main.user,
        capabilities=capabilities,
        oom_score_adj=None,
    )


def mounts(record: Workload, folder: Path, shm_size: int) -> list[Mount]:
    """All mounts in order: the default ones, the workload's own small files, what was asked for. The same target later wins."""
    host = record.host_config
    asked = asked_mounts(record)
    targets = {mount.destination for mount in asked}
    found = [
        m for m in defaults.mounts(shm_size=host.shm_size or shm_size, privileged=host.privileged) if m.destination not in targets
    ]
    if host.ipc_mode == "none":
        found = [m for m in found if m.destination != "/dev/shm"]
    if host.ipc_mode == "host":
        found = [
            Mount("/dev/shm", "bind", "/dev/shm", ["bind", "nosuid", "nodev", "noexec"]) if m.destination == "/dev/shm" else m
            for m in found
        ]
    small = [(f"/etc/{name}", folder / name) for name in FILES]
    access = "ro" if host.readonly_rootfs else "rw"
    found += [Mount(t, "bind", str(s), ["bind", access, "rprivate"]) for t, s in small if t not in targets]
    return found + asked


def asked_mounts(record: Workload) -> list[Mount]:
    """What `-v`, `--mount`, `--tmpfs` and the image's volumes come to; an image's layers are not known here (`_with_layers`)."""
    found = []
    for mount in record.mounts:
        if mount.type == "tmpfs":
            found.append(Mount(mount.destination, "tmpfs", "tmpfs", mount.options))
        else:
            plain = ["rbind", "rw" if mount.read_write else "rro", mount.propagation or "rprivate"]
            kind = "image" if mount.type == "image" else "bind"
            found.append(Mount(mount.destination, kind, mount.source, mount.options or plain))
    return found


def _with_layers(mount: Mount, images: Mapping[str, Sequence[Path]]) -> Mount:
    """An image that is mounted, as a read-only overlay of its layers, topmost first."""
    if mount.type != "image":
        return mount
    layers = [f"lowerdir+={layer}" for layer in images.get(mount.source, ())]
    return Mount(mount.destination, "overlay", "overlay", ["ro", *(w for w in mount.options if w.startswith(_SUBDIR)), *layers])


def _share(mount: Mount, images: Mapping[str, Sequence[Path]]) -> Share:
    """What a container has mounted, as a machine has it."""
    subpath = next((word.removeprefix(_SUBDIR) for word in mount.options if word.startswith(_SUBDIR)), "")
    if mount.type == "image":
        layers = [str(layer) for layer in images[mount.source]]
        return Share("", mount.destination, readonly=True, subpath=subpath, layers=layers)
    return Share(
        mount.source, mount.destination, readonly="ro" in mount.options or "rro" in mount.options, subpath=subpath,
        recursive="bind" not in mount.options, deep="ro" not in mount.options,
        propagation=next((word for word in mount.options if word.endswith(("shared", "slave"))), ""),
    )  # fmt: skip


def resources(record: Workload) -> Resources:
    """The limits of its cgroup."""
    host = record.host_config
    rules = defaults.device_rules(privileged=host.privileged) + security.devices(host.devices)[1]
    found = limits.resources(host, rules + security.device_rules(host.device_cgroup_rules))
    return replace(found, block_io=security.throttles(host))


def _namespaces(record: Workload, joined: Mapping[str, str]) -> list[Namespace]:
    """All that are not the host's; what is joined with its path. The network's the spawner is told."""
    host = record.host_config
    modes = {
        "network": host.network_mode, "pid": host.pid_mode, "ipc": host.ipc_mode, "uts": host.uts_mode, "cgroup": host.cgroupns_mode
    }  # fmt: skip
    kinds = [kind for kind in defaults.NAMESPACES if modes.get(kind) != "host"]
    return [
        Namespace(kind, "" if kind == "mount" else joined.get(kind, "")) for kind in (*kinds, *(["user"] if record.id_base else []))
    ]


def spec(record: Workload, folder: Path, shm_size: int, place: Place = Place()) -> tuple[Spec, list[str]]:
    """The OCI spec, and warnings. `folder` holds hosts, hostname and resolv.conf; `shm_size` is the default."""
    host = record.host_config
    main, warnings = process(record)
    private = _namespaces(record, place.joined)
    ids = [IdMapping(0, record.id_base)] if record.id_base else []
    open_paths = host.privileged or security.options(host.security_opt, privileged=host.privileged).open_system_paths
    masked = host.masked_paths if host.masked_paths is not None else list(defaults.MASKED_PATHS)
    readonly = host.readonly_paths if host.readonly_paths is not None else list(defaults.READONLY_PATHS)
    nodes = defaults.host_devices() if host.privileged and record.wall == "container" else defaults.devices()
    linux = Linux(
        namespaces=private,
        uid_mappings=ids,
        gid_mappings=ids,
        devices=nodes + security.devices(host.devices)[0],
        resources=resources(record),
        masked_paths=[] if open_paths else masked,
        readonly_paths=[] if open_paths else readonly,
        sysctl={**_sysctls(record.id_base, place.peer, has_network=host.network_mode != "host"), **host.sysctls},
    )
    root = Root(str(folder), readonly=host.readonly_rootfs)
    domain = record.config.domainname if host.uts_mode != "host" else ""
    found = mounts(record, folder, shm_size)
    return Spec(main, root, hostname(record), found, linux, host.annotations, domainname=domain), warnings


def _sysctls(id_base: int, peer: int, *, has_network: bool) -> dict[str, str]:
    """The defaults of its network. In one that it shares both may ping, so the range that may is as long as it takes for both."""
    if peer < 0 or not has_network:
        return defaults.sysctls(network="private" if has_network else "host", id_base=id_base)
    if not (id_base and peer):
        return defaults.sysctls()
    return {"net.ipv4.ping_group_range": f"{min(id_base, peer)} {max(id_base, peer) + 65535}"}


def container_plan(record: Workload, paths: Paths, place: Place, shm_size: int) -> ContainerPlan:
    """The plan of a container."""
    folder = paths.container(record.id)
    document, warnings = spec(record, folder, shm_size, place)
    document = replace(document, mounts=[_with_layers(mount, place.images) for mount in document.mounts])
    cgroup = f"/{paths.scope}/{record.id}"
    rootfs = Rootfs(
        str(paths.root), [str(lower) for lower in place.lowers], str(folder / "upper"), str(folder / "work"),
        volatile=record.host_config.auto_remove,
    )  # fmt: skip
    return ContainerPlan(
        id=record.id,
        spec=replace(document, linux=replace(document.linux, cgroups_path=cgroup)),
        rootfs=rootfs,
        id_base=record.id_base,
        attachments=list(place.attachments),
        cgroup=cgroup,
        seccomp=place.seccomp,
        init=bool(record.host_config.init) and record.host_config.pid_mode in ("", "private"),
        shm=place.joined.get("mount", ""),
        warnings=warnings,
    )


def vcpus(host: HostConfig, default: int) -> int:
    """How many virtual processors a machine gets: as many as it takes for `--cpus`."""
    return -(-host.nano_cpus // 10**9) if host.nano_cpus else default or limits.Host.here().cpus


def machine_memory(host: HostConfig, default: int) -> int:
    """Bytes of memory of a machine, in whole MiB (templates are kept by size)."""
    mib = 1024 * 1024
    return -(-(host.memory or default) // mib) * mib


def machine_plan(
    record: Workload,
    paths: Paths,
    place: Place,
    shm_size: int,
    files: dict[str, str],
    *,
    template: Path,
    disk: Path,
    cpus: int,
    memory: int,
) -> MachinePlan:
    """The plan of a machine: binds and volumes are shares, the small `files` (by name) are sent along."""
    folder = paths.container(record.id)
    document, warnings = spec(record, folder, shm_size)
    shared = ("bind", "image")
    binds_ = [m for m in document.mounts if m.type in shared and m.source != str(folder / Path(m.destination).name)]
    rest = [m for m in document.mounts if m.type not in shared]
    taken = {m.destination for m in binds_}
    return MachinePlan(
        id=record.id,
        spec=replace(document, mounts=rest),
        template=str(template),
        vcpus=cpus,
        memory=memory,
        root=Disk(str(disk), readonly=True),
        scratch=Disk(str(folder / "disk.raw")),
        attachments=list(place.attachments),
        shares=[_share(m, place.images) for m in binds_],
        files={f"/etc/{name}": text for name, text in files.items() if f"/etc/{name}" not in taken},
        cgroup=f"/{paths.scope}/{record.id}",
        init=bool(record.host_config.init),
        ephemeral=record.host_config.auto_remove,
        warnings=warnings,
    )
