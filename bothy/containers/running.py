"""A container that runs, by its init and its control groups: what a keeper does to it without needing its plan."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import Any

from bothy.containers.cgroups import files
from bothy.containers.cgroups.hierarchies import Cgroup
from bothy.errors import StageError
from bothy.oci.runtime import Resources

_CLEANUP_SECONDS = 10.0


class Running:
    """`pid` and `pidfd` of the init (0 and -1: not started yet); the pidfd is this object's. `own_network`: it has interfaces
    of its own to measure."""

    def __init__(self, cgroup: Cgroup, pid: int, pidfd: int, *, own_network: bool) -> None:
        self._cgroup = cgroup
        self._pid = pid
        self._pidfd = pidfd
        self._frozen = False
        self._own_network = own_network

    @property
    def pid(self) -> int:
        """The init's pid as the keeper sees it, 0 before the start."""
        return self._pid

    @property
    def pidfd(self) -> int:
        """The init's pidfd, -1 before the start. Owned by this object, closed by cleanup."""
        return self._pidfd

    @property
    def frozen(self) -> bool:
        return self._frozen

    def signal(self, number: int) -> None:
        """Send a signal to the init. Raises ProcessLookupError when it is gone."""
        if self._pidfd < 0:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """SIGKILL every process of the container (and thaw it, so that they die)."""
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._cgroup.kill()
        self._frozen = False

    def pause(self) -> None:
        """Freeze every process; returns when all are frozen. Raises StageError (and they run on)."""
        self._cgroup.freeze()
        self._frozen = True

    def resume(self) -> None:
        """Thaw every process."""
        self._cgroup.thaw()
        self._frozen = False

    def pids(self) -> list[int]:
        """Every process of the container, as the host sees them."""
        return self._cgroup.pids()

    def stats(self) -> dict[str, Any]:
        """`cpu_stats`, `memory_stats`, `pids_stats`, `blkio_stats` and `networks` in the shapes of the Docker Engine API."""
        stats = self._cgroup.stats()
        stats["cpu_stats"]["online_cpus"] = os.cpu_count() or 1
        stats["cpu_stats"]["system_cpu_usage"] = _system_usage()
        memory = stats["memory_stats"]
        memory["limit"] = memory["limit"] or _total_memory()
        stats["networks"] = _networks(files.read(f"/proc/{self._pid}/net", "dev")) if self._pid and self._own_network else {}
        return stats

    def update(self, resources: Resources) -> None:
        """Set the limits that are given, leave the others. Raises StageError naming the one that the kernel refused."""
        try:
            self._cgroup.update(resources)
        except OSError as exc:
            raise StageError("cgroup", exc.strerror or str(exc), errno=exc.errno or 0, path=str(exc.filename or "")) from exc

    def oom_watch(self) -> tuple[int, bool]:
        """A descriptor (-1: none) that tells when memory has run out, and whether by an exceptional event (POLLPRI)."""
        return self._cgroup.oom_watch()

    def oom_count(self) -> int:
        """How many processes the kernel has killed in this container for want of memory. Valid until cleanup."""
        return self._cgroup.oom_count()

    def cleanup(self) -> None:
        """Kill what still runs, remove the cgroups, close fds. Idempotent. Reaps no children (the keeper does)."""
        if not self._cgroup.remove():
            self._cgroup.kill()
            end, pause = time.monotonic() + _CLEANUP_SECONDS, 0.0005
            while not self._cgroup.remove() and time.monotonic() < end:
                time.sleep(pause)  # the kernel tells nobody when a killed process has left a v1 cgroup
                pause = min(pause * 2, 0.05)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _system_usage() -> int:
    """All processors' busy and idle time together, in nanoseconds, as Docker tells it."""
    line = files.read("/proc", "stat").split("\n", 1)[0].split()[1:9]
    return sum(map(int, line)) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _networks(text: str) -> dict[str, dict[str, int]]:
    """The counters of /proc/<pid>/net/dev by interface, without the loopback."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        n = [int(word) for word in rest.split()]
        if name.strip() != "lo" and len(n) >= 12:
            found[name.strip()] = {
                "rx_bytes": n[0], "rx_packets": n[1], "rx_errors": n[2], "rx_dropped": n[3],
                "tx_bytes": n[8], "tx_packets": n[9], "tx_errors": n[10], "tx_dropped": n[11],
            }  # fmt: skip
    return found
