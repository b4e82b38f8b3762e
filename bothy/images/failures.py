"""How a failure in a worker crosses to the daemon: {kind, message, errno}, kind is invalid, full, or broken."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from bothy.tar.headers import Damaged

FULL = (errno.ENOSPC, errno.EDQUOT)
# What a name or a number from an archive can make the kernel say; anything else is the host's trouble.
STRANGERS = (
    errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY,
    errno.EMLINK, errno.EFBIG, errno.E2BIG, errno.EILSEQ, errno.EPERM, errno.ENOENT, errno.ERANGE, errno.EOVERFLOW,
)  # fmt: skip


class Failed(Exception):
    """A failure that was told by a child of the worker already."""

    def __init__(self, failure: dict[str, Any]) -> None:
        super().__init__(failure["message"])
        self.failure = failure


def failure(exc: BaseException) -> dict[str, Any]:
    """An exception as the parent understands it: kind is invalid, full, or broken."""
    if isinstance(exc, Failed):
        return exc.failure
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


def died(status: int) -> dict[str, Any]:
    """The failure of a process that ended with this wait status and told nothing."""
    code = os.waitstatus_to_exitcode(status)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return {"kind": "broken", "message": f"the worker {how}", "errno": 0}


def attempt(job: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """{"result": what the job returns} or {"error": its failure}."""
    try:
        return {"result": job(*args)}
    except (Damaged, Failed, OSError, ValueError, OverflowError, RecursionError, MemoryError) as exc:
        return {"error": failure(exc)}
