"""What keepers will need, done once before the first fork: readers of plans are built, lazy parts of the library are loaded."""

from __future__ import annotations

import time
from typing import Any

from bothy.containers.cgroups.hierarchies import of_this_host
from bothy.containers.model import ContainerPlan, Rootfs
from bothy.jsonable import PLAIN
from bothy.keeper import exits, logs
from bothy.keeper.model import Client, ExecPlan, Exit, KeeperPlan, LogPlan
from bothy.linux.links import Attachment, Interface, Route
from bothy.machines.model import Disk, MachinePlan, Share
from bothy.oci import runtime as oci


def example() -> tuple[KeeperPlan, ExecPlan]:
    """Plans in which every kind of value occurs."""
    process = oci.Process(
        args=["true"],
        env=["A=b"],
        console_size=oci.Box(24, 80),
        user=oci.User(additional_gids=[1]),
        capabilities=oci.Capabilities(bounding=["CAP_CHOWN"]),
        rlimits=[oci.Rlimit("RLIMIT_NOFILE", 1, 1)],
    )
    resources = oci.Resources([oci.DeviceRule(allow=True, major=1, minor=3)], oci.Memory(1), oci.Cpu(1, 1, 1), oci.Pids(1))
    linux = oci.Linux(
        namespaces=[oci.Namespace("pid")],
        uid_mappings=[oci.IdMapping(0, 1)],
        devices=[oci.Device("/dev/null", "c", 1, 3)],
        resources=resources,
        masked_paths=["/proc/kcore"],
        sysctl={"a": "b"},
    )
    spec = oci.Spec(process, oci.Root("/"), "host", [oci.Mount("/proc", options=["ro"])], linux, {"a": "b"})
    interface = Interface("eth0", "02:00:00:00:00:01", ["10.0.0.2/8"], [Route("default", "10.0.0.1")])
    attached = [Attachment(interface, "l", "b")]
    container = ContainerPlan("c", spec, Rootfs("/", ["/"], "/", "/"), attachments=attached, warnings=["w"])
    machine = MachinePlan("m", spec, "/", 1, 1, Disk("/"), Disk("/"), attached, shares=[Share("/", "/")], files={"/a": "b"})
    return KeeperPlan("k", LogPlan("/log"), container, machine), ExecPlan("e", process)


def warm() -> None:
    """Do once what would otherwise be done in every keeper."""
    values: tuple[Any, ...] = (*example(), Client(), Exit(0))
    for value in values:
        if PLAIN.loads(type(value), PLAIN.dumps(value)) != value:
            raise AssertionError(f"{type(value).__name__} is not read as it was written")
    logs.entry("line", 1, exits.now())
    of_this_host()
    time.localtime()
