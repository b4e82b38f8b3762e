"""Starts the images room's worker processes and tells how they ended.

Work that is heavy (inflating, hashing, ten thousand files) is done by a process of its own: bothyd's event loop shares the
interpreter lock with its threads, and a worker can be put where a stranger's archive can do no harm.
The interpreter is started bare (-I -S, about 12 ms) and is told where bothy and the two compression libraries are.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import IO, Any, BinaryIO

from bothy.errors import BothyError, Broken, Invalid, Unavailable

_BOOT = "import sys; sys.path[:0] = {paths!r}; from bothy.images.worker import main; main()"
STDERR_SHOWN = 2000


@functools.cache
def _boot() -> str:
    paths: list[str] = []
    for package in ("bothy", "zstandard", "isal"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise Broken(f"python package {package} is not installed")
        folder = os.path.dirname(os.path.dirname(os.path.abspath(spec.origin)))
        if folder not in paths:
            paths.append(folder)
    return _BOOT.format(paths=paths)


def run(
    op: str, job: dict[str, Any], *, fds: Sequence[int] = (), what: str, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Do one job in a worker and return its result. `what` names the job in messages; `fds` are inherited.

    Raises Invalid (the input is bad), Unavailable (no space left), Broken (anything else). The worker is gone by then.
    """
    message = json.dumps({"op": op, "parent": os.getpid(), **job})
    argv = [sys.executable, "-I", "-S", "-c", _boot()]
    result: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, pass_fds=tuple(fds), cwd="/", text=True
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            _tell(child.stdin, message)
            for line in child.stdout:
                said = json.loads(line)
                if progress is not None and "progress" in said:
                    progress(said["progress"])
                result.update(said)
            child.wait()
            stderr = _tail(log)
        except BaseException:
            child.kill()
            raise
    if "error" in result:
        raise _exception(result["error"], what)
    if child.returncode != 0:
        told = stderr or f"worker ended with status {child.returncode}"
        raise Broken(f"{what}: {told}")
    answer: dict[str, Any] = result.get("result", {})
    return answer


def _tell(stdin: IO[str], message: str) -> None:
    """Give a worker its job. One that is dead already tells why by its status."""
    try:
        stdin.write(message)
        stdin.close()
    except BrokenPipeError:
        pass


def _tail(log: BinaryIO) -> str:
    """The end of what a worker wrote to its stderr."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - STDERR_SHOWN))
    return log.read().decode(errors="replace").strip()


def _exception(error: dict[str, Any], what: str) -> BothyError:
    message = f"{what}: {error['message']}"
    if error["kind"] == "full":
        hint = "free some space, or see `bothy system df`"
        return Unavailable(f"{what}: no space left on the device", hint=hint, errno=error["errno"])
    if error["kind"] == "invalid":
        return Invalid(message, errno=error["errno"])
    return Broken(message, errno=error["errno"])
