"""The jobs of the worker that work on one layer or one file. Each takes the job (JSON data) and returns its result (JSON data).

Raises Damaged, OSError or ValueError; `bothy.images.worker` tells them to the parent.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

from bothy.images import recipe as recipes
from bothy.images.streams import CHUNK, Section, Stream, decompressed
from bothy.images.unpack import Unpacker, enclose
from bothy.linux import syscalls


def unpack(job: dict[str, Any]) -> dict[str, Any]:
    """Apply the layer in section (`offset`, `size`) of file `fd` to `folder`, writing its recipe to `recipe`.

    The result has `diff_id`, `digest` (of the bytes as they came), `size` of the files, `tar_size`, `entries`, `spoiled`,
    `opaque_root`.
    """
    with open(job["recipe"], "wb") as out:
        enclose(job["folder"])
        section = Section(job["fd"], job["offset"], job["size"], hashed=job["hashed"])
        stream = Stream(section)
        recipe = recipes.Writer(out)
        unpacker = Unpacker(stream, recipe, inline=job["inline"])
        try:
            unpacker.run()
        except OSError as exc:
            exc.filename = exc.filename if isinstance(exc.filename, (str, bytes)) else unpacker.current
            raise
        recipe.close()
        out.flush()
        diff_id, digest = stream.finish()
    return {
        "diff_id": diff_id,
        "digest": digest,
        "size": unpacker.size,
        "tar_size": stream.size,
        "entries": unpacker.entries,
        "spoiled": unpacker.spoiled,
        "opaque_root": unpacker.opaque_root,
    }


def spool(job: dict[str, Any]) -> dict[str, Any]:
    """Write what `fd` holds, decompressed, to the file `out`. The result has `size`."""
    size = 0
    source = decompressed(Section(job["fd"]))
    with open(job["out"], "wb", buffering=0) as out:
        while data := source.read(CHUNK):
            size += len(data)
            view = memoryview(data)
            while view:
                view = view[out.write(view) :]
    return {"size": size}


def disk(job: dict[str, Any]) -> NoReturn:
    """Become mkfs.erofs (`argv`) over the merged `lowers` (topmost first), in a mount namespace of its own; never returns.

    It becomes it by exec, so that it dies with the daemon too.
    """
    lowers: list[str] = job["lowers"]
    os.chdir(job["store"])
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    root = job["mountpoint"]
    if len(lowers) == 1:
        syscalls.mount(lowers[0], root, None, syscalls.MS_BIND)
    else:
        # relative names: with many layers the option string would not fit the page that mount(2) takes
        syscalls.mount("overlay", root, "overlay", syscalls.MS_RDONLY, "lowerdir=" + ":".join(lowers))
    os.dup2(2, 1)
    os.execvp(job["argv"][0], job["argv"])
