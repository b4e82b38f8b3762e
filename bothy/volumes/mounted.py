"""What is mounted for volumes, and for whom: mounted for the first who asks, unmounted after the last.

    hold = mounts.acquire(volume)      mounted at <volume>/_data now
    mounts.release(hold)               and not any more, if that was the last hold

Mounts are made in the mount namespace of the daemon, which the spawner and the keepers share: a container's copy of it is made
from there, and goes with the container. Who holds what is known in memory only. After a crash `reconcile` lets writers go on that
waited for a snapshot, and unmounts what nobody holds: workloads that run have taken their holds again by then.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bothy.linux import filesystems, mountinfo
from bothy.linux import syscalls as sc
from bothy.log import logger
from bothy.volumes import disk, options
from bothy.volumes.model import Volume

DATA = "_data"
_log = logger("volumes")


@dataclass(frozen=True)
class Hold:
    """One user's claim that a volume stays mounted."""

    volume: str
    number: int


class Locks:
    """One lock a volume's name; whoever changes what a name means holds it. The same thread may take it again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.RLock, int]] = {}

    @contextlib.contextmanager
    def of(self, *names: str) -> Iterator[None]:
        """Hold the locks of these names."""
        with contextlib.ExitStack() as stack:
            for name in sorted(set(names)):
                stack.enter_context(self._one(name))
            yield

    @contextlib.contextmanager
    def _one(self, name: str) -> Iterator[None]:
        with self._guard:
            lock, waiting = self._locks.get(name) or (threading.RLock(), 0)
            self._locks[name] = lock, waiting + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, waiting = self._locks[name]
                if waiting > 1:
                    self._locks[name] = lock, waiting - 1
                else:
                    del self._locks[name]


class Mounts:
    """The mounts of one engine's volumes, below `folder`. To be called in threads: mounting and unmounting may wait for a disk
    or a server."""

    def __init__(self, folder: Path, locks: Locks) -> None:
        self._folder = str(folder)
        self._locks = locks
        self._holds: dict[str, set[int]] = {}
        self._numbers = itertools.count()

    def acquire(self, volume: Volume) -> Hold:
        """Have the volume mounted until the hold is released. Raises Broken with the kernel's word; then there is no hold."""
        with self._locks.of(volume.name):
            if not _at(volume.mountpoint):
                self._mount(volume)
            hold = Hold(volume.name, next(self._numbers))
            self._holds.setdefault(volume.name, set()).add(hold.number)
            return hold

    @contextlib.contextmanager
    def held(self, volume: Volume) -> Iterator[None]:
        """Mounted for as long as it takes something that frees no blocks."""
        if not volume.is_mounted:
            yield
            return
        hold = self.acquire(volume)
        try:
            yield
        finally:
            self.release(hold, trim=False)

    def release(self, hold: Hold, *, trim: bool = True) -> None:
        """Give a hold back; the last one unmounts, with `trim` after blocks that were freed have been given back to the host.

        Once more does nothing. Raises nothing: what can not be unmounted is logged.
        """
        with self._locks.of(hold.volume):
            holds = self._holds.get(hold.volume)
            if holds is None or hold.number not in holds:
                return
            holds.discard(hold.number)
            if not holds:
                self.drop(hold.volume, trim=trim)

    def is_held(self, name: str) -> bool:
        """Whether somebody holds it."""
        return bool(self._holds.get(name))

    def drop(self, name: str, *, trim: bool = False) -> None:
        """Unmount it, whoever holds it; its lock is held. Raises nothing."""
        self._holds.pop(name, None)
        point, table = f"{self._folder}/{name}/{DATA}", mountinfo.mounts()
        if not any(mount.point == point for mount in table):
            return
        if trim and os.path.exists(f"{self._folder}/{name}/{disk.NAME}"):
            with contextlib.suppress(OSError):
                disk.give_back(point)
        _unmount(table, point)

    def reconcile(self) -> None:
        """After the start of an engine: nothing stays frozen, nothing is mounted that nobody holds."""
        ours = self._ours()
        for name, point in ours.items():
            if os.path.exists(f"{self._folder}/{name}/{disk.NAME}"):
                _thaw(point)
        for name, point in ours.items():
            with self._locks.of(name):
                if not self._holds.get(name):
                    _unmount(mountinfo.mounts(), point)

    def close(self) -> None:
        """Unmount everything that is ours."""
        for name in self._ours():
            with self._locks.of(name):
                self.drop(name)

    def _ours(self) -> dict[str, str]:
        """The mount points of volumes by name. What an administrator has mounted inside of one is not ours."""
        points = (mount.point for mount in mountinfo.mounts() if mount.point.startswith(f"{self._folder}/"))
        parts = ((point[len(self._folder) + 1 :].split("/"), point) for point in points)
        return {names[0]: point for names, point in parts if len(names) == 2 and names[1] == DATA}

    def _mount(self, volume: Volume) -> None:
        call = (
            options.Call(str(Path(volume.mountpoint).parent / disk.NAME), "ext4") if volume.size else options.call(volume.options)
        )
        try:
            if volume.size:
                disk.mount(call.source, volume.mountpoint)
            else:
                call.make(volume.mountpoint)
        except OSError as exc:
            raise options.failure(call, volume.mountpoint, exc) from exc


def _at(place: str) -> bool:
    """Whether something is mounted at exactly that place."""
    return any(mount.point == place for mount in mountinfo.mounts())


def _thaw(point: str) -> None:
    try:
        folder = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if filesystems.thaw(folder):
            _log.warning("%s was frozen: a snapshot was interrupted", point)
    except OSError as exc:
        _log.error("%s can not be thawed: %s", point, exc)
    finally:
        os.close(folder)


def unmount_below(folder: str) -> bool:
    """Unmount everything at and below a folder that is to be removed. False if something is left; that is logged."""
    table = mountinfo.mounts()
    points = [m.point for m in table if m.point == folder or m.point.startswith(folder + "/")]
    for point in reversed(points):
        _unmount(table, point)
    return not any(m.point == folder or m.point.startswith(folder + "/") for m in (mountinfo.mounts() if points else ()))


def _unmount(table: list[mountinfo.Mounted], point: str) -> None:
    """Unmount as many times as the table has the point; lazily if it is busy. What does not work is logged."""
    for _ in [mount for mount in table if mount.point == point]:
        try:
            try:
                sc.umount2(point, sc.UMOUNT_NOFOLLOW)
            except OSError as exc:
                if exc.errno != errno.EBUSY:
                    raise
                sc.umount2(point, sc.UMOUNT_NOFOLLOW | sc.MNT_DETACH)
        except OSError as exc:
            if exc.errno not in (errno.EINVAL, errno.ENOENT):  # somebody else has unmounted it
                _log.error("%s can not be unmounted: %s", point, exc)
