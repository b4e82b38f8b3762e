"""Resource flags: checked before anything is made, then as OCI resources and rlimits. Pure functions.

Source of the rules: moby daemon/daemon_unix.go `verifyPlatformContainerResources`, docker-units ulimit.go.
"""

from __future__ import annotations

import math
import os
import re
import resource
from dataclasses import dataclass, field, replace

from bothy.engine.model import HostConfig
from bothy.errors import Invalid
from bothy.linux import capabilities
from bothy.oci.runtime import Cpu, DeviceRule, Memory, Pids, Resources, Rlimit

MINIMUM_MEMORY = 6 * 1024 * 1024
MOST_MEMORY = 1000 << 30  # an emulated processor has addresses of 40 bits, and not all of them are memory
MOST_VCPUS = 255  # more need an interrupt controller that software emulation does not have
PERIOD = 100_000
_RLIMITS = (
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
)  # fmt: skip


@dataclass(frozen=True)
class Host:
    """What the host has, as far as limits are checked against it. `memory` and `swap` in bytes. `hard_limits` by name; one that is
    not told may be raised."""

    cpus: int
    memory: int
    hard_limits: dict[str, int] = field(default_factory=dict)
    swap: int = 0

    @classmethod
    def here(cls) -> Host:
        return cls(os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _hard_limits(), _swap())


def _swap() -> int:
    """Bytes of swap (proc(5), /proc/meminfo)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("SwapTotal:")), 0)


def _hard_limits() -> dict[str, int]:
    """Ours that we may not raise (setrlimit(2): without CAP_SYS_RESOURCE)."""
    if capabilities.effective() >> capabilities.NUMBERS["CAP_SYS_RESOURCE"] & 1:
        return {}
    numbers = {name: getattr(resource, f"RLIMIT_{name.upper()}", None) for name in _RLIMITS.split()}
    limits = {name: resource.getrlimit(number)[1] for name, number in numbers.items() if number is not None}
    return {name: limit for name, limit in limits.items() if limit != resource.RLIM_INFINITY}


def check(asked: HostConfig, host: Host, *, machine: bool) -> list[str]:
    """Warnings about what can not be honoured. Raises Invalid for what can not be meant.

    A machine may have more virtual processors than the host has real ones, and more memory: it takes what its guest has touched.
    """
    _check_memory(asked)
    if machine and asked.memory > MOST_MEMORY:
        raise Invalid(f"a machine can not have more than {MOST_MEMORY >> 30} GiB of memory", hint="give it less with --memory")
    _check_cpu(asked, host, machine=machine)
    if not -1000 <= asked.oom_score_adj <= 1000:
        raise Invalid(f"invalid value {asked.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if asked.shm_size < 0:
        raise Invalid("SHM size can not be less than 0")
    if asked.pids_limit is not None and asked.pids_limit < -1:
        raise Invalid(f"invalid pids limit {asked.pids_limit}", hint="use -1 or 0 for no limit")
    rlimits(asked)
    warnings = []
    if machine and asked.memory > host.memory + host.swap:
        warnings.append(
            f"the host has less memory than the machine will see: {host.memory + host.swap >> 20} MiB with swap, not "
            f"{asked.memory >> 20} MiB; a machine that uses more than there is gets killed"
        )
    if asked.oom_kill_disable and not asked.memory:
        warnings.append("OOM killer is disabled without a memory limit: the system may run out of memory")
    return warnings + ([] if machine else _clamped(asked, host))


def _clamped(asked: HostConfig, host: Host) -> list[str]:
    """A warning for each limit that will be lower than asked for."""
    found = []
    for limit in rlimits(asked):
        name = limit.type[len("RLIMIT_") :].lower()
        most = host.hard_limits.get(name)
        if most is not None and (limit.hard < 0 or limit.hard > most):
            found.append(f"ulimit {name} is clamped to {most}, bothy may not raise it on this host")
    return found


def _check_memory(asked: HostConfig) -> None:
    if asked.memory < 0 or asked.memory_reservation < 0:
        raise Invalid("memory limits can not be negative")
    if 0 < asked.memory < MINIMUM_MEMORY:
        raise Invalid("Minimum memory limit allowed is 6MB", hint="give at least --memory 6m")
    if asked.memory_swap < -1:
        raise Invalid(f"invalid memory swap {asked.memory_swap}", hint="use -1 for unlimited swap")
    if asked.memory_swap > 0 and not asked.memory:
        raise Invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < asked.memory_swap < asked.memory:
        raise Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
    if 0 < asked.memory_reservation < MINIMUM_MEMORY:
        raise Invalid("Minimum memory reservation allowed is 6MB")
    if asked.memory and asked.memory_reservation > asked.memory:
        raise Invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
    swappiness = asked.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise Invalid(f"invalid value: {swappiness}, valid memory swappiness range is 0-100")


def _check_cpu(asked: HostConfig, host: Host, *, machine: bool) -> None:
    if asked.nano_cpus and (asked.cpu_period or asked.cpu_quota):
        raise Invalid("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
    if asked.nano_cpus < 0 or (not machine and asked.nano_cpus > host.cpus * 10**9):
        raise Invalid(f"range of CPUs is from 0.01 to {host.cpus:.2f}, as there are only {host.cpus} CPUs available")
    if machine and asked.nano_cpus > MOST_VCPUS * 10**9:
        raise Invalid(f"a machine can not have more than {MOST_VCPUS} CPUs")
    if 0 < asked.nano_cpus < 10**7:
        raise Invalid(f"range of CPUs is from 0.01 to {host.cpus:.2f}")
    if asked.cpu_period and not 1000 <= asked.cpu_period <= 1_000_000:
        raise Invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if asked.cpu_quota and asked.cpu_quota < 1000 and asked.cpu_quota != -1:
        raise Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if asked.cpu_shares < 0:
        raise Invalid("invalid CPU shares: value must be a positive integer")
    for word, text in (("cpus", asked.cpuset_cpus), ("mems", asked.cpuset_mems)):
        numbers = number_list(text, f"cpuset {word}")
        available = host.cpus if word == "cpus" else 1
        if numbers and max(numbers) >= available:
            raise Invalid(f"Requested {word.upper()} are not available - requested {text}, available: 0-{available - 1}")


def number_list(text: str, what: str) -> list[int]:
    """The numbers of `0-2,7`. Raises Invalid."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise Invalid(f"invalid value {text!r} for {what}", hint="use a list like 0-2,7")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def adapted(asked: HostConfig) -> HostConfig:
    """With the limits that follow from others, as inspect shows them (moby daemon/daemon_unix.go, `adaptContainerSettings`)."""
    if asked.memory > 0 and not asked.memory_swap:
        asked = replace(asked, memory_swap=2 * asked.memory)
    if asked.cpu_shares > 0:
        asked = replace(asked, cpu_shares=min(max(asked.cpu_shares, 2), 262144))
    return asked


def resources(asked: HostConfig, devices: list[DeviceRule]) -> Resources:
    """The cgroup limits. Without a swap limit, memory plus swap is twice the memory, as in Docker."""
    memory = None
    swappiness = asked.memory_swappiness if asked.memory_swappiness is not None and asked.memory_swappiness >= 0 else None
    if asked.memory or asked.memory_reservation or swappiness is not None or asked.oom_kill_disable:
        swap = asked.memory_swap or (asked.memory * 2 if asked.memory else 0)
        memory = Memory(
            limit=asked.memory or None, reservation=asked.memory_reservation or None, swap=swap or None,
            disable_oom_killer=asked.oom_kill_disable, swappiness=swappiness,
        )  # fmt: skip
    quota, period = asked.cpu_quota or None, asked.cpu_period or None
    if asked.nano_cpus:
        quota, period = asked.nano_cpus * PERIOD // 10**9, PERIOD
    cpu = None
    if quota or period or asked.cpu_shares or asked.cpuset_cpus or asked.cpuset_mems:
        cpu = Cpu(asked.cpu_shares or None, quota, period, asked.cpuset_cpus, asked.cpuset_mems)
    pids = Pids(asked.pids_limit) if asked.pids_limit and asked.pids_limit > 0 else None
    return Resources(devices=devices, memory=memory, cpu=cpu, pids=pids)


def rlimits(asked: HostConfig) -> list[Rlimit]:
    """The `--ulimit`s. Raises Invalid."""
    found = []
    for limit in asked.ulimits:
        name = limit.name.lower()
        if name not in _RLIMITS.split():
            raise Invalid(f"invalid ulimit type: {limit.name}", hint=f"known types: {', '.join(_RLIMITS.split())}")
        soft, hard = (math.inf if v < 0 else v for v in (limit.soft, limit.hard))
        if soft > hard:
            raise Invalid(f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}")
        found.append(Rlimit(f"RLIMIT_{name.upper()}", limit.soft, limit.hard))
    return found
