"""A visit at work: one request, answered over the line. The process is in the workload's root by now, and has no other rights.

Everything is imported before: there is no library in the workload's root.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable
from dataclasses import dataclass

from bothy.containers import users
from bothy.containers.visits import changes, model, paths
from bothy.containers.visits.changes import Trees
from bothy.containers.visits.model import Request
from bothy.containers.visits.wire import BrokenOff, Line
from bothy.errors import StageError, failure_of
from bothy.jsonable import PLAIN
from bothy.linux import mounts
from bothy.oci.runtime import User
from bothy.tar.headers import Damaged
from bothy.tar.pack import FOLDER, Archiver
from bothy.tar.stream import Chunks
from bothy.tar.unpack import Extractor, Owners


@dataclass(frozen=True)
class View:
    """What a visit has before it: descriptors of folders, opened when they are asked for. `root` is its root; `bare` the same
    without what is mounted in it."""

    root: int
    bare: Callable[[], int]
    trees: Callable[[], Trees]


class InRoot:
    """The folders of an archive below a real path; links that are on the way are followed, inside the root.

    `bothy.tar.unpack.Places`.
    """

    def __init__(self, root: int, target: str) -> None:
        self._root = root
        self._target = target.rstrip("/")

    def folder(self, path: bytes) -> int:
        """Raises OSError."""
        made = mounts.make_folder(self._root, f"{self._target}/{os.fsdecode(path)}")
        try:
            return os.open(".", FOLDER, dir_fd=made)
        finally:
            os.close(made)


def serve(line: Line, view: View) -> None:
    """Do what the next message asks for. Everything that fails is told, but for an engine that has gone."""
    try:
        _do(line, view, PLAIN.from_data(Request, line.message()))
    except BrokenOff:
        return
    except Exception as exc:
        try:
            line.say(error=failure(exc))
        except OSError:
            return


def failure(exc: BaseException) -> dict[str, str | int]:
    """How a failure is told; `stage` archive is the archive's own fault."""
    if isinstance(exc, Damaged):
        return failure_of(StageError("archive", str(exc)), "archive")
    return failure_of(exc, "visit")


def _do(line: Line, view: View, request: Request) -> None:
    if request.op in (model.STAT, model.GET):
        path = paths.clean(request.path)
        line.say(ok=paths.told(path, paths.status_of(view.root, path)))
        if request.op == model.GET:
            _get(line, view.root, path, request)
    elif request.op == model.PUT:
        _put(line, view.root, request)
    elif request.op == model.EXPORT:
        line.say(ok={})
        line.send(Archiver().tree(view.bare(), ".", b"", whole=False))
    elif request.op in (model.CHANGES, model.LAYER):
        trees = view.trees()
        found = changes.compare(trees, frozenset(request.own))
        line.say(ok={"changes": len(found)})
        if request.op == model.CHANGES:
            changes.tell(line, found)
        else:
            line.send(changes.layer(trees, found))
    else:
        raise StageError("visit", f"unknown request {request.op!r}")
    line.say(end={})


def _get(line: Line, root: int, path: str, request: Request) -> None:
    """Docker's rules for names: a folder's entries begin with the last part of the path, which is `.` if it ends in `/.`."""
    folder, name = paths.parent_and_name(root, path)
    skipped = set()
    for place in request.skipped:
        try:
            status = paths.status_of(root, place)
        except OSError:
            continue
        skipped.add((status.st_dev, status.st_ino))
    shown = b"." if path.endswith("/.") else os.fsencode(posixpath.basename(path.rstrip("/")))
    line.send(Archiver(frozenset(skipped)).tree(folder, name or ".", os.fsencode(request.shown) or shown or b"/"))


def _put(line: Line, root: int, request: Request) -> None:
    path = paths.clean(request.path)
    target = mounts.open_in_root(root, path, os.O_PATH)
    if not stat.S_ISDIR(os.fstat(target).st_mode):
        raise StageError("target", "extraction point is not a directory", path=path)
    real = paths.follow(path)
    if os.fstatvfs(target).f_flag & os.ST_RDONLY:
        raise StageError("readonly", "the file system is read-only", path=real)
    os.close(target)
    owner: tuple[int, int] | Owners = Owners.KEPT
    if request.user:
        who = users.identity(root, User(username=request.user))
        owner = who.uid, who.gid
    extractor = Extractor(Chunks(line.incoming()), InRoot(root, real), strict=request.strict, owner=owner)
    line.say(ok={})
    extractor.run()
