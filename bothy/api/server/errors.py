"""The one table from a category of `bothy.errors` to an HTTP status, and the body that tells an error.

    {"message": "...", "hint": "...", "stage": "...", "errno": 2}

bothy's own command line reads the parts. Docker's clients show `message` alone, so theirs has the hint in it: they are known by the
version in front of the path. `hint`, `stage` and `errno` are there only when they say something.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from bothy import errors

STATUS: dict[type[errors.BothyError], int] = {
    errors.Invalid: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unchanged: 304,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    errors.Broken: 500,
}

# The program itself could not be run: the caller's mistake, as in Docker.
PROGRAM_ERRNOS = frozenset({errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EPERM})


def status_of(exc: errors.BothyError) -> int:
    """The HTTP status of a failure."""
    if exc.stage == "exec" and exc.errno in PROGRAM_ERRNOS:
        return 400
    return next((STATUS[kind] for kind in type(exc).__mro__ if kind in STATUS), 500)


def body_of(exc: errors.BothyError) -> dict[str, Any]:
    """The JSON body of a failure. The kernel's words are in lower case there, as in Docker: its clients look for
    `no such file or directory` and `permission denied` to choose exit codes 127 and 126."""
    message = exc.message
    if exc.errno:
        words = os.strerror(exc.errno)
        message = message.replace(words, words.lower())
    parts = {"message": message, "hint": exc.hint, "stage": exc.stage, "errno": exc.errno}
    return {key: value for key, value in parts.items() if value or key == "message"}


def text_of(exc: errors.BothyError) -> str:
    """Message and hint on one line, for streams that have no fields."""
    body = body_of(exc)
    return f"{body['message']} ({exc.hint})" if exc.hint else str(body["message"])
