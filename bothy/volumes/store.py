"""Local volumes: folders that outlive the workloads that use them.

    <root>/volumes/                     0701: only root may list it
    ├── <name>/volume.json              what inspect tells; the volume exists when this does
    ├── <name>/_data/                   what workloads see (id 0 in a workload is id 0 here, by idmapped mounts)
    ├── .new-…/                         being made: renamed into place when whole
    └── .gone-…/                        being removed; both are cleaned up at the next start (`sweep`)

A volume with the options `type=none,o=bind,device=FOLDER` is that folder of the host. Out of scope: other drivers, who uses a
volume (the engine tells), mounting it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bothy.errors import Broken, Conflict, Invalid, NotFound, Unsupported
from bothy.jsonable import PLAIN
from bothy.paths import Paths
from bothy.volumes import copyup
from bothy.volumes.model import ANONYMOUS, Volume

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
_META, _DATA = "volume.json", "_data"
VolumeList = list[Volume]


class Volumes:
    """The volumes of one engine. Calls are cheap, but for those that say otherwise; safe to use from several threads."""

    def __init__(self, paths: Paths) -> None:
        self._folder = paths.volumes

    def sweep(self) -> None:
        """Remove what a crash left half made or half removed. To be called when nothing else is going on, at start."""
        for entry in self._entries():
            if entry.name.startswith((".new-", ".gone-")):
                shutil.rmtree(entry.path, ignore_errors=True)

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or return the one of that name (a volume of a given name is one volume, as in Docker).

        Without a name it gets one of 64 hex digits and the label of anonymous volumes. Raises Invalid (name, options), NotFound
        (driver), Unsupported, Conflict (the name is taken by a volume with other options).
        """
        if driver not in ("", "local"):
            raise NotFound(f"volume driver {driver} not found", hint="local is the only one")
        wanted = dict(labels or {})
        if not name:
            name = secrets.token_hex(32)
            wanted[ANONYMOUS] = ""
        _check_name(name)
        device = _device(options or {})
        try:
            return self._same(self.get(name), options or {})
        except NotFound:
            pass
        volume = Volume(
            name=name,
            mountpoint=device or str(self._folder / name / _DATA),
            created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            labels=wanted,
            options=dict(options or {}),
        )
        try:
            self._write(volume)
        except FileExistsError:  # somebody was quicker
            return self._same(self.get(name), options or {})
        return volume

    def get(self, name: str) -> Volume:
        """The volume of that name. Raises NotFound, Broken (its file is damaged)."""
        if not _NAME.fullmatch(name):
            raise NotFound(f"no such volume: {name}")
        path = self._folder / name / _META
        try:
            return PLAIN.loads(Volume, path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"no such volume: {name}", hint="bothy volume ls lists them") from None
        except ValueError as exc:
            raise Broken(f"{path} is damaged: {exc}", hint=f"its data is in {path.parent / _DATA}") from exc

    def list(self) -> VolumeList:
        """All volumes by name; one whose file is damaged is left out (`get` tells)."""
        found = []
        for entry in self._entries():
            try:
                found.append(self.get(entry.name))
            except (NotFound, Broken):
                continue
        return sorted(found, key=lambda volume: volume.name)

    def remove(self, name: str, users: Collection[str] = (), *, force: bool = False) -> None:
        """Remove a volume and its data; the folder of a bind volume stays. Takes as long as there is data.

        Raises NotFound (unless `force`), Conflict while `users` (ids of workloads) have it.
        """
        try:
            self.get(name)
        except NotFound:
            if force:
                return
            raise
        except Broken:
            pass
        if users:
            raise Conflict(
                f"volume {name} is in use by {', '.join(sorted(u[:12] for u in users))}", hint="remove these workloads first"
            )
        gone = self._folder / f".gone-{secrets.token_hex(8)}"
        try:
            (self._folder / name).rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    def prune(self, used: Collection[str], *, named: bool = False) -> tuple[Sequence[str], int]:
        """Remove the anonymous volumes (with `named` all) that are not `used` (names). Returns their names and the bytes freed."""
        removed, freed = [], 0
        for volume in self.list():
            if volume.name not in used and (named or volume.anonymous):
                freed += self.usage(volume.name)
                self.remove(volume.name, force=True)
                removed.append(volume.name)
        return removed, freed

    def usage(self, name: str) -> int:
        """The bytes that a volume's data takes on disk; 0 for a bind volume. Takes as long as there are files."""
        return _bytes_below(self._folder / name / _DATA)

    def copy_up(self, name: str, layers: Sequence[Path], destination: str) -> bool:
        """Fill a volume that is empty with what an image has at `destination` (topmost layer first). True if there was something.

        Takes as long as there is to copy; runs in a thread of its own. After a failure the volume is empty again. Raises OSError.
        """
        volume = self.get(name)
        if volume.options:
            return False
        return copyup.copy_up([str(layer) for layer in layers], destination, volume.mountpoint)

    def _same(self, volume: Volume, options: Mapping[str, str]) -> Volume:
        if options and dict(options) != volume.options:
            raise Conflict(f"volume {volume.name} exists with other options", hint="remove it first, or choose another name")
        return volume

    def _entries(self) -> Sequence[os.DirEntry[str]]:
        try:
            with os.scandir(self._folder) as entries:
                return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def _write(self, volume: Volume) -> None:
        """Make the volume's folder aside and rename it into place. FileExistsError if there is one."""
        self._folder.mkdir(mode=0o701, parents=True, exist_ok=True)
        new = self._folder / f".new-{secrets.token_hex(8)}"
        new.mkdir(mode=0o701)
        try:
            (new / _DATA).mkdir(mode=0o755)
            os.chmod(new / _DATA, 0o755)  # whatever the umask
            with open(new / _META, "w", encoding="utf-8") as file:
                json.dump(PLAIN.to_data(volume), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            try:
                new.rename(self._folder / volume.name)
            except OSError:  # ENOTEMPTY, EEXIST
                raise FileExistsError(volume.name) from None
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise


def _check_name(name: str) -> None:
    if len(name) < 2:
        raise Invalid(
            f"volume name {name!r} is too short", hint="two characters at least; for a folder of the host give an absolute path"
        )
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"{name!r} is not a volume name",
            hint="letters, digits, _ . and - only; for a folder of the host give an absolute path",
        )


def _device(options: Mapping[str, str]) -> str:
    """The folder of the host that a bind volume is; empty for a plain one."""
    unknown = set(options) - {"type", "o", "device"}
    if unknown:
        raise Invalid(f"unknown volume option {', '.join(sorted(unknown))}", hint="type, o and device are known")
    if not options:
        return ""
    words = options.get("o", "").split(",")
    if options.get("type", "none") not in ("none", "bind", "") or not {"bind", "rbind"} & set(words):
        raise Unsupported(
            f"volumes of type {options.get('type') or 'none'} with o={options.get('o', '')} are not supported yet",
            hint="type=none,o=bind,device=FOLDER is",
        )
    device = options.get("device", "")
    if not device.startswith("/"):
        raise Invalid(f"volume option device={device} is not an absolute path")
    if not os.path.isdir(device):
        raise Invalid(f"volume option device={device} is not a folder on this host")
    return os.path.normpath(device)


def _bytes_below(folder: Path) -> int:
    """Bytes on disk of what is below a folder, links not followed, files with several names counted once."""
    total, seen, todo = 0, set(), [folder]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    if info.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if info.st_ino in seen:
                            continue
                        seen.add(info.st_ino)
                    total += info.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(Path(entry.path))
        except OSError:
            continue
    return total
