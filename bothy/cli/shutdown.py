"""system shutdown: end the daemon. What runs goes on, unless everything of the engine is to go."""

from __future__ import annotations

import fcntl
import os

from bothy.cli.context import Context
from bothy.cli.flags import Command, Values
from bothy.errors import Conflict, Unavailable


def shutdown(context: Context, flags: Values) -> int:
    """End the daemon and wait until it has ended: it holds its lock file (flock(2)) for as long as it lives.

    It is not started for this. Raises Conflict where everything should go while workloads run.
    """
    from bothy.api.client import Client

    path = context.client.socket_path
    client = Client(path)
    try:
        running = [str(workload["Id"]) for workload in client.request("GET", "/containers/json").json()]
    except Unavailable:
        return 0
    if flags.on("force"):
        for ident in running:
            client.request("DELETE", f"/containers/{ident}", {"force": "1"}).close()
    elif running and flags.on("teardown"):
        raise Conflict(f"{len(running)} workloads run", hint="stop them first, or --force removes them")
    client.request("POST", "/bothy/shutdown", {"teardown": "1"} if flags.on("teardown") else None).close()
    client.close()
    with open(os.path.join(os.path.dirname(path), "daemon.lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
    return 0


COMMANDS = {
    "system shutdown": Command(
        "system shutdown",
        "End the daemon; what runs goes on, and the next command starts a daemon again",
        shutdown,
        flags=(
            ("force", "f", "bool", "", "Remove the workloads that run first"),
            ("teardown", "", "bool", "", "Also take away what the engine has put into the kernel: bridge, firewall rules, cgroups"),
        ),
        examples=(("bothy system shutdown --teardown --force", "Leave the host as it was, but for the state folder"),),
    ),
}
