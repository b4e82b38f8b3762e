"""The engine as a whole, in the shapes of Docker's /info, /version and /system/df, with what is our own beside it."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import platform
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import bothy
from bothy.containers.cgroups import hierarchies as cgroups
from bothy.engine import times
from bothy.engine.containers import listing
from bothy.engine.containers.remove import users_of
from bothy.engine.hall import Hall
from bothy.engine.model import Status, Wall, Workload
from bothy.errors import NotFound
from bothy.images.model import Image
from bothy.machines import accelerator
from bothy.networks import nftables

API_VERSION, MIN_API_VERSION = "1.51", "1.24"
_FORWARDING = "/proc/sys/net/ipv4/ip_forward"
_BRIDGED = "/proc/sys/net/bridge/bridge-nf-call"


class System:
    def __init__(self, hall: Hall, identity: str) -> None:
        self._hall = hall
        self._identity = identity
        self._probing: asyncio.Task[accelerator.Accelerator] | None = None

    async def version(self) -> dict[str, Any]:
        system = os.uname()
        details = {
            "ApiVersion": API_VERSION, "Arch": _architecture(), "GitCommit": "", "GoVersion": "", "KernelVersion": system.release,
            "MinAPIVersion": MIN_API_VERSION, "Os": "linux", "PythonVersion": platform.python_version(), "BuildTime": "",
        }  # fmt: skip
        return {
            "Platform": {"Name": "bothy"},
            "Version": bothy.__version__,
            "Components": [{"Name": "Engine", "Version": bothy.__version__, "Details": {**details, "Experimental": "false"}}],
            **details,
        }

    async def info(self) -> dict[str, Any]:
        """Docker's /info. The first time it finds out which accelerator machines get, which may take a few seconds."""
        found = await self._accelerator()
        return {
            "ID": self._identity,
            **self._counts(),
            **self._limits(),
            **self._host(),
            **self._constants(),
            "MachineSpares": self._hall.spares.ready,
            "Accelerator": {"Name": found.name, "Reason": found.reason},
            "RunDir": str(self._hall.paths.run),
            "Warnings": self._warnings(),
        }

    def _counts(self) -> dict[str, Any]:
        hall = self._hall
        running = hall.workloads.with_status(Status.RUNNING, Status.RESTARTING, Status.STARTING)
        paused = hall.workloads.with_status(Status.PAUSED)
        return {
            "Containers": len(hall.workloads),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(hall.workloads) - running - paused,
            "Images": len(hall.images.list()),
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": len(asyncio.all_tasks()),
            "NEventsListener": hall.events.listening,
        }

    def _limits(self) -> dict[str, Any]:
        """Which limits can be set here."""
        groups = cgroups.of_this_host()
        there = groups.controllers()
        has = {name: name in there for name in ("memory", "cpu", "cpuset", "pids")}
        return {
            "MemoryLimit": has["memory"],
            "SwapLimit": has["memory"],
            "CpuCfsPeriod": has["cpu"],
            "CpuCfsQuota": has["cpu"],
            "CPUShares": has["cpu"],
            "CPUSet": has["cpuset"],
            "PidsLimit": has["pids"],
            "OomKillDisable": has["memory"] and groups.version == 1,
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": str(groups.version or 1),
        }

    def _host(self) -> dict[str, Any]:
        hall, system = self._hall, os.uname()
        return {
            "DriverStatus": [["Backing Filesystem", _file_system(hall.paths.root)], ["ID mapped mounts", "true"]],
            "DockerRootDir": str(hall.paths.root),
            "BridgeNfIptables": _reads(f"{_BRIDGED}-iptables", "1"),
            "BridgeNfIp6tables": _reads(f"{_BRIDGED}-ip6tables", "1"),
            "IPv4Forwarding": _reads(_FORWARDING, "1"),
            "SystemTime": times.now(),
            "KernelVersion": system.release,
            "OperatingSystem": _os_release().get("PRETTY_NAME", "Linux"),
            "OSVersion": _os_release().get("VERSION_ID", ""),
            "OSType": "linux",
            "Architecture": system.machine,
            "NCPU": hall.host.cpus,
            "MemTotal": hall.host.memory,
            "Name": socket.gethostname(),
            "Runtimes": {"bothy": {"path": sys.executable}, "vm": {"path": shutil.which("qemu-system-x86_64") or ""}},
            "SecurityOptions": [*(["name=seccomp,profile=builtin"] if _has_seccomp() else []), "name=userns"],
        }

    def _constants(self) -> dict[str, Any]:
        """What is so in every bothy, in the words that clients look for."""
        return {
            "Driver": "overlay2",
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": ["json-file", "none"],
            },
            "Debug": self._hall.settings.debug,
            "LoggingDriver": "json-file",
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {
                "AllowNondistributableArtifactsCIDRs": [],
                "AllowNondistributableArtifactsHostnames": [],
                "InsecureRegistryCIDRs": ["127.0.0.0/8"],
                "IndexConfigs": {"docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}},
                "Mirrors": [],
            },
            "GenericResources": None,
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Labels": [],
            "ExperimentalBuild": False,
            "ServerVersion": bothy.__version__,
            "DefaultRuntime": "bothy",
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "bothy-init",
            # programs that have no part in it, which clients print all the same
            **{f"{name}Commit": {"ID": "", "Expected": ""} for name in ("Containerd", "Runc", "Init")},
        }

    async def df(self) -> dict[str, Any]:
        """What is taken on disk: Docker's shape, and templates and machine disks. Takes as long as there are files."""
        hall = self._hall
        sizes = await listing.sizes(hall)
        used = {live.record.image for live in hall.workloads}
        usage = await asyncio.to_thread(hall.images.usage, used)
        volumes = []
        for volume in hall.volumes.list():
            size = await asyncio.to_thread(hall.volumes.usage, volume.name)
            volumes.append({**volume.to_api(), "UsageData": {"Size": size, "RefCount": len(users_of(hall, volume.name))}})
        templates = await asyncio.to_thread(hall.templates.list)
        return {
            "LayersSize": usage.layers_size,
            "Images": [_image_usage(image, [live.record.image for live in hall.workloads]) for image in hall.images.list()],
            "Containers": [_workload_usage(live.record, *sizes.get(live.id, (0, 0))) for live in hall.workloads],
            "Volumes": volumes,
            "BuildCache": [],
            "BuilderSize": 0,
            "Templates": [{"Key": t.key, "Size": t.size, "Current": t.current} for t in templates],
            "MachineDisks": {"Count": usage.disks, "Size": usage.disks_size},
            "Reclaimable": usage.reclaimable,
        }

    async def _accelerator(self) -> accelerator.Accelerator:
        """Probed once; who asks meanwhile waits for the same answer."""
        if self._probing is None:
            self._probing = asyncio.ensure_future(asyncio.to_thread(accelerator.probe, self._hall.paths))
        try:
            return await asyncio.shield(self._probing)
        except (NotFound, OSError) as exc:
            self._probing = None
            return accelerator.Accelerator("none", str(exc))
        finally:
            if self._probing is not None and self._probing.done():
                self._probing = None

    def _warnings(self) -> list[str]:
        limits = self._limits()
        words = {"MemoryLimit": "memory limit", "CpuCfsQuota": "cpu cfs quota", "CPUSet": "cpuset", "PidsLimit": "pids limit"}
        found = [f"WARNING: No {what} support" for key, what in words.items() if not limits[key]]
        if not _reads(_FORWARDING, "1"):
            found.append("WARNING: IPv4 forwarding is disabled")
        if not nftables.supported():
            found.append("WARNING: No nftables support: only --network none and host work")
        if not _has_seccomp():
            found.append("WARNING: libseccomp is not installed: containers run only with --security-opt seccomp=unconfined")
        return found


def _image_usage(image: Image, users: list[str]) -> dict[str, Any]:
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Created": times.nanoseconds(image.created) // 10**9 if image.created else 0,
        "Size": image.size,
        "VirtualSize": image.size,
        "SharedSize": 0,
        "Labels": image.config.labels,
        "Containers": users.count(image.id),
    }


def _workload_usage(record: Workload, written: int, whole: int) -> dict[str, Any]:
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": record.image_name,
        "ImageID": record.image,
        "Command": " ".join([record.path, *record.args]),
        "Created": times.nanoseconds(record.created) // 10**9,
        "State": record.status.value,
        "Status": record.status.value,
        "Labels": record.config.labels,
        "Mounts": [{"Type": m.type, "Name": m.name, "Destination": m.destination} for m in record.mounts],
        "SizeRw": written,
        "SizeRootFs": whole,
        "Runtime": "vm" if record.wall is Wall.VM else "bothy",
    }


@functools.cache
def _has_seccomp() -> bool:
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return False
    return True


def _architecture() -> str:
    """Go's name of this machine's architecture."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _reads(path: str, text: str) -> bool:
    try:
        return Path(path).read_text().strip() == text
    except OSError:
        return False


def _file_system(folder: Path) -> str:
    """The type of the file system that holds a folder: the mount with the longest matching place."""
    best, kind = "", "unknown"
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, place, fstype, *_ = line.split()
            inside = place == "/" or f"{folder}/".startswith(f"{place}/")
            if inside and len(place) >= len(best):
                best, kind = place, fstype
    return kind
