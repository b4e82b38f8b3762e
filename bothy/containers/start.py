"""One container, from the keeper's side: start, exec, signal, freeze, measure, end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bothy.containers.model import ContainerPlan
from bothy.containers.sandbox import Sandbox
from bothy.oci.runtime import Process, Resources


@dataclass(frozen=True)
class Stdio:
    """The program's ends of its standard streams, owned (and later closed) by the caller; -1 is the container's /dev/null.

    With `Process.terminal` all three are ignored: the container's own devpts gives a pty, its master is in `Started`.
    """

    stdin: int = -1
    stdout: int = -1
    stderr: int = -1


@dataclass(frozen=True)
class Started:
    """A running program. `pid` as the keeper sees it; it is the keeper's child, to be waited for by the keeper.

    `pidfd` and `terminal` (the pty's master, -1 without a terminal) are owned by who gets this. `warnings` tell of limits that
    had to be clamped and the like.
    """

    pid: int
    pidfd: int
    terminal: int = -1
    warnings: tuple[str, ...] = ()


class Container:
    """A container of which the calling process is the parent.

    The constructor only takes its arguments. Order of calls: start once, then anything, then cleanup once (also after a failed start).
    """

    def __init__(self, plan: ContainerPlan, sandbox: Sandbox | None) -> None:
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The init's pid as the keeper sees it, 0 before the start."""
        raise NotImplementedError

    @property
    def pidfd(self) -> int:
        """The init's pidfd, -1 before the start. Owned by this object, closed by cleanup."""
        raise NotImplementedError

    def start(self, stdio: Stdio) -> Started:
        """Make cgroups, namespaces and mounts, and run the program of the plan; returns when it has been exec'ed.

        Raises StageError: no process, mount, link or cgroup is left, only the record on disk. Stage `exec` with ENOENT, EACCES, … is the
        program's own fault. Call it once: the caller unshares its pid namespace for children.
        """
        raise NotImplementedError

    def exec(self, process: Process, stdio: Stdio, *, privileged: bool = False) -> Started:
        """Run one more program in the running container; returns when it has been exec'ed. Raises StageError; nothing is left."""
        raise NotImplementedError

    def signal(self, number: int) -> None:
        """Send a signal to the init. Raises ProcessLookupError when it is gone."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL every process of the container (and thaw it, so that they die)."""
        raise NotImplementedError

    def pause(self) -> None:
        """Freeze every process; returns when all are frozen. Raises StageError (and they run on)."""
        raise NotImplementedError

    def resume(self) -> None:
        """Thaw every process."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """Every process of the container, as the host sees them."""
        raise NotImplementedError

    def stats(self) -> dict[str, Any]:
        """`cpu_stats`, `memory_stats`, `pids_stats`, `blkio_stats` and `networks` in the shapes of the Docker Engine API."""
        raise NotImplementedError

    def update(self, resources: Resources) -> None:
        """Set the limits that are given, leave the others. Raises StageError naming the one that the kernel refused."""
        raise NotImplementedError

    def oom_count(self) -> int:
        """How many processes the kernel has killed in this container for want of memory. Valid until cleanup."""
        raise NotImplementedError

    def cleanup(self) -> None:
        """Kill what still runs, remove the cgroups, close fds. Idempotent. Reaps no children (the keeper does)."""
        raise NotImplementedError
