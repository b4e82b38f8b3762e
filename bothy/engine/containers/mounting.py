"""A workload's mounts: recorded when it is created, made, held while it runs, given back at its end.

    create   Wanted ─▶ MountRecord ─▶ volumes and missing folders made, new volumes filled from the image
    start    what has vanished is made again; volumes that are mounted only while they are used are held
    end      held no more: the last one unmounts

What is shown and told is what Docker shows and tells (moby daemon/volumes.go, volumes_unix.go).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator

from bothy.engine import mountspecs
from bothy.engine.hall import Hall
from bothy.engine.heavy import heavy
from bothy.engine.model import MountRecord, Workload
from bothy.engine.mountspecs import Wanted
from bothy.errors import BothyError, Invalid, Unavailable
from bothy.images.model import Image
from bothy.linux import mountinfo
from bothy.log import logger
from bothy.volumes.model import ANONYMOUS, Volume
from bothy.volumes.store import check

_log = logger("engine")


def record_of(hall: Hall, wanted: Wanted) -> MountRecord:
    """A mount as it will be shown and made. Anonymous volumes get their names here.

    Raises Invalid for a bind source that must exist, NotFound for an image or a driver that is not there.
    """
    read_write = not wanted.read_only
    options = wanted.words()
    if wanted.kind == "tmpfs":
        return MountRecord("tmpfs", "", wanted.target, read_write, options=options, listed=wanted.listed)
    if wanted.kind == "image":
        image = hall.images.resolve(wanted.source)
        return MountRecord("image", image.id, wanted.target, False, wanted.source, subpath=wanted.subpath, options=options)
    if wanted.kind == "bind":
        if not wanted.make_source and not os.path.exists(wanted.source):
            refusal = mountspecs.refused("bind", f"bind source path does not exist: {wanted.source}")
            refusal.hint = "make it, or use -v, which does"
            raise refusal
        return MountRecord(
            "bind", wanted.source, wanted.target, read_write, mode=wanted.mode, propagation=wanted.propagation, options=options,
            made=wanted.make_source,
        )  # fmt: skip
    labels = dict(wanted.labels) if wanted.source else {**wanted.labels, ANONYMOUS: ""}
    name = wanted.source or secrets.token_hex(32)
    check(name, wanted.driver, wanted.driver_options)
    # What the image declares has no mode at all, as in Docker.
    mode = wanted.mode or ("z" if wanted.source or wanted.labels or wanted.driver_options else "")
    return MountRecord(
        "volume", hall.volumes.mountpoint(name), wanted.target, read_write, name, "local", mode, subpath=wanted.subpath,
        options=options, made=True, copy_up=wanted.copy_up, labels=labels, driver_options=dict(wanted.driver_options),
    )  # fmt: skip


async def make(hall: Hall, record: Workload, image: Image) -> None:
    """Make volumes and missing bind sources, fill new volumes from the image. A failure removes the anonymous volumes again."""
    with contextlib.ExitStack() as undo:
        for mount in record.mounts:
            if mount.type == "bind" and mount.made and not os.path.lexists(mount.source):
                try:
                    os.makedirs(mount.source, mode=0o755, exist_ok=True)
                except OSError as exc:
                    raise Invalid(f"error while creating mount source path '{mount.source}': {exc.strerror}") from exc
            if mount.type == "volume":
                if ANONYMOUS in mount.labels:
                    undo.callback(hall.volumes.remove, mount.name, force=True)
                if _is_ready(hall, mount):
                    continue
                if await heavy(_make_volume, hall, image, mount):
                    hall.events.publish("volume", "create", mount.name, {"driver": "local"})
        undo.pop_all()


def _is_ready(hall: Hall, mount: MountRecord) -> bool:
    """Whether there is nothing to make: the volume is there and has something in it, or needs nothing."""
    if mount.copy_up and mount.subpath:
        return False
    return hall.volumes.is_ready(mount.name, mount.driver_options, copy_up=mount.copy_up)


def _make_volume(hall: Hall, image: Image, mount: MountRecord) -> bool:
    """Whether it is a new one."""
    try:
        _, is_new = hall.volumes.ensure(mount.name, labels=mount.labels, options=mount.driver_options)
        if mount.copy_up:
            hall.volumes.copy_up(mount.name, hall.images.layers(image), mount.destination, mount.subpath)
    except OSError as exc:
        raise Unavailable(f"volume {mount.name} can not be made: {exc.strerror or exc}", errno=exc.errno or 0) from exc
    return is_new


async def ensure(hall: Hall, record: Workload) -> None:
    """Before a start: what was to be mounted is there, or is made again."""
    if any(m.type in ("bind", "volume") and not os.path.lexists(m.source) for m in record.mounts):
        await make(hall, record, hall.images.resolve(record.image))


async def hold(hall: Hall, record: Workload) -> None:
    """Have its volumes mounted until `release`. Raises Invalid (propagation), Broken (the kernel refuses); then none is held.

    Costs nothing where there are none, else one small file read a volume.
    """
    check_propagation(record.mounts)
    await _acquire(hall, record.id, record)
    for mount in record.mounts:
        if mount.type == "volume":
            attributes = {
                "container": record.id, "destination": mount.destination, "driver": "local", "propagation": mount.propagation,
                "read/write": str(mount.read_write).lower(),
            }  # fmt: skip
            hall.events.publish("volume", "mount", mount.name, attributes)


@contextlib.asynccontextmanager
async def held(hall: Hall, record: Workload) -> AsyncIterator[None]:
    """Everything that it mounts is there for as long as it takes, whether it runs or not. Raises what `ensure` and `hold` do."""
    await ensure(hall, record)
    holder = f"{record.id} {secrets.token_hex(8)}"
    try:
        await _acquire(hall, holder, record)
        yield
    finally:
        release(hall, holder)


async def _acquire(hall: Hall, holder: str, record: Workload) -> None:
    for volume in _mounted(hall, record):
        holds = hall.holds.setdefault(holder, [])
        try:
            holds.append(await asyncio.to_thread(hall.volumes.mounts.acquire, volume))
        except BaseException:
            release(hall, holder)
            raise


def release(hall: Hall, holder: str) -> None:
    """Its run has ended. Unmounting may wait for a disk: nobody waits for it."""
    for given in hall.holds.pop(holder, ()):
        hall.background(asyncio.to_thread(hall.volumes.mounts.release, given), f"unmounting volume {given.volume}")


def recover(hall: Hall) -> None:
    """At the engine's start: workloads that run hold their volumes, all else is undone. Blocks."""
    for live in hall.workloads:
        if live.keeper is None:
            continue
        try:
            for volume in _mounted(hall, live.record):
                hall.holds.setdefault(live.id, []).append(hall.volumes.mounts.acquire(volume))
        except BothyError as exc:  # it runs on with what it has
            _log.error("a volume of %s can not be mounted again: %s", live.id[:12], exc)
    hall.volumes.recover()


def _mounted(hall: Hall, record: Workload) -> list[Volume]:
    """Those of its volumes that are mounted while they are used."""
    names = dict.fromkeys(m.name for m in record.mounts if m.type == "volume")
    return [volume for volume in map(hall.volumes.get, names) if volume.is_mounted]


def check_propagation(mounts: list[MountRecord]) -> None:
    """Whether what is mounted on the host can reach the workload, and the other way, as asked. Raises Invalid in Docker's words."""
    asked = [m for m in mounts if m.type == "bind" and m.propagation.endswith(("shared", "slave"))]
    table = mountinfo.mounts() if asked else []
    for mount in asked:
        found = mountinfo.holding(os.path.realpath(mount.source), table)
        is_shared = mount.propagation.endswith("shared")
        if not found.shared and (is_shared or not found.slave):
            kind = "a shared mount" if is_shared else "a shared or slave mount"
            raise Invalid(
                f"path {mount.source} is mounted on {found.point} but it is not {kind}",
                hint=f"mount --make-rshared {found.point} makes it one",
            )
