"""cp: files between this machine and a container or machine, either way, by Docker's rules.

    source a folder, DEST there (a folder)     DEST/source/…            source a file, DEST a folder      DEST/source
    source a folder, DEST not there            DEST/… is the folder     source a file, DEST not there     DEST is the file
    source ends in /.                          its contents, not itself source a file, DEST a file        replaced

The archive that comes out was written by whatever runs in there. So it is unpacked one name at a time below an open folder, never
through a link; and unless -a asks for it, nothing in it gives anybody rights here. Source of the rules: moby/go-archive copy.go.
"""

from __future__ import annotations

import binascii
import os
import stat

from bothy import errors, quickjson
from bothy.cli.context import Context, path_part
from bothy.cli.errors import Failure, UsageError
from bothy.cli.flags import Command, Values
from bothy.cli.terminal import is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from bothy.api.client import Response
    from bothy.cli.progress import Teller

STAT = "x-docker-container-path-stat"
CHUNK = 256 * 1024
DIR, _TYPES = 1 << 31, 0x8F280000  # of Go's os.FileMode
_SYMLINK = 1 << 27


def cp(context: Context, flags: Values) -> int:
    """Copy one way or the other."""
    source, target = flags.args
    if not source or not target:
        raise UsageError("source can not be empty" if not source else "destination can not be empty", "cp", code=1)
    (source_name, source_path), (target_name, target_path) = divided(source), divided(target)
    if source_name and target_name:
        raise Failure("copying between containers is not supported", hint=f"bothy cp {source} - | bothy cp - {target}")
    if source_name:
        copy_out(context, flags, source_name, source_path, target)
    elif target_name:
        copy_in(context, flags, source, target_name, target_path)
    else:
        raise UsageError("must specify at least one container source", "cp", "CONTAINER:PATH is one", code=1)
    return 0


def divided(text: str) -> tuple[str, str]:
    """CONTAINER:PATH as a pair; the name is empty for a path of this machine (one with a colon in it needs ./ in front)."""
    name, colon, path = text.partition(":")
    return (name, path) if colon and not text.startswith(("/", ".")) else ("", text)


# Out


def copy_out(context: Context, flags: Values, name: str, path: str, target: str) -> None:
    renamed = ""
    if flags.on("follow-link"):
        try:
            status = status_of(context, name, path)
        except errors.BothyError:
            status = {"mode": 0}  # the next request tells why
        if status["mode"] & _SYMLINK:
            path, renamed = followed(path, str(status["linkTarget"]))
    if target == "-":
        if is_terminal(1):
            raise Failure("stdout is a terminal, an archive does not belong there", hint="send it on: … - | tar x")
        from bothy.cli.streams import write

        for piece in get(context, name, path).chunks():
            write(1, piece)
        return
    _check_local(target)
    response = get(context, name, path)
    try:
        is_folder = bool(_described(response)["mode"] & DIR)
        folder, rename = destination(target, last_part(path), is_folder=is_folder, renamed=renamed)
        _unpack(flags, response, folder, rename, f"from {name}:{path}")
    finally:
        response.close()


def _unpack(flags: Values, response: Response, folder: str, rename: tuple[str, str] | None, what: str) -> None:
    from bothy.cli.progress import Teller
    from bothy.tar.headers import Damaged
    from bothy.tar.stream import Chunks
    from bothy.tar.unpack import Extractor, Owners

    names = (os.fsencode(rename[0]), os.fsencode(rename[1])) if rename else None
    owner = Owners.KEPT if flags.on("archive") and not os.geteuid() else Owners.OURS
    former = os.umask(0)
    try:
        with Teller() as teller:
            pieces = counted(response.chunks(), None if flags.on("quiet") else teller, what)
            Extractor(Chunks(pieces), Below(folder), strict=True, owner=owner, renamed=names).run()
    except Damaged as exc:
        raise Failure(f"{what}: {exc}") from None
    except errors.StageError as exc:
        raise Failure(exc.message) from None
    except OSError as exc:
        name = os.fsdecode(exc.filename) if isinstance(exc.filename, (str, bytes)) else folder
        raise Failure(f"can not write {name!r}: {exc.strerror}") from None
    finally:
        os.umask(former)


class Below:
    """The folders of an archive below one of ours, into which no link leads. `bothy.tar.unpack.Places`."""

    def __init__(self, target: str) -> None:
        self._target = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def folder(self, path: bytes) -> int:
        """Raises OSError; a link in the way is NotADirectoryError."""
        here = os.dup(self._target)
        for part in path.split(b"/") if path else ():
            try:
                try:
                    below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                except FileNotFoundError:
                    os.mkdir(part, 0o755, dir_fd=here)
                    below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            finally:
                os.close(here)
            here = below
        return here


def _check_local(target: str) -> None:
    """Raises Failure for a place where nothing can be put."""
    parent = os.path.dirname(os.path.abspath(target.rstrip("/") or "/"))
    if not os.path.isdir(parent):
        raise Failure(f"invalid output path: directory {parent!r} does not exist")
    if os.path.exists(target) and not (os.path.isdir(target) or os.path.isfile(target)):
        raise Failure(f"invalid output path: {target!r} must be a directory or a regular file")


def destination(target: str, base: str, *, is_folder: bool, renamed: str) -> tuple[str, tuple[str, str] | None]:
    """The folder of ours to unpack in, and how the first part of names (`base`) is to be changed. Raises Failure."""
    here = os.path.realpath(target)
    if os.path.isdir(here):
        return here, (base, renamed) if renamed else None
    new = last_part(here)
    if os.path.lexists(here) and is_folder:
        raise Failure("cannot copy directory", hint=f"{target!r} is a file")
    if not is_folder and not os.path.lexists(here) and target.endswith(("/", "/.")):
        raise Failure(f"no such directory: {target!r}")
    parent = os.path.dirname(here)
    if not os.path.isdir(parent):
        raise Failure(f"no such directory: {parent!r}")
    return parent, ("" if base in (".", "/") else base, new)


# In


def copy_in(context: Context, flags: Values, source: str, name: str, path: str) -> None:
    there, is_folder, path = target_of(context, name, path or "/")
    if source == "-":
        if not is_folder:
            raise Failure(f'destination "{name}:{path}" must be a directory')
        if is_terminal(0):
            raise Failure("stdin is a terminal, an archive is expected there", hint="send one: tar c … | bothy cp - …")
        _put(context, flags, name, path, _read(0))
        return
    source, renamed = _local_source(source, follow=flags.on("follow-link"))
    try:
        status = os.lstat(source)
    except OSError as exc:
        raise Failure(f"can not read {source!r}: {exc.strerror}") from None
    source_is_folder = stat.S_ISDIR(status.st_mode)
    base = renamed or last_part(source)
    if not is_folder:
        if there and source_is_folder:
            raise Failure("cannot copy directory", hint=f"{name}:{path} is a file")
        if not there and not source_is_folder and path.endswith(("/", "/.")):
            raise Failure(f"no such directory: {name}:{path}")
        base = last_part(path)
        path = parent_of(path)
    _put(context, flags, name, path, _packed(flags, source, base))


def target_of(context: Context, name: str, path: str) -> tuple[bool, bool, str]:
    """Whether something is at the path in the workload, whether that is a folder, and the path with a link there followed."""
    try:
        status = status_of(context, name, path)
        if status["mode"] & _SYMLINK:
            path = str(status["linkTarget"])
            status = status_of(context, name, path)
    except errors.NotFound as exc:
        if exc.message.startswith(("No such container", "get ")):
            raise
        return False, False, path
    kind = int(status["mode"]) & _TYPES
    if kind not in (0, DIR):
        raise Failure(f'destination "{name}:{path}" must be a directory or a regular file')
    return True, kind == DIR, path


def _local_source(path: str, *, follow: bool) -> tuple[str, str]:
    """The path with links before its last part followed, with `follow` the last one too; and the name it shall have then."""
    if path.endswith(("/", "/.")) or follow:
        real = os.path.realpath(path)
        base = os.path.basename(path.rstrip("/"))
        renamed = base if base not in (".", "..", "") and os.path.basename(real) != base else ""
        return (real + "/." if path.endswith("/.") else real), renamed
    folder, base = os.path.split(path)
    return os.path.join(os.path.realpath(folder), base), ""


def _packed(flags: Values, source: str, shown: str) -> Iterator[bytes]:
    """The tar of a file or folder of ours, called `shown` in it. Without -a all of it is root's. Raises Failure."""
    from bothy.tar.pack import TRAILER, Archiver, Piece

    parent, base = os.path.split(source)
    try:
        folder = os.open(parent or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        archiver = Archiver(owner=None if flags.on("archive") else (0, 0))
        for part in archiver.tree(folder, base or ".", os.fsencode(shown)):
            if isinstance(part, Piece):
                yield from _file(*part)
            else:
                yield part
    except OSError as exc:
        name = exc.filename if isinstance(exc.filename, str) else source
        raise Failure(f"can not read {name!r}: {exc.strerror}") from None
    except errors.StageError as exc:
        raise Failure(f"can not read {source!r}: {exc.message}") from None
    yield TRAILER


def _file(fd: int, at: int, size: int) -> Iterator[bytes]:
    """A piece of a file; zeros for what is not there any more."""
    while size:
        data = os.pread(fd, min(size, CHUNK), at) or bytes(min(size, CHUNK))
        yield data
        at, size = at + len(data), size - len(data)


def _put(context: Context, flags: Values, name: str, path: str, pieces: Iterable[bytes]) -> None:
    from bothy.cli.progress import Teller

    query = {"path": path, "noOverwriteDirNonDir": True}
    with Teller() as teller:
        body = counted(pieces, None if flags.on("quiet") else teller, f"to {name}:{path}")
        context.client.request("PUT", place(name), query, body).read()


# Both


class VolumeName(str):
    """A volume's name, where a workload's may stand too."""

    __slots__ = ()


def place(name: str) -> str:
    """Where the engine has archives of a workload, or of a volume."""
    return f"/{'bothy/volumes' if isinstance(name, VolumeName) else 'containers'}/{path_part(name)}/archive"


def get(context: Context, name: str, path: str, shown: str = "") -> Response:
    """The archive of what is at a path; in it that is called `shown`, if not empty. Raises BothyError."""
    return context.client.request("GET", place(name), {"path": path or "/", "as": shown or None})


def status_of(context: Context, name: str, path: str) -> dict[str, Any]:
    """What is at a path in a workload. Raises BothyError."""
    try:
        return _described(context.client.request("HEAD", place(name), {"path": path or "/"}))
    except errors.NotFound:
        # An answer without a body does not say what was not found.
        is_volume = isinstance(name, VolumeName)
        context.get(f"/volumes/{path_part(name)}" if is_volume else f"/containers/{path_part(name)}/json")
        raise


def _described(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = quickjson.loads(binascii.a2b_base64(response.headers[STAT]))
    return found


def _read(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, CHUNK):
        yield piece


def counted(pieces: Iterable[bytes], teller: Teller | None, what: str) -> Iterator[bytes]:
    """The pieces; on a terminal it is told how much has passed, once that takes more than a second."""
    from bothy.cli.human import size

    total = 0
    for piece in pieces:
        yield piece
        total += len(piece)
        if teller is not None and teller.is_live:
            teller.tell(f"copying {what}: {size(total)}")


def last_part(path: str) -> str:
    """The last part of a path; `.` for one that ends in `/.`, `/` for the root."""
    if os.path.basename(path) == ".":
        return "."
    return os.path.basename(os.path.normpath("/" + path)) or "/"


def parent_of(path: str) -> str:
    """The folder that a path's last part is in."""
    return os.path.dirname(os.path.normpath("/" + path.lstrip("/"))) or "/"


def followed(path: str, target: str) -> tuple[str, str]:
    """What a link in a workload leads to, with the end that its path has; and the name that is to be kept, if it is another."""
    new = target
    if os.path.basename(path) == "." and os.path.basename(target) != ".":
        new = target.rstrip("/") + "/."
    base = os.path.basename(path.rstrip("/"))
    return new, base if base not in (".", os.path.basename(target)) else ""


FLAGS = (
    ("archive", "a", "bool", "", "Keep owners, and what gives rights (set-id bits, capabilities, devices)"),
    ("follow-link", "L", "bool", "", "Copy what a link in SOURCE leads to"),
    ("quiet", "q", "bool", "", "Do not tell how it goes"),
)

COMMANDS = {
    "cp": Command(
        "cp",
        "Copy files between a container or machine and this one",
        cp,
        arguments="CONTAINER:PATH DEST|-  or  SOURCE|- CONTAINER:PATH",
        least=2,
        most=2,
        flags=FLAGS,
        dynamic="copies",
        notes="It need not run. A path that ends in /. means what is in the folder. With - a tar archive is read from stdin or "
        "written to stdout. A path of this machine with a colon in it is written with ./ in front.",
        examples=(
            ("bothy cp web:/etc/nginx .", "A folder out"),
            ("bothy cp site/. web:/usr/share/nginx/html", "The contents of a folder in"),
            ("bothy cp db:/var/lib/db - | gzip > db.tar.gz", "As an archive"),
        ),
    ),
}
