"""The nouns that the engine works with and that the API's routes see.

`Config`, `HostConfig` and `NetworkingConfig` have the fields of the Docker Engine API, so that a record can be shown as it
was asked for; `bothy.jsonable.API` reads and writes them in the API's names. Everything else about a workload is in `Workload`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


def api(name: str, default: Any) -> Any:
    """A field whose name in the API is not the PascalCase of its own."""
    return field(default=default, metadata={"api": name})


class Wall(enum.StrEnum):
    CONTAINER = "container"
    VM = "vm"


class Status(enum.StrEnum):
    """The states of a workload; their values are Docker's words."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"

    @property
    def is_up(self) -> bool:
        return self in (Status.RUNNING, Status.PAUSED, Status.RESTARTING, Status.STARTING)

    @property
    def can_signal(self) -> bool:
        return self in (Status.RUNNING, Status.PAUSED)


@dataclass(frozen=True)
class Healthcheck:
    """Durations in nanoseconds, as in the API."""

    test: list[str] = field(default_factory=list)
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


@dataclass(frozen=True)
class HealthCheckResult:
    """One probe of a health check: `exit_code` is -1 where it took too long or could not be run; `output` its beginning."""

    start: str = ""
    end: str = ""
    exit_code: int = 0
    output: str = ""


@dataclass(frozen=True)
class Health:
    """`status` is starting, healthy or unhealthy; `log` has the last five probes."""

    status: str = ""
    failing_streak: int = 0
    log: list[HealthCheckResult] = field(default_factory=list)


@dataclass(frozen=True)
class Config:
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] = field(default_factory=dict)
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] = field(default_factory=list)
    cmd: list[str] | None = None
    healthcheck: Healthcheck | None = None
    image: str = ""
    volumes: dict[str, Any] = field(default_factory=dict)
    working_dir: str = ""
    entrypoint: list[str] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


@dataclass(frozen=True)
class PortBinding:
    host_ip: str = api("HostIp", "")
    host_port: str = ""


@dataclass(frozen=True)
class RestartPolicy:
    name: str = ""
    maximum_retry_count: int = 0


@dataclass(frozen=True)
class LogConfig:
    type: str = ""
    config: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ulimit:
    name: str = ""
    soft: int = 0
    hard: int = 0


@dataclass(frozen=True)
class DeviceMapping:
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


@dataclass(frozen=True)
class ThrottleDevice:
    """A bound for one block device of the host: bytes or operations a second."""

    path: str = ""
    rate: int = 0


@dataclass(frozen=True)
class SecretMount:
    """A secret as a file (bothy's own): `target` is a path, or a name below /run/secrets (empty: the secret's own name)."""

    source: str = ""
    target: str = ""
    uid: int = api("UID", 0)
    gid: int = api("GID", 0)
    mode: int = 0o444


@dataclass(frozen=True)
class MountPoint:
    """An entry of HostConfig.Mounts."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: dict[str, Any] = field(default_factory=dict)
    volume_options: dict[str, Any] = field(default_factory=dict)
    tmpfs_options: dict[str, Any] = field(default_factory=dict)
    image_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HostConfig:
    """Sizes in bytes; `nano_cpus` in billionths of a processor; `console_size` is height, width.

    `runtime` is empty for a container, `vm` for a machine. `health_on_failure` (bothy's own): none, kill, restart or stop.
    """

    binds: list[str] = field(default_factory=list)
    container_id_file: str = api("ContainerIDFile", "")
    log_config: LogConfig = field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] = field(default_factory=dict)
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volumes_from: list[str] = field(default_factory=list)
    mounts: list[MountPoint] = field(default_factory=list)
    cap_add: list[str] = field(default_factory=list)
    cap_drop: list[str] = field(default_factory=list)
    cgroupns_mode: str = ""
    links: list[str] = field(default_factory=list)
    dns: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    extra_hosts: list[str] = field(default_factory=list)
    group_add: list[str] = field(default_factory=list)
    ipc_mode: str = ""
    pid_mode: str = ""
    uts_mode: str = api("UTSMode", "")
    userns_mode: str = ""
    oom_score_adj: int = 0
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] = field(default_factory=list)
    storage_opt: dict[str, str] = field(default_factory=dict)
    tmpfs: dict[str, str] = field(default_factory=dict)
    shm_size: int = 0
    sysctls: dict[str, str] = field(default_factory=dict)
    runtime: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] = field(default_factory=list)
    device_cgroup_rules: list[str] = field(default_factory=list)
    device_requests: list[Any] = field(default_factory=list)
    blkio_weight: int = 0
    blkio_weight_device: list[Any] = field(default_factory=list)
    blkio_device_read_bps: list[ThrottleDevice] = field(default_factory=list)
    blkio_device_write_bps: list[ThrottleDevice] = field(default_factory=list)
    blkio_device_read_iops: list[ThrottleDevice] = field(default_factory=list, metadata={"api": "BlkioDeviceReadIOps"})
    blkio_device_write_iops: list[ThrottleDevice] = field(default_factory=list, metadata={"api": "BlkioDeviceWriteIOps"})
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    kernel_memory: int = 0
    cgroup_parent: str = ""
    isolation: str = ""
    volume_driver: str = ""
    annotations: dict[str, str] = field(default_factory=dict)
    secrets: list[SecretMount] = field(default_factory=list)
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    init: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] = field(default_factory=list)
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    health_on_failure: str = ""
    console_size: list[int] | None = None


@dataclass(frozen=True)
class EndpointConfig:
    """What one network endpoint was asked to be."""

    ipam_config: dict[str, Any] = field(default_factory=dict, metadata={"api": "IPAMConfig"})
    links: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    mac_address: str = ""
    driver_opts: dict[str, str] = field(default_factory=dict)
    gw_priority: int = 0
    network_id: str = api("NetworkID", "")


@dataclass(frozen=True)
class NetworkingConfig:
    endpoints_config: dict[str, EndpointConfig | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """One network of a workload as it is: `address` in CIDR form; `link` is the host's end, `interface` its name inside."""

    network: str
    network_name: str
    address: str
    gateway: str
    mac: str
    link: str = ""
    interface: str = ""
    priority: int = 0
    address6: str = ""
    gateway6: str = ""
    mtu: int = 1500

    @property
    def addresses(self) -> list[str]:
        """Without prefix lengths; none on a network that has none."""
        return [address.partition("/")[0] for address in (self.address, self.address6) if address]


@dataclass(frozen=True)
class PublishedPort:
    """`protocol` is tcp, udp or sctp."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


@dataclass(frozen=True)
class MountRecord:
    """One mount of a workload as inspect shows it: `type` bind, volume, tmpfs or image (whose `source` is its id).

    What inspect does not show: the part of it that is mounted, the words for mount(8), whether a source that is not there is made,
    how a volume is made and whether it is filled from the image. `listed`: inspect shows it.
    """

    type: str
    source: str
    destination: str
    read_write: bool = api("RW", True)
    name: str = ""
    driver: str = ""
    mode: str = ""
    propagation: str = ""
    subpath: str = ""
    options: list[str] = field(default_factory=list)
    made: bool = False
    copy_up: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    driver_options: dict[str, str] = field(default_factory=dict)
    listed: bool = True


@dataclass(frozen=True)
class Workload:
    """The record of one container or machine. Times are RFC 3339 with nanoseconds in UTC, empty before they happened."""

    id: str
    name: str
    wall: Wall
    image: str
    image_name: str
    config: Config
    host_config: HostConfig
    networking: NetworkingConfig
    created: str
    path: str
    args: list[str]
    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started: str = ""
    finished: str = ""
    restart_count: int = 0
    id_base: int = 0
    endpoints: list[Endpoint] = field(default_factory=list)
    ports: list[PublishedPort] = field(default_factory=list)
    mounts: list[MountRecord] = field(default_factory=list)
    log_path: str = ""
    warnings: list[str] = field(default_factory=list)
    manually_stopped: bool = False
    health: Health | None = None

    def dns_names(self, network: str) -> list[str]:
        """The names by which the others on a network (by name) find it."""
        asked = self.networking.endpoints_config.get(network)
        names = [self.name, *(asked.aliases if asked else ()), self.id[:12], self.config.hostname]
        return list(dict.fromkeys(name for name in names if name))


@dataclass(frozen=True)
class ExecRequest:
    """The body of `POST /containers/{id}/exec`."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    env: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    console_size: list[int] | None = None


@dataclass(frozen=True)
class ExecSession:
    """An exec, from its creation until its workload is removed."""

    id: str
    workload: str
    request: ExecRequest
    running: bool = False
    exit_code: int | None = None
    pid: int = 0


@dataclass(frozen=True)
class Event:
    """One entry of the event stream: Docker's types and actions. `time_nano` since the epoch."""

    type: str
    action: str
    actor: str
    attributes: dict[str, str]
    time_nano: int


@dataclass(frozen=True)
class Connection:
    """A client's connection that was taken from the API server: the fd is owned by who holds this value.

    `initial` is what the client had sent after its request head.
    """

    fd: int
    initial: bytes = b""


@dataclass(frozen=True)
class LogEntry:
    """One entry of a workload's log: `stream` stdout or stderr, `time` RFC 3339, `data` with its newline, if it has one."""

    stream: str
    time: str
    data: bytes


@dataclass(frozen=True)
class FileStatus:
    """A file as Docker's clients are told of it: `mode` is Go's os.FileMode, `mtime` in nanoseconds since the epoch."""

    name: str
    size: int
    mode: int
    mtime: int
    link_target: str = ""


@dataclass(frozen=True)
class Change:
    """`kind` is Docker's number: 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int
