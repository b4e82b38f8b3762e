"""The modes `host` and `container:NAME` of `--pid` and `--ipc`; and whose ids a container has that shares a namespace with another.

Processes that see each other, memory that both map, a network that one sets up for the other: all of it works only where both have
the same ids and the same rights, so who joins a container joins its user namespace, and shares its id range until the last of them
has ended. A container without a user namespace of its own (`--privileged`, `--userns host`) lends none.

    create   container:NAME ─▶ container:ID, refused where it makes no sense
    start    the other one runs? ─▶ its namespaces are opened, and stay open until the program runs
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace

from bothy.engine import spec
from bothy.engine.containers import sharing
from bothy.engine.hall import Hall
from bothy.engine.model import Config, HostConfig, Status, Wall, Workload
from bothy.engine.workloads import Live
from bothy.errors import Conflict, Invalid, Unsupported

PREFIX = sharing.PREFIX
_WORDS = {"pid": "PID", "ipc": "IPC"}


@dataclass(frozen=True)
class Joined:
    """What a start joins: `network` in the spawner's words, `paths` by the OCI specification's kinds of namespaces (of `mount` only
    its /dev/shm is used). `id_base` is the lender's, 0 if there is none."""

    network: str
    paths: Mapping[str, str] = field(default_factory=dict)
    id_base: int = 0


def normal(hall: Hall, config: Config, host: HostConfig, *, machine: bool) -> HostConfig:
    """The host configuration with ids in the modes. Raises NotFound, Conflict, Unsupported; Invalid in Docker's words.

    Source: moby runconfig/hostconfig_unix.go.
    """
    if host.uts_mode == "host" and config.hostname:
        raise Invalid("conflicting options: hostname and the UTS mode", hint="leave out --hostname or --uts")
    return replace(
        host,
        pid_mode=_mode(hall, "pid", host.pid_mode, machine=machine),
        ipc_mode=_mode(hall, "ipc", host.ipc_mode, machine=machine),
    )


def _mode(hall: Hall, kind: str, mode: str, *, machine: bool) -> str:
    if not mode.startswith(PREFIX) or machine:
        return mode
    other = hall.workloads.find(mode.removeprefix(PREFIX))
    if other.record.wall is Wall.VM:
        raise Unsupported(
            f"the {_WORDS[kind]} namespace of {other.record.name} can not be shared: it is a machine",
            hint=f"bothy exec {other.record.name} runs a program in it",
        )
    return PREFIX + other.id


@contextlib.asynccontextmanager
async def joined(hall: Hall, record: Workload) -> AsyncIterator[Joined]:
    """Have what it joins open for as long as a start takes. Raises NotFound, Conflict (the other one does not run), Invalid."""
    host = record.host_config
    wanted = {kind: mode for kind, mode in (("pid", host.pid_mode), ("ipc", host.ipc_mode)) if mode.startswith(PREFIX)}
    if record.wall is Wall.VM or not (wanted or sharing.is_shared(host)):
        async with sharing.namespace(hall, record) as network:
            yield Joined(network)
        return
    others = {kind: _running(hall, kind, mode) for kind, mode in wanted.items()}
    if "ipc" in others and others["ipc"].record.host_config.ipc_mode not in ("shareable", "host"):
        other = others["ipc"].record
        raise Invalid(
            f"cannot join IPC of container {other.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
            hint=f"run {other.name} with --ipc shareable",
        )
    owners = [*others.values(), *([sharing.running_target(hall, record)] if sharing.is_shared(host) else [])]
    lender = next((o for o in owners if o.record.id_base), None) if spec.has_user_namespace(host) else None
    async with contextlib.AsyncExitStack() as opened:
        network = await opened.enter_async_context(sharing.namespace(hall, record))
        paths = {kind: await opened.enter_async_context(sharing.opened(other, kind)) for kind, other in others.items()}
        if "ipc" in others:
            paths["mount"] = await opened.enter_async_context(sharing.opened(others["ipc"], "mount"))
        if lender is not None:
            paths["user"] = await opened.enter_async_context(sharing.opened(lender, "user"))
        yield Joined(network, paths, lender.record.id_base if lender is not None else 0)


def _running(hall: Hall, kind: str, mode: str) -> Live:
    """The other container, which runs. Raises NotFound, Conflict."""
    other = hall.workloads.find(mode.removeprefix(PREFIX))
    status = other.record.status
    if status is Status.RESTARTING:
        raise Conflict(f"Container {other.id} is restarting, wait until the container is running")
    if status not in (Status.RUNNING, Status.PAUSED) or other.keeper is None:
        raise Conflict(
            f"cannot join {_WORDS[kind]} of a non running container: {other.id}", hint=f"bothy start {other.record.name}"
        )
    return other
