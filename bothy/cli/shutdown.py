"""system shutdown: end the daemon. What runs goes on, unless everything of the engine is to go."""

from __future__ import annotations

import fcntl
import os

from bothy.cli.context import Context, path_part
from bothy.cli.errors import Failure
from bothy.cli.flags import Command, Values
from bothy.errors import Conflict, Unavailable


def shutdown(context: Context, flags: Values) -> int:
    """End the daemon and wait until it has ended: it holds its lock file (flock(2)) for as long as it lives.

    It is started for this only where something may be left of it that is to go: workloads run, and networks stay, without a daemon.
    Raises Conflict where everything should go while workloads run, Failure where its lock is elsewhere.
    """
    from bothy.api.client import Client

    path = context.client.socket_path
    thorough = flags.on("teardown") or flags.on("force")
    client = context.client if thorough else Client(path)
    try:
        running = [str(workload["Names"][0]).removeprefix("/") for workload in client.request("GET", "/containers/json").json()]
    except Unavailable:
        if thorough:
            raise
        return 0
    if flags.on("force"):
        for name in running:
            client.request("DELETE", f"/containers/{path_part(name)}", {"force": "1"}).close()
    elif running and flags.on("teardown"):
        names = ", ".join(running)
        raise Conflict(f"there are workloads that run: {names}", hint="stop them first, or --force removes them")
    client.request("POST", "/bothy/shutdown", {"teardown": "1"} if flags.on("teardown") else None).close()
    client.close()
    lock_path = os.path.join(os.path.dirname(path), "daemon.lock")
    try:
        with open(lock_path) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError as exc:
        raise Failure(
            f"the engine was told to end; when it has can not be seen: {lock_path}: {exc.strerror}",
            hint="its lock is beside its own socket, in the run folder",
        ) from None
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
