"""The folder of all volumes: what is in it appears and vanishes by one rename, so that a crash leaves nothing half made.

<root>/volumes/                     0701: only root may list it
├── <name>/volume.json              what inspect tells; the volume exists when this does
├── <name>/_data/                   what workloads see (id 0 in a workload is id 0 here, by idmapped mounts)
├── <name>/disk.ext4                with a quota: the image that is mounted at _data while it is used
├── <name>/snapshots/<snapshot>/    snapshot.json, and a copy of _data/ or disk.ext4
├── .new-…/                         being made: renamed into place when whole
└── .gone-…/                        being removed; both are cleaned up at the next start (`sweep`)
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bothy.jsonable import PLAIN
from bothy.log import logger
from bothy.volumes import mounted

_log = logger("volumes")
_NEW, _GONE = ".new-", ".gone-"


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """What may be volumes."""
        return [name for name in folders(self.path) if not name.startswith(".")]

    @contextlib.contextmanager
    def aside(self) -> Iterator[Path]:
        """A new folder to make something in; what has not been renamed out of it is gone afterwards. Raises OSError."""
        self.path.mkdir(mode=0o701, parents=True, exist_ok=True)
        new = self.path / f"{_NEW}{secrets.token_hex(8)}"
        new.mkdir(mode=0o701)
        try:
            yield new
        finally:
            delete(new)

    def discard(self, path: Path) -> Path | None:
        """Take something out of sight, at once; the path to `delete`, None if it was gone already."""
        gone = self.path / f"{_GONE}{secrets.token_hex(8)}"
        try:
            path.rename(gone)
        except FileNotFoundError:
            return None
        return gone

    def sweep(self) -> None:
        """Remove what a crash left half made or half removed. To be called when nothing else is going on, at start."""
        for name in folders(self.path):
            if name.startswith((_NEW, _GONE)):
                delete(self.path / name)


def delete(folder: Path) -> None:
    """Remove a folder with all that is in it, but nothing that is mounted there. What can not be removed is logged."""
    if not os.path.lexists(folder):
        return
    if not mounted.unmount_below(str(folder)):
        return
    try:
        shutil.rmtree(folder)
    except RecursionError:  # folders in folders, as deep as a path can be
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(folder)], check=False, capture_output=True)
    except OSError as exc:
        _log.error("%s can not be removed: %s", folder, exc)


def make_data(folder: Path) -> None:
    """The empty folder that workloads see."""
    folder.mkdir(mode=0o755)
    os.chmod(folder, 0o755)  # whatever the umask


def write(path: Path, value: Any) -> None:
    """A dataclass as a JSON file, in one piece."""
    new = path.with_name(f"{path.name}.new")
    with open(new, "w", encoding="utf-8") as file:
        json.dump(PLAIN.to_data(value), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def folders(path: Path) -> list[str]:
    """The names of the folders in a folder, sorted; none where there is no such folder."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
