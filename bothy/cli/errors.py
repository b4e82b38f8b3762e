"""What people are told when something fails, and with which exit code: the one place for both.

    bothy: no image 'foo'
      hint: bothy image bootstrap busybox -t foo makes one

    125   bothy itself failed (or the engine could not do it)         126   the program can not be run
    127   there is no such program                                    130   interrupted by Ctrl-C
    1     the verb failed for some or all of its arguments            128+n killed by signal n

Only `main` exits; everything else raises. Failures of the engine arrive as bothy.errors.BothyError from the API client.
"""

from __future__ import annotations

import sys

ENOENT, ENOEXEC, EACCES, ENOTDIR, EISDIR, ELOOP = 2, 8, 13, 20, 21, 40
CANNOT_RUN = (EACCES, ENOEXEC, ENOTDIR, EISDIR, ELOOP)
ENGINE_FAILED, NOT_RUNNABLE, NOT_FOUND, INTERRUPTED = 125, 126, 127, 130


class UsageError(Exception):
    """The command line makes no sense. `code` is 125 for flags and 1 for a wrong number of arguments, as Docker's."""

    def __init__(self, message: str, command: str = "", hint: str = "", *, code: int = ENGINE_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.command = command
        self.hint = hint or (f"bothy {command} --help lists what it takes" if command else "bothy --help lists the commands")
        self.code = code


class Failure(Exception):
    """The verb failed on this side of the socket: message, hint, exit code."""

    def __init__(self, message: str, hint: str = "", *, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class Interrupted(BaseException):
    """A signal that ends this process, as an exception: what was begun can be undone on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def tell(message: str, hint: str = "") -> None:
    """Print a failure the way bothy prints failures."""
    text = f"bothy: {message}\n"
    if hint:
        text += f"  hint: {hint}\n"
    sys.stderr.write(text)
    sys.stderr.flush()


def note(message: str) -> None:
    """A remark that is no failure (a warning of the engine's)."""
    sys.stderr.write(f"bothy: {message}\n")
    sys.stderr.flush()


def start_code(errno: int, stage: str) -> int:
    """The exit code of `run`, `start -a` and `exec` for a program that did not start.

    127 where the program is not there, 126 where it can not be run, 125 for every other reason (docker run(1), "Exit status").
    """
    if stage != "exec":
        return ENGINE_FAILED
    if errno == ENOENT:
        return NOT_FOUND
    return NOT_RUNNABLE if errno in CANNOT_RUN else ENGINE_FAILED
