"""What a keeper leaves in its folder for a daemon that was not told: that the program may have run, and how it ended."""

from __future__ import annotations

import os
import time

from bothy.jsonable import PLAIN
from bothy.keeper.model import Exit

NAME, BEGUN = "exit.json", "begun"


def stamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC with nanoseconds, of nanoseconds since the epoch."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def now() -> str:
    """The time, as `stamp` writes it."""
    return stamp(time.time_ns())


def write(folder: str, value: Exit) -> None:
    """Put `exit.json` into the folder, whole or not at all (rename(2)). The folder is gone at reboot, so nothing is synced.

    Raises OSError: FileNotFoundError when the folder has been taken away.
    """
    temporary = f"{folder}/.{NAME}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, PLAIN.dumps(value).encode())
    finally:
        os.close(fd)
    os.rename(temporary, f"{folder}/{NAME}")


def note_begin(folder: str) -> None:
    """From here on the program may run: who finds its keeper dead does not run it a second time. Raises OSError."""
    os.close(os.open(f"{folder}/{BEGUN}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def has_begun(folder: str) -> bool:
    """Whether the program may have run."""
    return os.path.exists(f"{folder}/{BEGUN}")


def read(folder: str) -> Exit | None:
    """What `write` left there, None if nothing. Raises ValueError when it is not an exit."""
    try:
        with open(f"{folder}/{NAME}", "rb") as file:
            return PLAIN.loads(Exit, file.read())
    except FileNotFoundError:
        return None
