"""Containers and machines in the Docker Engine API's shapes, of the engine's records. Pure functions.

Source: moby api/swagger.yaml, `ContainerSummary` and `ContainerInspectResponse` (v1.47).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bothy.api.server.schema import values
from bothy.containers.defaults import MASKED_PATHS, READONLY_PATHS
from bothy.engine.model import Config, ExecSession, MountRecord, Status, Wall, Workload
from bothy.jsonable import API

RUNTIMES = {Wall.CONTAINER: "bothy", Wall.VM: "vm"}
DEFAULT_SHM = 64 * 1024 * 1024

# Fields of HostConfig that clients look for and that are not among the engine's.
_HOST_CONFIG: dict[str, Any] = {
    "ConsoleSize": [0, 0],
    "Cgroup": "",
    "MemorySwappiness": None,
    "OomKillDisable": None,
    "PidsLimit": None,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
    "Init": None,
    "MaskedPaths": None,
    "ReadonlyPaths": None,
}
_NULL_WHEN_EMPTY = (
    "Binds",
    "Links",
    "VolumesFrom",
    "CapAdd",
    "CapDrop",
    "ExtraHosts",
    "GroupAdd",
    "SecurityOpt",
    "Ulimits",
    "DeviceCgroupRules",
    "DeviceRequests",
)
_ABSENT_WHEN_EMPTY = ("Mounts", "StorageOpt", "Tmpfs", "Sysctls", "Annotations", "KernelMemory", "Secrets")


def state_word(workload: Workload) -> str:
    """The state in Docker's words, which has none for a start in progress."""
    return str(Status.CREATED if workload.status is Status.STARTING else workload.status)


def status_text(workload: Workload, now: float) -> str:
    """`Up 2 minutes`, `Exited (0) 3 hours ago`: the STATUS column. `now` in seconds since the epoch."""
    up = values.duration(max(0.0, now - values.unix(workload.started)))
    ago = values.duration(max(0.0, now - values.unix(workload.finished)))
    match workload.status:
        case Status.RUNNING if workload.health:
            starting = workload.health.status == "starting"
            return f"Up {up} ({'health: starting' if starting else workload.health.status})"
        case Status.RUNNING:
            return f"Up {up}"
        case Status.PAUSED:
            return f"Up {up} (Paused)"
        case Status.RESTARTING:
            return f"Restarting ({workload.exit_code}) {ago} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case Status.EXITED if workload.finished:
            return f"Exited ({workload.exit_code}) {ago} ago"
        case Status.EXITED:
            return f"Exited ({workload.exit_code})"
        case _:
            return "Created"


def command_text(workload: Workload) -> str:
    """The command as one line, words with spaces quoted."""
    words = [workload.path, *workload.args]
    return " ".join(f"'{word}'" if any(c.isspace() for c in word) else word for word in words if word)


def summary(workload: Workload, now: float, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """An entry of `GET /containers/json`. `size` is (written layer, all)."""
    entry: dict[str, Any] = {
        "Id": workload.id,
        "Names": [f"/{workload.name}"],
        "Image": workload.image_name or workload.image,
        "ImageID": workload.image,
        "Command": command_text(workload),
        "Created": values.unix(workload.created),
        "Ports": list(port_list(workload)),
        "Labels": workload.config.labels,
        "State": state_word(workload),
        "Status": status_text(workload, now),
        "HostConfig": {
            "NetworkMode": values.network_mode(workload),
            "Runtime": workload.host_config.runtime or RUNTIMES[workload.wall],
        },
        "NetworkSettings": {"Networks": values.networks(workload)},
        "Mounts": [mount(m) for m in workload.mounts if m.listed],
    }
    if size is not None:
        entry["SizeRw"], entry["SizeRootFs"] = size
    return entry


def port_list(workload: Workload) -> Iterable[dict[str, Any]]:
    """The ports of a running workload: published ones, then those that are only exposed."""
    if not workload.status.is_up:
        return
    for port in workload.ports:
        yield {
            "IP": port.host_ip or "0.0.0.0",
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port,
            "Type": port.protocol,
        }
    published = {f"{p.container_port}/{p.protocol}" for p in workload.ports}
    for exposed in exposed_ports(workload):
        number, _, protocol = exposed.partition("/")
        if exposed not in published and number.isdecimal():
            yield {"PrivatePort": int(number), "Type": protocol}


def exposed_ports(workload: Workload) -> list[str]:
    """Config.ExposedPorts as `80/tcp`; Docker takes a port without a protocol for one of TCP."""
    return [port if "/" in port else f"{port}/tcp" for port in workload.config.exposed_ports]


def port_map(workload: Workload) -> dict[str, Any]:
    """NetworkSettings.Ports: null for a port that is exposed and not published."""
    ports: dict[str, Any] = {}
    if workload.status.is_up:
        ports = dict.fromkeys(exposed_ports(workload))
        for port in workload.ports:
            key = f"{port.container_port}/{port.protocol}"
            bound = {"HostIp": port.host_ip or "0.0.0.0", "HostPort": str(port.host_port)}
            ports[key] = [*(ports.get(key) or []), bound]
    return ports


def mount(record: MountRecord) -> dict[str, Any]:
    """An entry of Mounts."""
    entry: dict[str, Any] = {"Type": record.type}
    if record.name:
        entry["Name"] = record.name
    entry["Source"] = record.source
    entry["Destination"] = record.destination
    if record.type == "volume":
        entry["Driver"] = record.driver or "local"
    return {**entry, "Mode": record.mode, "RW": record.read_write, "Propagation": record.propagation}


def state(workload: Workload) -> dict[str, Any]:
    """State: the word, and the booleans that say the same; Health only where there is a check."""
    status = workload.status
    up = status in (Status.RUNNING, Status.PAUSED, Status.RESTARTING)
    health = {"Health": API.to_data(workload.health)} if workload.health else {}
    return {
        "Status": state_word(workload),
        "Running": up,
        "Paused": status is Status.PAUSED,
        "Restarting": status is Status.RESTARTING,
        "OOMKilled": workload.oom_killed,
        "Dead": status is Status.DEAD,
        "Pid": workload.pid if status in (Status.RUNNING, Status.PAUSED) else 0,
        "ExitCode": workload.exit_code,
        "Error": workload.error,
        "StartedAt": values.moment(workload.started),
        "FinishedAt": values.moment(workload.finished),
        **health,
    }


def config(asked: Config) -> dict[str, Any]:
    """Config, with null for what was not given."""
    data: dict[str, Any] = {"Cmd": None, "Entrypoint": None, "OnBuild": None, **API.to_data(asked)}
    data["Volumes"] = data["Volumes"] or None
    for key in ("ExposedPorts", "NetworkDisabled", "MacAddress", "StopSignal"):
        if not data[key]:
            del data[key]
    return data


def host_config(workload: Workload) -> dict[str, Any]:
    """HostConfig as it was asked for, with the defaults that came to be."""
    asked = workload.host_config
    data: dict[str, Any] = {**_HOST_CONFIG, **API.to_data(asked)}
    data["Links"] = [_shown_link(workload, text) for text in asked.links]
    for key in _NULL_WHEN_EMPTY:
        data[key] = data[key] or None
    data["Mounts"] = [{key: value for key, value in entry.items() if value} for entry in data["Mounts"]]
    for key in _ABSENT_WHEN_EMPTY:
        if not data[key]:
            del data[key]
    data["PidMode"], data["UTSMode"] = (word if word != "private" else "" for word in (asked.pid_mode, asked.uts_mode))
    data["NetworkMode"] = values.network_mode(workload)
    data["Runtime"] = asked.runtime or RUNTIMES[workload.wall]
    data["ShmSize"] = asked.shm_size or DEFAULT_SHM
    data["IpcMode"] = asked.ipc_mode or "private"
    data["CgroupnsMode"] = asked.cgroupns_mode or "private"
    if asked.masked_paths is None and asked.readonly_paths is None and not asked.privileged and workload.wall is Wall.CONTAINER:
        data["MaskedPaths"], data["ReadonlyPaths"] = [*MASKED_PATHS], [*READONLY_PATHS]
    data["RestartPolicy"]["Name"] = asked.restart_policy.name or "no"
    data["LogConfig"]["Type"] = asked.log_config.type or "json-file"
    return data


def _shown_link(workload: Workload, text: str) -> str:
    """`db:alias` as `/db:/web/alias`."""
    name, _, alias = text.partition(":")
    return text if text.startswith("/") else f"/{name}:/{workload.name}/{alias or name}"


def network_settings(workload: Workload) -> dict[str, Any]:
    """NetworkSettings, with the fields of the first endpoint that old clients read (up to API 1.51)."""
    attached = values.networks(workload)
    first = next((attached[e.network_name] for e in workload.endpoints), values.asked_endpoint(None))
    legacy = (
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    )
    return {
        "Bridge": "",
        "SandboxID": values.endpoint_id(workload.id, "sandbox") if workload.status.is_up else "",
        "SandboxKey": f"/proc/{workload.pid}/ns/net" if workload.pid and workload.status.is_up else "",
        "Ports": port_map(workload),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{key: first[key] for key in legacy},
        "Networks": attached,
    }


def inspect(workload: Workload, folder: Path, execs: list[str], size: tuple[int, int] | None = None) -> dict[str, Any]:
    """`GET /containers/{id}/json`. `folder` is the workload's, `execs` the ids of its running execs. `Warnings` are bothy's own:
    those of create, and those that only the start could know."""
    data: dict[str, Any] = {
        "Id": workload.id,
        "Created": workload.created,
        "Path": workload.path,
        "Args": workload.args,
        "State": state(workload),
        "Image": workload.image,
        "ResolvConfPath": str(folder / "resolv.conf"),
        "HostnamePath": str(folder / "hostname"),
        "HostsPath": str(folder / "hosts"),
        "LogPath": workload.log_path,
        "Name": f"/{workload.name}",
        "RestartCount": workload.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": execs or None,
        "HostConfig": host_config(workload),
        "GraphDriver": graph_driver(workload, folder),
        "Mounts": [mount(m) for m in workload.mounts if m.listed],
        "Config": config(workload.config),
        "NetworkSettings": network_settings(workload),
        "Warnings": workload.warnings,
    }
    if size is not None:
        data["SizeRw"], data["SizeRootFs"] = size
    return data


def graph_driver(workload: Workload, folder: Path) -> dict[str, Any]:
    """Where what the workload wrote is: the overlay's upper folder, or the machine's disk."""
    if workload.wall is Wall.VM:
        return {"Name": "erofs", "Data": {"Disk": str(folder / "disk.raw")}}
    return {"Name": "overlay2", "Data": {"UpperDir": str(folder / "upper"), "WorkDir": str(folder / "work")}}


def exec_inspect(session: ExecSession) -> dict[str, Any]:
    """`GET /exec/{id}/json`."""
    request = session.request
    entrypoint, *arguments = request.cmd or [""]
    return {
        "ID": session.id,
        "Running": session.running,
        "ExitCode": session.exit_code,
        "ProcessConfig": {
            "tty": request.tty,
            "entrypoint": entrypoint,
            "arguments": arguments,
            "privileged": request.privileged,
            "user": request.user,
        },
        "OpenStdin": request.attach_stdin,
        "OpenStderr": request.attach_stderr,
        "OpenStdout": request.attach_stdout,
        "CanRemove": session.exit_code is not None and not session.running,
        "ContainerID": session.workload,
        "DetachKeys": request.detach_keys,
        "Pid": session.pid,
    }
