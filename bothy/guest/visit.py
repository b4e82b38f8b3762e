"""A visit in the guest: a child of the agent in the program's root that copies files for the engine.

What it does is in `bothy.containers.visits`. Its line is a program's stdin and stdout, so the frames that carry the streams of
programs carry it.
"""

from __future__ import annotations

import os
import resource
from typing import NoReturn

from bothy.containers import process as stages
from bothy.containers.visits import serve
from bothy.containers.visits.changes import Trees
from bothy.containers.visits.wire import Line
from bothy.guest import early
from bothy.keeper import processes
from bothy.linux import channel, mounts, syscalls
from bothy.tar.pack import FOLDER, MAX_DEPTH

_FILES = 4 * MAX_DEPTH


def start(disk: int) -> tuple[int, processes.Streams]:
    """Begin a visit; its pid and our ends of its streams. `disk` is the folder that the disks are mounted in. Raises OSError."""
    streams, ends = processes.pipes(stdin=True)
    try:
        pid = os.fork()
    except OSError:
        channel.close_all(ends)
        streams.close()
        raise
    if not pid:
        _be_visit(disk, ends)
    channel.close_all(ends)
    return pid, streams


def _be_visit(disk: int, ends: tuple[int, int, int]) -> NoReturn:
    try:
        stages.reset_signals()
        os.setsid()
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
        os.umask(0)
        os.dup2(ends[0], 0)
        os.dup2(ends[1], 1)
        os.dup2(disk, 2)
        syscalls.close_range(3)
        serve.serve(Line(0, 1), serve.View(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), _bare, lambda: _trees(2)))
    finally:
        os._exit(0)


def _bare() -> int:
    """The root file system, without what is mounted in it."""
    return os.open(".", FOLDER, dir_fd=mounts.clone_tree(syscalls.AT_FDCWD, "/"))


def _trees(disk: int) -> Trees:
    upper, lower = (os.path.relpath(path, early.DISK) for path in (f"{early.UPPER}/{early.IMAGE}", f"{early.LOWER}/{early.IMAGE}"))
    try:
        image = os.open(lower, FOLDER, dir_fd=disk)
    except FileNotFoundError:
        image = os.open(os.path.dirname(lower), FOLDER, dir_fd=disk)
    return Trees(os.open(upper, FOLDER, dir_fd=disk), image, _bare())
