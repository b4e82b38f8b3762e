"""The network mode `container:NAME`: a container in the network namespace of another one, with its addresses, ports and names.

When that one is started again it has a network namespace anew, and who shared the old one stays there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace

from bothy.containers.sandbox import HOST, PRIVATE
from bothy.engine import spec
from bothy.engine.hall import Hall
from bothy.engine.model import Config, EndpointConfig, HostConfig, NetworkingConfig, Status, Wall, Workload
from bothy.engine.workloads import Live
from bothy.errors import Conflict, Invalid, Unsupported
from bothy.linux import namespaces

PREFIX = "container:"
_MAX_FILE = 1 << 20


def is_shared(host: HostConfig) -> bool:
    """Whether the network is another container's."""
    return host.network_mode.startswith(PREFIX)


def target(hall: Hall, host: HostConfig) -> Live:
    """The other container. Raises NotFound, Conflict."""
    return hall.workloads.find(host.network_mode.removeprefix(PREFIX))


def normal(hall: Hall, config: Config, host: HostConfig, networking: NetworkingConfig, *, machine: bool) -> HostConfig:
    """The host configuration with the other's id in the mode. Raises NotFound, Conflict, Unsupported; Invalid in Docker's words.

    Source: moby runconfig/hostconfig_unix.go, `validateNetMode`.
    """
    other = target(hall, host)
    hint = "put both on one network: they find each other by name"
    if machine:
        raise Unsupported("a machine can not share a container's network: it has a kernel of its own", hint=hint)
    if other.record.wall is Wall.VM:
        raise Unsupported(f"the network of {other.record.name} can not be shared: it is a machine", hint=hint)
    endpoints = [found or EndpointConfig() for found in networking.endpoints_config.values()]
    conflicts = (
        (config.hostname, "hostname and the network mode"),
        (host.links, "container type network can't be used with links. This would result in undefined behavior"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (config.mac_address or any(e.mac_address for e in endpoints), "mac-address and the network mode"),
        (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
    )
    for wanted, problem in conflicts:
        if wanted:
            raise Invalid(f"conflicting options: {problem}", hint=f"give it to {other.record.name}")
    return replace(host, network_mode=PREFIX + other.id)


@contextlib.asynccontextmanager
async def namespace(hall: Hall, record: Workload) -> AsyncIterator[str]:
    """What the spawner has to be told of a workload's network: `private`, `host`, or the path of another's namespace.

    Raises Conflict when the other container does not run.
    """
    if record.host_config.network_mode == "host" or record.wall is Wall.VM:
        yield HOST
    elif not is_shared(record.host_config):
        yield PRIVATE
    else:
        async with opened(running_target(hall, record), "network") as path:
            yield path


@contextlib.asynccontextmanager
async def opened(other: Live, kind: str) -> AsyncIterator[str]:
    """A path of a namespace (by its OCI kind) of a container that runs, good for as long as this is entered. Raises Conflict."""
    pid = other.record.pid
    try:
        fd = namespaces.open_namespace(kind, pid)
    except OSError:
        raise _not_running(other) from None
    try:
        # asked after it was opened: as long as its keeper has not seen its end, the number is no other process's
        if other.keeper is None or (await other.keeper.status()).pid != pid:
            raise _not_running(other)
        yield f"/proc/{os.getpid()}/fd/{fd}"
    finally:
        os.close(fd)


def running_target(hall: Hall, record: Workload) -> Live:
    """The other container, which runs. Raises NotFound, Conflict."""
    other = target(hall, record.host_config)
    if other.record.status is Status.RESTARTING:
        raise Conflict(f"cannot join network of container {other.id}: it is restarting, wait until the container is running")
    if other.record.status not in (Status.RUNNING, Status.PAUSED) or other.keeper is None:
        raise _not_running(other)
    return other


def small_files(hall: Hall, record: Workload) -> dict[str, str]:
    """The other's resolv.conf, hosts and hostname as they are now. Raises NotFound, Conflict, OSError."""
    folder = hall.paths.container(running_target(hall, record).id)
    return {name: _read(f"{folder}/{name}") for name in spec.FILES}


def _read(path: str) -> str:
    """What is there: that container may have written anything into it, but can not have put another file in its place."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.read(fd, _MAX_FILE).decode(errors="replace")
    finally:
        os.close(fd)


def _not_running(other: Live) -> Conflict:
    return Conflict(f"cannot join network of a non running container: {other.id}", hint=f"bothy start {other.record.name}")
