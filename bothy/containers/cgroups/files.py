"""Reading and writing the small files of cgroup folders. Everything here takes the folder, so that tests can give it any."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from bothy.errors import StageError

UNLIMITED = -1
_NO_LIMIT = 1 << 62  # what v1 shows for "no limit" is the largest multiple of a page below 2**63


@dataclass(frozen=True)
class Write:
    """One write of a plan: `controller` says which hierarchy (v1) or is empty (v2). `optional`: a kernel without the file is no
    error, nor is one that refuses the value because others have narrowed it already."""

    controller: str
    file: str
    value: str
    optional: bool = False

    def describe(self) -> str:
        return f"{self.controller + ': ' if self.controller else ''}{self.file} = {self.value}"


def refused(write: Write, exc: OSError) -> StageError:
    """What is told of a limit that could not be set."""
    lacking = exc.errno == errno.ENOENT and os.path.isdir(os.path.dirname(exc.filename))
    reason = "this host has no such limit" if lacking else exc.strerror
    return StageError("cgroup", f"{write.describe()}: {reason}", errno=exc.errno or 0)


def write(folder: str, name: str, value: str) -> None:
    """Write a value. OSError with the whole path."""
    path = f"{folder}/{name}"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, path) from None
    finally:
        os.close(fd)


def read(folder: str, name: str) -> str:
    """The text of a file, empty where it does not exist (a controller that is not there)."""
    try:
        fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts).decode()
    except OSError:
        return ""
    finally:
        os.close(fd)


def number(text: str) -> int:
    """A number of a file; `max`, what v1 shows for no limit, and nothing are 0."""
    text = text.strip()
    value = int(text) if text.lstrip("-").isdecimal() else 0
    return 0 if value >= _NO_LIMIT else value


def pairs(text: str) -> dict[str, int]:
    """`name number` lines."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.lstrip("-").isdecimal():
            found[name] = int(value)
    return found


def processes(folder: str) -> list[int]:
    """The processes in a folder and in the folders below it."""
    found = [int(pid) for pid in read(folder, "cgroup.procs").split()]
    try:
        children = [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        children = []
    for child in children:
        found += processes(child)
    return found


def make(root: str, path: str) -> str:
    """The folder `path` below `root`, made with its parents."""
    folder = root + path
    try:
        os.mkdir(folder, 0o755)
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(folder, 0o755, exist_ok=True)
    return folder


def remove(folder: str) -> bool:
    """Remove a folder with the folders below it. False if processes are still in it."""
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError as exc:
        if exc.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        try:
            below = [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return True
        gone = [remove(path) for path in below]
        if not gone or not all(gone):
            return False
        try:
            os.rmdir(folder)
        except OSError:
            return False
    return True
