"""The jobs of the worker but `assemble`. Each takes the job (JSON data) and `say`, and returns its result (JSON data).

They raise what `bothy.images.failures` knows to tell the parent.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from bothy.images import recipe as recipes
from bothy.images.failures import Failed, attempt, died
from bothy.images.streams import CHUNK, Section, Stream, decompressed
from bothy.images.unpack import Unpacker, enclose
from bothy.linux import syscalls


def unpack(job: dict[str, Any], say: Callable[..., None]) -> dict[str, Any]:
    """Unpack each of `layers` in a child of its own, `at_once` at the same time. The result has `layers`, in the same order.

    Raises Failed with the first failure; the other children are gone then.
    """
    layers: list[dict[str, Any]] = job["layers"]
    results: list[dict[str, Any]] = [{} for _ in layers]
    children: dict[int, tuple[int, int]] = {}
    waiting = list(range(len(layers)))[::-1]
    done = 0
    try:
        while waiting or children:
            while waiting and len(children) < job["at_once"]:
                number = waiting.pop()
                pid, pipe = _fork(layers[number])
                children[pid] = (number, pipe)
            pid, status = os.wait()
            number, pipe = children.pop(pid)
            results[number] = _outcome(pipe, status)
            done += 1
            say(progress=f"{done} of {len(layers)} layers")
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)  # whoever gets our answer removes the folders they write to
    return {"layers": results}


def _fork(layer: dict[str, Any]) -> tuple[int, int]:
    """Start a child that unpacks a layer; returns its pid, and the pipe on which it tells what came of it. It dies with us."""
    ours, theirs = os.pipe()
    me = os.getpid()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return pid, ours
    status = 1
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == me:
            os.write(theirs, json.dumps(attempt(_unpack, layer)).encode())
            status = 0
    finally:
        os._exit(status)  # a reader thread may still wait for room in its queue; nobody waits for it


def _outcome(pipe: int, status: int) -> dict[str, Any]:
    """What a child that has ended told. Raises Failed."""
    with os.fdopen(pipe, "rb") as told:
        data = told.read()
    answer: dict[str, Any] = json.loads(data) if data else {"error": died(status)}
    if "error" in answer:
        raise Failed(answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


def _unpack(job: dict[str, Any]) -> dict[str, Any]:
    """Apply the layer in section (`offset`, `size`) of file `fd` to `folder`, writing its recipe to `recipe`.

    The result has `diff_id`, `digest` (of the bytes as they came), `size` of the files, `tar_size`, `entries`, `spoiled`,
    `opaque_root`. This process is only good for ending afterwards: its root is the layer.
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


def spool(job: dict[str, Any], say: Callable[..., None]) -> dict[str, Any]:
    """Write what `fd` holds, decompressed, to the file `out`. The result has `size`."""
    del say
    size = 0
    source = decompressed(Section(job["fd"]))
    with open(job["out"], "wb", buffering=0) as out:
        while data := source.read(CHUNK):
            size += len(data)
            view = memoryview(data)
            while view:
                view = view[out.write(view) :]
    return {"size": size}


def disk(job: dict[str, Any], say: Callable[..., None]) -> NoReturn:
    """Become mkfs.erofs (`argv`) over the merged `lowers` (topmost first), in a mount namespace of its own; never returns.

    It becomes it by exec, so that it dies with the daemon too.
    """
    del say
    lowers: list[str] = job["lowers"]
    os.chdir(job["store"])
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    # The tree is the only entry, `image`, of a root that is the same on every disk: machines count on it (bothy.machines.rootdisk).
    root = job["mountpoint"]
    syscalls.mount("disk", root, "tmpfs", 0, "mode=755,size=64k")
    image = f"{root}/image"
    os.mkdir(image, 0o755)
    os.utime(root, (1, 1))
    if len(lowers) == 1:
        syscalls.mount(lowers[0], image, None, syscalls.MS_BIND)
    elif lowers:
        # relative names: with many layers the option string would not fit the page that mount(2) takes
        syscalls.mount("overlay", image, "overlay", syscalls.MS_RDONLY, "lowerdir=" + ":".join(lowers))
    os.dup2(2, 1)
    os.execvp(job["argv"][0], job["argv"])
