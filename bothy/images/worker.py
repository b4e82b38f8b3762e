"""The process that does one heavy job of the images room: unpack, assemble, spool, disk. See `bothy.images.processes`.

    stdin     the job, JSON: {"op": …, "parent": pid, …}; file descriptors are inherited, their numbers are in the job
    stdout    JSON lines: {"progress": text}* then {"result": {…}} or {"error": {kind, message, errno}}

It dies with the daemon that started it (PDEATHSIG). What a job leaves half done is in a folder of the store's `tmp/`, which
whoever started the job removes, or the next start of the store.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from typing import Any

from bothy.images.failures import attempt
from bothy.linux import syscalls


def say(**message: Any) -> None:
    """One line to whoever started us."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do the job of stdin; exit 0 with a result, 1 with an error, both told on stdout."""
    job = json.load(sys.stdin)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != job["parent"]:
        os._exit(1)  # the daemon was gone before the signal was asked for
    gc.disable()
    told = attempt(_operation(job["op"]), job, say)
    say(**told)
    sys.exit("error" in told)


def _operation(name: str) -> Any:
    """The function of a job, imported alone: a job pays only for what it uses."""
    if name == "unpack":
        from bothy.images.jobs import unpack

        return unpack
    if name == "spool":
        from bothy.images.jobs import spool

        return spool
    if name == "assemble":
        from bothy.images.assemble import assemble

        return assemble
    from bothy.images.jobs import disk

    return disk


if __name__ == "__main__":
    main()
