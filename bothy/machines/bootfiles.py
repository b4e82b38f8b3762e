"""What machines boot from, made once and kept: the kernel as an ELF file, and the initramfs.

    <root>/machines/boot/
    ├── current.json            which of them is current, and what it was made from: (path, size, mtime) of every file
    └── <digest>/               vmlinux (or bzImage), initramfs

`ensure` looks at the files that current.json names (a hundred stats, about a millisecond); only if one has changed are the boot
files made anew. A change gives another digest, and so other templates; the folder of an old digest goes with `prune`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bothy.errors import Broken
from bothy.machines import initramfs, kernel
from bothy.paths import Paths

_CURRENT = "current.json"


@dataclass(frozen=True)
class BootFiles:
    """`digest` stands for the content of both."""

    digest: str
    version: str
    kernel: Path
    initramfs: Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` (flock(2): it goes with the process, whatever becomes of it)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def ensure(paths: Paths, progress: Callable[[str], None] = lambda _: None) -> BootFiles:
    """The current boot files, made if need be. Raises Unavailable (no kernel), Broken, OSError; then nothing has changed."""
    folder = paths.machines / "boot"
    found = current(folder)
    if found is None:
        with locked(folder / ".lock"):
            found = current(folder)
            if found is None:
                progress("preparing the machines' kernel")
                found = _make(paths, folder)
    return found


def current(folder: Path) -> BootFiles | None:
    """The boot files that were made last, if nothing that they were made from has changed."""
    try:
        said = json.loads((folder / _CURRENT).read_bytes())
        found = BootFiles(
            said["digest"], said["version"], folder / said["digest"] / said["kernel"], folder / said["digest"] / "initramfs"
        )
        if all(_stamp(path) == stamp for path, *stamp in said["inputs"]) and found.kernel.exists() and found.initramfs.exists():
            return found
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return None


def prune(paths: Paths) -> None:
    """Remove boot files that are not current any more."""
    folder = paths.machines / "boot"
    with locked(folder / ".lock"):
        found = current(folder)
        for entry in folder.iterdir():
            if entry.is_dir() and (found is None or entry.name != found.digest):
                shutil.rmtree(entry, ignore_errors=True)


def _stamp(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def _make(paths: Paths, folder: Path) -> BootFiles:
    chosen = kernel.find(paths)
    image = chosen.image.read_bytes()
    elf = kernel.elf_of(image)
    name = "vmlinux" if elf and kernel.has_pvh_note(elf) else "bzImage"
    archive = initramfs.build(chosen)
    # Of the inputs, not of the archive: bytecode of the same source may differ from one compilation to the next.
    digest = _digest([chosen.image, *archive.inputs])
    files = {name: elf if elf and name == "vmlinux" else image, "initramfs": archive.data}
    _put(folder, digest, files)
    inputs = [
        chosen.image,
        *archive.inputs,
        *(place for place in (paths.machines / "kernels", kernel.SHARED, Path("/boot")) if place.is_dir()),
    ]
    said = {"digest": digest, "version": chosen.version, "kernel": name, "inputs": [[str(p), *_stamp(str(p))] for p in inputs]}
    _write(folder / _CURRENT, json.dumps(said).encode())
    found = current(folder)
    if found is None:
        raise Broken("the machines' boot files changed while they were made", hint="try again")
    return found


def _digest(inputs: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in inputs:
        data = path.read_bytes()
        total.update(f"{path.name} {len(data)}\n".encode() + data)
    return total.hexdigest()[:16]


def _put(folder: Path, digest: str, files: dict[str, bytes]) -> None:
    """The folder of a digest: whole or not at all."""
    target = folder / digest
    if all((target / name).exists() for name in files):
        return
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as temporary:
        unfinished = Path(temporary, "new")
        unfinished.mkdir()
        for name, data in files.items():
            _write(unfinished / name, data)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(unfinished, target)


def _write(path: Path, data: bytes) -> None:
    unfinished = path.with_name(path.name + ".part")
    with open(unfinished, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, path)
