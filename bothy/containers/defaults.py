"""What a container gets when nobody asked for anything else: Docker's mounts, devices, capabilities, masked and read-only paths.

Pure functions that build pieces of an OCI spec. Source: the behaviour of Docker Engine, and the OCI runtime spec's default devices.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from bothy.errors import Invalid
from bothy.linux import capabilities as kernel
from bothy.oci.runtime import Capabilities, Device, DeviceRule, Mount, Namespace

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHM_SIZE = 64 * 1024 * 1024

CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
)  # fmt: skip

MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "cgroup")
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def mounts(*, shm_size: int = SHM_SIZE, privileged: bool = False) -> list[Mount]:
    """The mounts that every container has, in order. `shm_size` in bytes."""
    safe, access = ["nosuid", "noexec", "nodev"], "rw" if privileged else "ro"
    return [
        Mount("/proc", "proc", "proc", safe),
        Mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        Mount("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        Mount("/sys", "sysfs", "sysfs", [*safe, access]),
        Mount("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, access]),
        Mount("/dev/mqueue", "mqueue", "mqueue", safe),
        Mount("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", f"size={shm_size}"]),
    ]


def devices() -> list[Device]:
    """The device nodes that every container has."""
    return [Device(f"/dev/{name}", "c", major, minor) for name, (major, minor) in _DEVICES.items()]


def host_devices() -> list[Device]:
    """Every device node below the host's /dev (for privileged containers), without terminals and what is mounted there."""
    found = []
    for folder, folders, names in os.walk("/dev"):
        folders[:] = [f for f in folders if f not in ("pts", "shm", "mqueue", "fd", ".lxc", ".lxd-mounts", ".udev")]
        for name in names:
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
            if kind and path not in ("/dev/console", "/dev/ptmx"):
                major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
                found.append(Device(path, kind, major, minor, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid))
    return found


def device_rules(*, privileged: bool = False) -> list[DeviceRule]:
    """Everything for privileged ones; else nothing but making nodes, the default devices, and terminals."""
    if privileged:
        return [DeviceRule(allow=True)]
    terminals = [DeviceRule(allow=True, type="c", major=5, minor=1), DeviceRule(allow=True, type="c", major=5, minor=2)]
    return [
        DeviceRule(allow=False),
        DeviceRule(allow=True, type="c", access="m"),
        DeviceRule(allow=True, type="b", access="m"),
        *(DeviceRule(allow=True, type="c", major=major, minor=minor) for major, minor in _DEVICES.values()),
        *terminals,
        DeviceRule(allow=True, type="c", major=136),
    ]


def namespaces(*, network: str = "private", private: Iterable[str] = NAMESPACES) -> list[Namespace]:
    """The namespaces of a container; `network` is `private`, `host`, or the path of one to join."""
    kinds = [kind for kind in private if kind != "network" or network != "host"]
    return [Namespace(kind, network if kind == "network" and network != "private" else "") for kind in kinds]


def sysctls(*, network: str = "private", id_base: int = 0) -> dict[str, str]:
    """In a network of its own a container may use low ports and ping without privilege, as in Docker."""
    if network != "private":
        return {}
    groups = f"{id_base} {id_base + 65535}" if id_base else "0 2147483647"
    return {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": groups}


def capabilities(
    add: Iterable[str] = (), drop: Iterable[str] = (), *, privileged: bool = False, bounding: int | None = None
) -> tuple[Capabilities, list[str]]:
    """Docker's default set, plus `add`, minus `drop` (names with or without CAP_, or ALL), within `bounding` (our own, if None).

    Returns the sets and a warning for each capability that was asked for by name but is not ours to give. Raises Invalid for a
    name that is none.
    """
    ours = kernel.bounding() if bounding is None else bounding
    added, dropped = [_capability(name) for name in add], [_capability(name) for name in drop]
    if privileged or "ALL" in added:
        wanted = set(kernel.NAMES) - (set() if privileged else set(dropped))
    elif "ALL" in dropped:
        wanted = set(added)
    else:
        wanted = (set(CAPABILITIES) | set(added)) - set(dropped)
    given = [name for name in kernel.NAMES if name in wanted and ours >> kernel.NUMBERS[name] & 1]
    missing = [name for name in added if name != "ALL" and name in wanted and name not in given]
    sets = Capabilities(bounding=given, effective=given, permitted=given)
    return sets, [f"{name} is not available to bothy on this host and was left out" for name in missing]


def _capability(name: str) -> str:
    full = name.upper() if name.upper() == "ALL" or name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
    if full != "ALL" and full not in kernel.NUMBERS:
        raise Invalid(f'unknown capability: "{full}"', hint="see capabilities(7) for the names")
    return full
