"""`GET /containers/{id}/stats`: a sample of a workload's controllers beside the one before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bothy.engine import times
from bothy.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from bothy.api.server.backend import Containers
    from bothy.engine.model import Workload

# Told by first control groups alone; clients walk through them all the same.
_BLOCK_DEVICES: dict[str, list[Any]] = {
    f"io_{what}_recursive": [] for what in ("service_bytes", "serviced", "queue", "service_time", "wait_time", "merged", "time")
} | {"sectors_recursive": []}
_EMPTY_CPU: dict[str, Any] = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


async def sample(containers: Containers, workload: Workload) -> dict[str, Any]:
    """What the engine measures now, with the time of it; nothing for a workload that does not run."""
    if not workload.status.can_signal:
        return {}
    try:
        return {**await containers.stats(workload.id), "read": times.now()}
    except (Conflict, Unavailable):
        return {}


def stats(workload: Workload, current: dict[str, Any], previous: dict[str, Any] | None) -> dict[str, Any]:
    """A line of the answer."""
    before = previous or {}
    return {
        "name": f"/{workload.name}",
        "id": workload.id,
        "read": current.get("read", times.NEVER),
        "preread": before.get("read", times.NEVER),
        "pids_stats": current.get("pids_stats", {}),
        "blkio_stats": {**_BLOCK_DEVICES, **current.get("blkio_stats", {})},
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": current.get("cpu_stats", _EMPTY_CPU),
        "precpu_stats": before.get("cpu_stats", _EMPTY_CPU),
        "memory_stats": current.get("memory_stats", {}),
        "networks": current.get("networks", {}),
    }
