"""The process that does one heavy job of the images room: unpack, assemble, spool, disk. See `bothy.images.processes`.

    stdin     the job, JSON: {"op": …, "parent": pid, …}; file descriptors are inherited, their numbers are in the job
    stdout    JSON lines: {"progress": text}* then {"result": {…}} or {"error": {kind, message, errno}}

It dies with the daemon that started it (PDEATHSIG). What a job leaves half done is in a folder of the store's `tmp/`, which
whoever started the job removes, or the next start of the store.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import sys
from typing import Any

from bothy.images.headers import Damaged
from bothy.linux import syscalls

FULL = (errno.ENOSPC, errno.EDQUOT)
# What a name or a number from an archive can make the kernel say; anything else is the host's trouble.
STRANGERS = (
    errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY,
    errno.EMLINK, errno.EFBIG, errno.E2BIG, errno.EILSEQ, errno.EPERM, errno.ENOENT, errno.ERANGE, errno.EOVERFLOW,
)  # fmt: skip


def say(**message: Any) -> None:
    """One line to whoever started us."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def failure(exc: BaseException) -> dict[str, Any]:
    """An exception as the parent understands it: kind is invalid, full, or broken."""
    if isinstance(exc, Damaged):
        return {"kind": "invalid", "message": str(exc), "errno": 0}
    if isinstance(exc, RecursionError):
        return {"kind": "invalid", "message": "links are nested too deeply", "errno": 0}
    if isinstance(exc, OSError):
        number = exc.errno or 0
        kind = "full" if number in FULL else "invalid" if number in STRANGERS else "broken"
        name = os.fsdecode(exc.filename)[:200] if isinstance(exc.filename, (str, bytes)) else ""
        return {"kind": kind, "message": f"{name!r}: {exc.strerror}" if name else str(exc.strerror or exc), "errno": number}
    return {"kind": "broken", "message": f"{type(exc).__name__}: {exc}", "errno": 0}


def main() -> None:
    """Do the job of stdin; exit 0 with a result, 1 with an error, both told on stdout."""
    job = json.load(sys.stdin)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != job["parent"]:
        os._exit(1)  # the daemon was gone before the signal was asked for
    gc.disable()
    status = 0
    try:
        say(result=_operation(job["op"])(job))
    except (Damaged, OSError, ValueError, RecursionError, MemoryError) as exc:
        say(error=failure(exc))
        status = 1
    sys.stdout.flush()
    os._exit(status)  # a reader thread may still wait for room in its queue; nobody waits for it


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
