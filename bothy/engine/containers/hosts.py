"""The hosts file of a workload that runs: a container's is on this host, a machine's guest changes its own."""

from __future__ import annotations

from bothy.engine.hall import Hall
from bothy.engine.model import Wall
from bothy.engine.workloads import Live
from bothy.linux import hosts
from bothy.linux.hosts import HostsChange
from bothy.log import logger

_log = logger("engine")


def change(hall: Hall, live: Live, wanted: HostsChange) -> None:
    """Done at once for a container, soon for a machine. Failures are logged: the names are served by DNS too."""
    if live.record.wall is Wall.VM:
        if live.keeper is not None:
            hall.background(live.keeper.hosts(wanted), f"the hosts file of {live.id[:12]}")
        return
    path = f"{hall.paths.container(live.id)}/hosts"
    try:
        hosts.change(path, wanted)
    except OSError as exc:
        _log.warning("%s was not changed: %s", path, exc)
