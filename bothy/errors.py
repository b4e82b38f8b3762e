"""The nine kinds of failure that bothy's rooms raise.

    BothyError
    ├── Invalid        the request makes no sense                       (400)
    ├── Unauthorized   credentials are missing or wrong                 (401)
    ├── Forbidden      policy or the kernel says no                     (403)
    ├── NotFound       the thing named does not exist                   (404)
    ├── Conflict       the thing is in a state that does not allow it   (409)
    ├── Unchanged      it is already so                                 (304)
    ├── Unsupported    bothy or this host can not do that               (501)
    ├── Unavailable    it can not be done now, later perhaps            (503)
    └── Broken         something that should have worked did not        (500)

Rooms choose the category; the HTTP status is chosen in one table in `bothy.api`, the wording and the exit code for
people in one table in `bothy.cli`. Messages are lower-case, have no final full stop, and name the thing.
The hint, where there is one, says what to do.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # not from typing, which costs the command line 9 ms; type checkers know the name
if TYPE_CHECKING:
    from typing import ClassVar


class BothyError(Exception):
    """A failure with a category, a message for people, and perhaps a hint.

    `stage` and `errno` tell where behind the fork wall it happened, for failures that crossed it.
    """

    category: ClassVar[str] = "broken"

    def __init__(self, message: str, *, hint: str = "", stage: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.stage = stage
        self.errno = errno

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Invalid(BothyError):
    category = "invalid"


class Unauthorized(BothyError):
    category = "unauthorized"


class Forbidden(BothyError):
    category = "forbidden"


class NotFound(BothyError):
    category = "not-found"


class Conflict(BothyError):
    category = "conflict"


class Unchanged(BothyError):
    category = "unchanged"


class Unsupported(BothyError):
    category = "unsupported"


class Unavailable(BothyError):
    category = "unavailable"


class Broken(BothyError):
    category = "broken"


CATEGORIES: tuple[type[BothyError], ...] = (
    Invalid, Unauthorized, Forbidden, NotFound, Conflict, Unchanged, Unsupported, Unavailable, Broken,
)  # fmt: skip


class StageError(Exception):
    """A failure behind the fork wall: which stage, which errno, which path. It crosses the wall as a dict.

    Raised only behind the wall; `failure_of` is what is sent, `from_failure` what the engine raises of it.
    """

    def __init__(self, stage: str, message: str, *, errno: int = 0, path: str = "") -> None:
        super().__init__(f"{stage}: {message}")
        self.stage = stage
        self.message = message
        self.errno = errno
        self.path = path


def is_foreseen(exc: BaseException) -> bool:
    """Whether an exception is one of those that are raised on purpose; every other one is a bug of ours."""
    return isinstance(exc, (BothyError, StageError, OSError, ValueError))


def failure_of(exc: BaseException, stage: str) -> dict[str, str | int]:
    """The form in which an exception crosses the fork wall: `{stage, message, errno, path}`. A bug is called an internal error."""
    if isinstance(exc, StageError):
        return {"stage": exc.stage, "message": exc.message, "errno": exc.errno, "path": exc.path}
    if isinstance(exc, OSError):
        path = os.fsdecode(exc.filename) if isinstance(exc.filename, (str, bytes)) else ""
        return {"stage": stage, "message": exc.strerror or str(exc), "errno": exc.errno or 0, "path": path}
    kind = "" if is_foreseen(exc) else "internal error: "
    return {"stage": stage, "message": f"{kind}{type(exc).__name__}: {exc}", "errno": 0, "path": ""}


def from_failure(failure: dict[str, str | int], kind: type[BothyError] = Broken) -> BothyError:
    """The engine's exception for a failure that crossed the fork wall; the failing stage is told in the message."""
    path = f" {failure['path']!r}" if failure.get("path") else ""
    stage = str(failure.get("stage", ""))
    message = f"{stage}{path}: {failure.get('message', 'unknown failure')}" if stage else str(failure.get("message"))
    return kind(message, stage=stage, errno=int(failure.get("errno") or 0))
