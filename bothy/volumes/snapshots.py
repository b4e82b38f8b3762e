"""Volumes as they were: `snapshot`, `restore`, and `clone`, which makes a volume of a volume or of a snapshot.

    with a quota     the file system is frozen, its image copied, and thawed: as if the power had failed at that instant
    plain            the files are copied one after the other: atomic only if nobody writes meanwhile, and it says which

Where the disk's file system shares blocks between files (btrfs, xfs) a copy takes no time and no room; elsewhere it takes as long
as there is data, and who writes to a volume with a quota waits as long. A crash leaves a whole copy or none; frozen volumes are
thawed by the engine's next start.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bothy.errors import Broken, Conflict, Invalid, NotFound, Unsupported
from bothy.jsonable import PLAIN
from bothy.linux import syscalls as sc
from bothy.volumes import copying, disk, folder
from bothy.volumes.model import ANONYMOUS, Snapshot, Volume
from bothy.volumes.mounted import DATA
from bothy.volumes.store import META, SNAPSHOTS, Users, Volumes, check, check_unused, nobody, now, used

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_FILE = "snapshot.json"
SnapshotList = list[Snapshot]


class Snapshots:
    """The snapshots of one engine's volumes. To be called in threads; safe to use from several."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def take(self, name: str, snapshot: str = "", writers: Users = nobody) -> Snapshot:
        """Keep a volume as it is now; without a name for it, the time is its name. `writers` may be writing to it meanwhile.

        Takes as long as there is data, or no time (see above). Raises NotFound, Invalid (the name), Conflict (there is one of that
        name), Unsupported (its data is elsewhere), OSError (disk full); then there is no such snapshot.
        """
        snapshot = snapshot or datetime.now(UTC).strftime("%Y%m%d-%H%M%S.%f")
        if not _NAME.fullmatch(snapshot):
            raise Invalid(f'"{snapshot}" is not a name for a snapshot', hint="letters, digits, _ . and - only")
        with self._volumes.locks.of(name):
            volume = self._copied(name)
            target = self._place(name, snapshot)
            if target.exists():
                raise Conflict(f"snapshot {name}@{snapshot} exists", hint="choose another name, or remove it")
            with self._volumes.folder.aside() as new:
                atomic = self._copy(volume, new, writers)
                found = Snapshot(name, snapshot, now(), atomic, volume.size)
                folder.write(new / _FILE, found)
                disk.write_out(str(new))
                target.parent.mkdir(mode=0o701, exist_ok=True)
                new.rename(target)
            return found

    def get(self, name: str, snapshot: str) -> Snapshot:
        """Raises NotFound, Broken."""
        try:
            if not _NAME.fullmatch(snapshot):
                raise FileNotFoundError
            text = (self._place(self._volumes.get(name).name, snapshot) / _FILE).read_bytes()
            return replace(PLAIN.loads(Snapshot, text), volume=name, name=snapshot)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"get {name}@{snapshot}: no such snapshot", hint="bothy volume snapshot ls lists them") from None
        except ValueError as exc:
            raise Broken(f"snapshot {name}@{snapshot} is damaged: {exc}") from exc

    def list(self, name: str = "") -> SnapshotList:
        """Those of a volume, or of all, oldest first. Raises NotFound for a volume that is not there."""
        names = [self._volumes.get(name).name] if name else [volume.name for volume in self._volumes.list()]
        found = []
        for volume in names:
            for snapshot in folder.folders(self._volumes.place(volume) / SNAPSHOTS):
                with contextlib.suppress(NotFound, Broken):
                    found.append(self.get(volume, snapshot))
        return sorted(found, key=lambda s: (s.volume, s.created, s.name))

    def usage(self, snapshot: Snapshot) -> int:
        """Bytes that it takes on disk; blocks that it shares with others are counted too."""
        return used(self._place(snapshot.volume, snapshot.name))

    def remove(self, name: str, snapshot: str) -> None:
        """Raises NotFound."""
        with self._volumes.locks.of(name):
            self.get(name, snapshot)
            gone = self._volumes.folder.discard(self._place(name, snapshot))
            with contextlib.suppress(OSError):
                self._place(name, snapshot).parent.rmdir()
        if gone:
            folder.delete(gone)

    def restore(self, name: str, snapshot: str, users: Users = nobody) -> Volume:
        """Make a volume what it was; what it is now is lost. Raises NotFound, Conflict while `users` run, OSError; then it is
        what it is."""
        with self._volumes.locks.of(name):
            found, volume = self.get(name, snapshot), self._copied(name)
            check_unused("restore", name, users())
            if bool(found.size) != bool(volume.size):
                raise Conflict(f"snapshot {found.ref} is of another kind of volume", hint="clone it instead")
            self._volumes.mounts.drop(name)
            place = self._volumes.place(name)
            with self._volumes.folder.aside() as new:
                self._copy_stored(self._place(name, snapshot), new)
                disk.write_out(str(new))
                what = disk.NAME if volume.size else DATA
                sc.renameat2(str(new / what), str(place / what), sc.RENAME_EXCHANGE)
            if found.size != volume.size:
                volume = replace(volume, options={**volume.options, "size": f"{found.size >> 20}m"})
                folder.write(place / META, volume)
            return volume

    def clone(
        self, name: str, new: str, snapshot: str = "", labels: Mapping[str, str] | None = None, writers: Users = nobody
    ) -> tuple[Volume, bool]:
        """A new volume with what is in another, or in a snapshot of it; whether that was atomic. Labels are taken along, and more
        set by `labels`. Raises what `take` does; then there is no such volume."""
        check(new, "local", {})
        with self._volumes.locks.of(name, new):
            source = self._copied(name)
            stored = self.get(name, snapshot) if snapshot else None
            if self._volumes.place(new).exists():
                raise Conflict(f"clone {name}: volume {new} exists", hint="choose another name")
            kept = {key: value for key, value in source.labels.items() if key != ANONYMOUS}
            size = {"size": f"{stored.size >> 20}m"} if stored and stored.size else source.options
            made = Volume(new, self._volumes.mountpoint(new), now(), labels={**kept, **(labels or {})}, options=size)
            with self._volumes.making(made) as place:
                if stored:
                    self._copy_stored(self._place(name, snapshot), place)
                    atomic = stored.atomic
                else:
                    atomic = self._copy(source, place, writers)
                disk.write_out(str(place))
            return made, atomic

    def _place(self, name: str, snapshot: str) -> Path:
        return self._volumes.place(name) / SNAPSHOTS / snapshot

    def _copied(self, name: str) -> Volume:
        """A volume of which there can be copies. Raises NotFound, Unsupported."""
        volume = self._volumes.get(name)
        if volume.is_elsewhere:
            raise Unsupported(
                f"the data of volume {name} is not bothy's ({volume.options.get('device') or volume.options['type']})",
                hint="bothy volume cp copies what is in it",
            )
        return volume

    def _copy(self, volume: Volume, target: Path, writers: Users) -> bool:
        """The data of a volume into a folder that is being made. Whether nobody could write meanwhile."""
        place = self._volumes.place(volume.name)
        if volume.size:
            with self._volumes.at_rest(volume):
                disk.copy(str(place / disk.NAME), str(target / disk.NAME))
            return True
        busy = bool(writers())
        _data(target)
        copying.copy_tree(str(place / DATA), str(target / DATA), changing=busy)
        return not busy and not writers()

    def _copy_stored(self, source: Path, target: Path) -> None:
        """The data of a snapshot into a folder that is being made."""
        if (source / disk.NAME).exists():
            disk.copy(str(source / disk.NAME), str(target / disk.NAME))
        else:
            _data(target)
            copying.copy_tree(str(source / DATA), str(target / DATA))


def _data(target: Path) -> None:
    if not os.path.isdir(target / DATA):
        folder.make_data(target / DATA)
