"""volume cp: files between this machine and a volume, either way, and from volume to volume. The rules are those of `cp`."""

from __future__ import annotations

from bothy.cli import cp
from bothy.cli.context import Context
from bothy.cli.errors import Failure, UsageError
from bothy.cli.flags import Command, Values


def copy(context: Context, flags: Values) -> int:
    """Copy one way, the other way, or across."""
    source, target = flags.args
    if not source or not target:
        raise UsageError("source can not be empty" if not source else "destination can not be empty", "volume cp", code=1)
    (source_name, source_path), (target_name, target_path) = cp.divided(source), cp.divided(target)
    if source_name and target_name:
        _across(context, cp.VolumeName(source_name), source_path or "/", cp.VolumeName(target_name), target_path or "/")
    elif source_name:
        cp.copy_out(context, flags, cp.VolumeName(source_name), source_path, target)
    elif target_name:
        cp.copy_in(context, flags, source, cp.VolumeName(target_name), target_path)
    else:
        raise UsageError("one of the two must be in a volume", "volume cp", "VOLUME:PATH is", code=1)
    return 0


def _across(context: Context, source: cp.VolumeName, path: str, target: cp.VolumeName, wanted: str) -> None:
    """The archive that comes out of one goes into the other, as it comes."""
    is_folder = bool(cp.status_of(context, source, path)["mode"] & cp.DIR)
    there, in_folder, wanted = cp.target_of(context, target, wanted)
    shown = ""
    if not in_folder:
        if there and is_folder:
            raise Failure("cannot copy directory", hint=f"{target}:{wanted} is a file")
        if not there and not is_folder and wanted.endswith(("/", "/.")):
            raise Failure(f"no such directory: {target}:{wanted}")
        shown, wanted = cp.last_part(wanted), cp.parent_of(wanted)
    elif path.strip("/") in ("", "."):
        path = "/."  # a volume has no name of its own in itself: what is in it
    response = cp.get(context, source, path, shown)
    try:
        context.client.request("PUT", cp.place(target), {"path": wanted, "noOverwriteDirNonDir": True}, response.chunks()).read()
    finally:
        response.close()


COMMANDS = {
    "volume cp": Command(
        "volume cp",
        "Copy files between a volume and this machine, or another volume",
        copy,
        arguments="VOLUME:PATH DEST|-  or  SOURCE|- VOLUME:PATH  or  VOLUME:PATH VOLUME:PATH",
        least=2,
        most=2,
        flags=cp.FLAGS,
        dynamic="volumes",
        notes="Workloads may have the volume meanwhile, or none. Links in a volume never lead out of it. A path that ends in /. "
        "means what is in the folder. With - a tar archive is read from stdin or written to stdout. From volume to "
        "volume all is kept, also without --archive.",
        examples=(
            ("bothy volume cp site/. web:/", "Fill a volume"),
            ("bothy volume cp data:/ - | zstd > data.tar.zst", "A backup"),
            ("bothy volume cp old:/. new:/", "Everything in one volume to another, for instance to one with a quota"),
        ),
    ),
}
