"""Local volumes: folders that outlive the workloads that use them. What is where: `bothy.volumes.folder`.

A volume without options is a plain folder. With options something is mounted over it while it is used (`bothy.volumes.options`,
`bothy.volumes.mounted`); with `size` that is a disk image of ours. Out of scope: other drivers, and who uses a volume: the engine
tells by `users`, which is called when nothing can change any more.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bothy.errors import BothyError, Broken, Conflict, Invalid, NotFound
from bothy.jsonable import PLAIN
from bothy.linux import filesystems, loops
from bothy.linux import mounts as paths_inside
from bothy.linux import syscalls as sc
from bothy.paths import Paths
from bothy.volumes import copying, copyup, disk, folder, options
from bothy.volumes.folder import Folder
from bothy.volumes.model import ANONYMOUS, Volume
from bothy.volumes.mounted import DATA, Locks, Mounts

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
META, SNAPSHOTS = "volume.json", "snapshots"
VolumeList = list[Volume]
Users = Callable[[], Collection[str]]


def nobody() -> Collection[str]:
    """No workload has it."""
    return ()


class Volumes:
    """The volumes of one engine. To be called in threads, but for `get` and `list`; safe to use from several."""

    def __init__(self, paths: Paths) -> None:
        self.locks = Locks()
        self.folder = Folder(paths.volumes)
        self.mounts = Mounts(paths.volumes, self.locks)

    def recover(self) -> None:
        """After the start of an engine, when workloads that run hold their volumes: undo what a crash left half done."""
        self.mounts.reconcile()
        self.folder.sweep()

    def place(self, name: str) -> Path:
        """The folder of a volume."""
        return self.folder.path / name

    def mountpoint(self, name: str) -> str:
        """The folder that workloads see, whether there is such a volume or not."""
        return str(self.place(name) / DATA)

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """`ensure`, for who does not mind whether it is new."""
        return self.ensure(name, driver=driver, labels=labels, options=options)[0]

    def ensure(
        self,
        name: str = "",
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> tuple[Volume, bool]:
        """Make a volume, or find the one of that name (a volume of a given name is one volume, as in Docker); whether it is new.

        Without a name it gets one of 64 hex digits and the label of anonymous volumes. Raises Invalid (name, options), NotFound
        (driver), Conflict (the name is taken by a volume with other options), Unsupported (no e2fsprogs for a quota), OSError.
        """
        wanted = dict(labels or {})
        if not name:
            name = secrets.token_hex(32)
            wanted[ANONYMOUS] = ""
        check(name, driver, options or {})
        with self.locks.of(name):
            try:
                return _same(self.get(name), options or {}), False
            except NotFound:
                volume = Volume(name, self.mountpoint(name), now(), labels=wanted, options=dict(options or {}))
                with self.making(volume) as new:
                    if volume.size:
                        disk.make(str(new / disk.NAME), volume.size)
                return volume, True

    @contextlib.contextmanager
    def making(self, volume: Volume) -> Iterator[Path]:
        """The folder in which a volume is made; it appears, whole, at the end. Its lock is held. Raises Conflict, OSError."""
        with self.folder.aside() as new:
            folder.make_data(new / DATA)
            yield new
            folder.write(new / META, volume)
            try:
                sc.renameat2(str(new), str(self.place(volume.name)), sc.RENAME_NOREPLACE)
            except FileExistsError:  # what is there has no (readable) volume.json
                raise Conflict(
                    f"volume {volume.name} exists and is damaged", hint=f"bothy volume rm {volume.name} removes it"
                ) from None

    def get(self, name: str) -> Volume:
        """The volume of that name. Raises NotFound, Broken (its file is damaged)."""
        path = self.place(name) / META
        try:
            if not NAME.fullmatch(name):
                raise FileNotFoundError
            return replace(PLAIN.loads(Volume, path.read_bytes()), name=name, mountpoint=self.mountpoint(name))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"get {name}: no such volume", hint="bothy volume ls lists them") from None
        except ValueError as exc:
            raise Broken(f"{path} is damaged: {exc}", hint=f"its data is in {path.parent}") from exc

    def list(self) -> VolumeList:
        """All volumes by name; one whose file is damaged is left out (`get` tells)."""
        found = []
        for name in self.folder.names():
            with contextlib.suppress(NotFound, Broken):
                found.append(self.get(name))
        return found

    def remove(self, name: str, users: Users = nobody, *, force: bool = False) -> None:
        """Remove a volume and its data, with `force` its snapshots too; what is mounted from elsewhere stays there.

        Takes as long as there is data. Raises NotFound (unless `force`), Conflict while workloads have it, or it has snapshots.
        """
        with self.locks.of(name):
            try:
                self.get(name)
            except NotFound:
                if force:
                    return
                raise
            except Broken:
                pass
            check_unused("remove", name, users())
            kept = folder.folders(self.place(name) / SNAPSHOTS)
            if kept and not force:
                raise Conflict(
                    f"remove {name}: volume has snapshots - [{', '.join(kept)}]", hint="bothy volume rm -f removes them too"
                )
            self.mounts.drop(name)
            gone = self.folder.discard(self.place(name))
        if gone:
            folder.delete(gone)

    def prune(self, users: Callable[[str], Collection[str]], wanted: Callable[[Volume], bool]) -> tuple[Sequence[str], int]:
        """Remove the volumes that are wanted gone and have neither users nor snapshots. Returns their names and the bytes freed."""
        removed, freed = [], 0
        for volume in self.list():
            if users(volume.name) or not wanted(volume):
                continue
            size = max(0, self.usage(volume.name))
            with contextlib.suppress(NotFound, Conflict):
                self.remove(volume.name, lambda name=volume.name: users(name))  # type: ignore[misc]
                freed += size
                removed.append(volume.name)
        return removed, freed

    def is_ready(self, name: str, options: Mapping[str, str], *, copy_up: bool) -> bool:
        """Whether there is nothing to be done before a workload may have this volume: it exists, is plain and, with `copy_up`, has
        something in it. Cheap: for the event loop."""
        try:
            volume = self.get(name)
            return not volume.options and not options and not (copy_up and copying.is_empty(volume.mountpoint))
        except (NotFound, Broken, OSError):
            return False

    def rename(self, name: str, new: str, users: Users = nobody) -> Volume:
        """Give a volume another name; its snapshots come along. Raises NotFound, Invalid, Conflict (in use, or the name is)."""
        check(new, "local", {})
        with self.locks.of(name, new):
            self.get(name)
            check_unused("rename", name, users())
            self.mounts.drop(name)
            try:
                sc.renameat2(str(self.place(name)), str(self.place(new)), sc.RENAME_NOREPLACE)
            except FileExistsError:
                raise Conflict(f"rename {name}: volume {new} exists", hint="choose another name") from None
            return self.get(new)

    def resize(self, name: str, size: int) -> Volume:
        """Grow a volume with a quota to `size` bytes, while it is used if the kernel lets us.

        Raises NotFound, Invalid (no quota, or smaller), Conflict (in use and the kernel does not let us), Broken, Unsupported.
        """
        with self.locks.of(name):
            volume = self.get(name)
            if not volume.size:
                raise Invalid(f"volume {name} has no quota", hint="make one with --opt size=… and copy it: bothy volume cp")
            image = self.place(name) / disk.NAME
            before = image.stat().st_size
            if size < before:
                raise Invalid(f"volume {name} has {before >> 20}m already", hint="it can only grow; its files need no more room")
            if size > before:
                self._grow(volume, image, size)
            volume = replace(volume, options={**volume.options, "size": f"{size >> 20}m"})
            folder.write(self.place(name) / META, volume)
            return volume

    def _grow(self, volume: Volume, image: Path, size: int) -> None:
        is_held = self.mounts.is_held(volume.name)
        with self.opened(volume) as data:
            try:
                disk.grow_mounted(str(image), data, size)
                return
            except PermissionError:
                pass
        if is_held:
            raise Conflict(
                f"volume {volume.name} is in use, and this kernel grows no file system that is mounted",
                hint="stop the workloads that have it first",
            )
        with self.folder.aside() as new:  # a copy, for what grows it may be interrupted
            with self.at_rest(volume):
                disk.copy(str(image), str(new / disk.NAME))
            disk.grow(str(new / disk.NAME), size)
            disk.write_out(str(new))
            (new / disk.NAME).rename(image)

    @contextlib.contextmanager
    def at_rest(self, volume: Volume) -> Iterator[None]:
        """Nobody writes to the image of a volume with a quota, and all that was written is in it; its lock is held.

        It may be that nobody has it mounted here, but a copy of its mount lives on in some other namespace: so the device is what
        counts.
        """
        if not loops.device_of(str(self.place(volume.name) / disk.NAME)):
            yield
            return
        with self.opened(volume) as data:
            sc.syncfs(data)  # so that as little as possible is left to be written while others wait
            filesystems.freeze(data)
            try:
                yield
            finally:
                filesystems.thaw(data)

    def usage(self, name: str) -> int:
        """Bytes that the data takes on disk, -1 for what is elsewhere. Takes as long as there are files."""
        volume = self.get(name)
        if volume.is_elsewhere:
            return -1
        return used(self.place(name) / (disk.NAME if volume.size else DATA))

    @contextlib.contextmanager
    def opened(self, volume: Volume) -> Iterator[int]:
        """A descriptor of the folder with the data, mounted for as long as it takes. Raises Broken, OSError."""
        with self.mounts.held(volume):
            fd = os.open(volume.mountpoint, copying.FOLDER)
            try:
                yield fd
            finally:
                os.close(fd)

    def copy_up(self, name: str, layers: Sequence[Path], destination: str, subpath: str = "") -> bool:
        """Fill a volume (or the folder `subpath` in it) that is empty with what an image has at `destination` (topmost layer
        first). True if there was something.

        Takes as long as there is to copy; runs in a thread of its own. After a failure it is empty again. Raises OSError, Invalid
        for a subpath that is not there or leads out of the volume.
        """
        volume = self.get(name)
        if volume.options.get("type") == "tmpfs":  # it would be gone before anybody sees it
            return False
        with self.locks.of(name), self.opened(volume) as data:
            target = open_subpath(volume, data, subpath)
            try:
                if not paths_inside.is_folder(target):
                    return False
                inside = os.open(".", copying.FOLDER, dir_fd=target)
            finally:
                os.close(target)
            try:
                return copyup.copy_up([str(layer) for layer in layers], destination, inside)
            finally:
                os.close(inside)


def check(name: str, driver: str, wanted: Mapping[str, str]) -> None:
    """Whether there may be such a volume. Raises Invalid, NotFound (driver)."""
    try:
        if len(name) < 2:
            raise Invalid("volume name is too short, names should be at least two alphanumeric characters")
        if not NAME.fullmatch(name):
            raise Invalid(
                f'"{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
                "If you intended to pass a host directory, use absolute path"
            )
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found', hint="the only driver is local")
        options.check(wanted)
    except BothyError as exc:
        raise type(exc)(f"create {name}: {exc.message}", hint=exc.hint) from None


def check_unused(verb: str, name: str, users: Collection[str]) -> None:
    """Raises Conflict, in Docker's words, if there are users."""
    if users:
        raise Conflict(f"{verb} {name}: volume is in use - [{', '.join(sorted(users))}]", hint="remove these workloads first")


def open_subpath(volume: Volume, data: int, subpath: str) -> int:
    """An O_PATH descriptor of what is at `subpath` in the open folder of a volume. Raises Invalid."""
    try:
        return paths_inside.open_beneath(data, subpath)
    except OSError as exc:
        reason = "path escapes from the volume" if exc.errno == 18 else os.strerror(exc.errno or 0).lower()
        raise Invalid(f"cannot access path {volume.mountpoint}/{subpath}: {reason}") from exc


def now() -> str:
    """The time, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _same(volume: Volume, wanted: Mapping[str, str]) -> Volume:
    if wanted and dict(wanted) != volume.options:
        raise Conflict(f"volume {volume.name} exists with other options", hint="remove it first, or choose another name")
    return volume


def used(path: Path) -> int:
    """Bytes on disk of a file, or of what is below a folder; links not followed, files with several names counted once."""
    try:
        info = path.lstat()
    except OSError:
        return 0
    total, seen = info.st_blocks * 512, {info.st_ino}
    todo = [path] if path.is_dir() else []
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
