"""Flags that Docker has and this engine has not, or has only over one wall: what is told to who gives one. Pure.

Where Docker on a host without the feature goes on with a warning, so does bothy, for compose files that set it everywhere; what a
program would rely on is refused. Source of the words: moby daemon/daemon_unix.go, daemon/container.go.
"""

from __future__ import annotations

from collections.abc import Iterable

from bothy.engine.model import EndpointConfig, HostConfig
from bothy.errors import Invalid, NotFound, Unsupported


def check(asked: HostConfig, *, machine: bool, swappiness: bool = True) -> list[str]:
    """Warnings about what is left out. Raises Invalid, NotFound or Unsupported. `swappiness`: the host has it."""
    if asked.isolation not in ("", "default"):
        raise Invalid(f"invalid isolation '{asked.isolation}' on linux", hint="default is the only one")
    if asked.device_requests:
        raise Unsupported("could not select device driver: bothy gives no GPUs", hint="--device gives a device of the host")
    if asked.cgroup_parent:
        raise Unsupported("a cgroup parent can not be chosen: an engine has one for all", hint="leave out --cgroup-parent")
    if asked.cpu_realtime_period or asked.cpu_realtime_runtime:
        raise Unsupported("realtime CPU limits are not supported", hint="leave out --cpu-rt-period and --cpu-rt-runtime")
    if asked.volume_driver not in ("", "local"):
        raise NotFound(
            f'error looking up volume plugin {asked.volume_driver}: plugin "{asked.volume_driver}" not found', hint="known: local"
        )
    _check_storage(asked)
    warnings = []
    if asked.blkio_weight or asked.blkio_weight_device:
        warnings.append("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.")
    if asked.kernel_memory:
        warnings.append("Specifying a kernel memory limit is deprecated and will be ignored.")
    if machine:
        warnings += _machine(asked)
    elif asked.memory_swappiness is not None and asked.memory_swappiness >= 0 and not swappiness:
        warnings.append(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."
        )
    return warnings


def _check_storage(asked: HostConfig) -> None:
    for name in asked.storage_opt:
        if name != "size":
            raise Invalid(f"Unknown option {name}", hint="no storage option is supported")
        raise Unsupported(
            "--storage-opt size is not supported: what a workload writes has no quota",
            hint="a volume has: bothy volume create --opt size=1g",
        )


def _machine(asked: HostConfig) -> list[str]:
    """What has no meaning for a machine."""
    throttles = (
        asked.blkio_device_read_bps, asked.blkio_device_write_bps, asked.blkio_device_read_iops, asked.blkio_device_write_iops
    )  # fmt: skip
    if any(throttles):
        raise Unsupported("the rates of the host's devices can not be limited for a machine", hint="run it as a container")
    if asked.device_cgroup_rules:
        raise Unsupported("a machine has its own devices: there are no rules for the host's", hint="run it as a container")
    ignored = {
        "--memory-swap": asked.memory_swap not in (0, 2 * asked.memory),
        "--memory-reservation": asked.memory_reservation > 0,
        "--memory-swappiness": asked.memory_swappiness is not None and asked.memory_swappiness >= 0,
        "--oom-kill-disable": asked.oom_kill_disable,
    }
    return [f"{flag} has no effect on a machine: its memory is its own" for flag, is_given in ignored.items() if is_given]


def check_endpoints(endpoints: Iterable[EndpointConfig | None]) -> None:
    """Link-local addresses that are asked for. Raises Unsupported."""
    for endpoint in endpoints:
        if endpoint is not None and (endpoint.ipam_config or {}).get("LinkLocalIPs"):
            raise Unsupported("link-local addresses can not be chosen", hint="leave out --link-local-ip")
