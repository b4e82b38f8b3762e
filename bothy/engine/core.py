"""The engine: makes the rooms, recovers, and offers the use cases as attributes, one a noun.

engine = Engine(paths, settings, revival)
await engine.start()            recovers; from here on everything below may be used
engine.containers.create(…)     …
await engine.close()            lets go; what runs goes on
"""

from __future__ import annotations

import asyncio
import os
import stat
import uuid
from collections.abc import Coroutine
from typing import Any

from bothy.engine import recovery
from bothy.engine.containers import ending, remove, start, stop
from bothy.engine.containers.service import Containers
from bothy.engine.events import Events
from bothy.engine.files import Files
from bothy.engine.hall import Hall
from bothy.engine.health import Healths
from bothy.engine.images import Images
from bothy.engine.networks import Networks
from bothy.engine.ranges import Ranges
from bothy.engine.records import Records
from bothy.engine.resolver import Resolver
from bothy.engine.secrets import Secrets
from bothy.engine.settings import Settings
from bothy.engine.spares import Spares
from bothy.engine.spawner import Revival, Spawner
from bothy.engine.system import System
from bothy.engine.templates import Templates
from bothy.engine.volume_files import VolumeFiles
from bothy.engine.volumes import Volumes
from bothy.engine.workloads import Workloads
from bothy.errors import Forbidden, Unavailable
from bothy.images.store import ImageStore
from bothy.linux import syscalls
from bothy.log import logger
from bothy.machines.templates import Templates as TemplateStore
from bothy.networks.service import Networks as NetworkService
from bothy.paths import Paths
from bothy.volumes.store import Volumes as VolumeStore

_log = logger("engine")
_FIRST_TRIM, _NEXT_TRIM = 2.0, 300.0  # seconds; it takes some milliseconds


class Engine:
    """`revival`: how the spawner brings this daemon back, should it die; None if it should not."""

    def __init__(self, paths: Paths, settings: Settings, revival: Revival | None = None) -> None:
        self.paths = paths
        self.teardown_asked = False
        self._trim: asyncio.TimerHandle | None = None
        self.settings = settings
        _make_folders(paths)
        records = Records(paths.database)
        ranges = Ranges(paths.key)
        self._hall = Hall(
            paths=paths,
            settings=settings,
            records=records,
            workloads=Workloads(records),
            events=Events(),
            images=ImageStore(paths),
            networks=NetworkService(paths, settings.default_bind),
            volumes=VolumeStore(paths),
            templates=TemplateStore(paths),
            ranges=ranges,
            spawner=Spawner(ranges, settings.pool, revival),
            auto_remove=remove.auto_remove,
            start_again=start.start_again,
        )
        self._hall.spares = Spares(self._hall)
        self._hall.healths = Healths(self._hall, stop.ON_FAILURE)
        self.containers = Containers(self._hall)
        self.execs = self._hall.execs
        self.files = Files(self._hall)
        self.images = Images(self._hall)
        self.networks = Networks(self._hall)
        self.volumes = Volumes(self._hall)
        self.volume_files = VolumeFiles(self._hall)
        self.secrets = Secrets(self._hall)
        self.templates = Templates(self._hall)
        self.events = self._hall.events
        self._resolver = Resolver(paths, self._hall.networks.names, settings.resolv_conf)
        self.system = System(self._hall, records.meta("engine-id", str(uuid.uuid4())))

    async def start(self) -> None:
        """Start the spawner and recover. Raises Unavailable, Broken, OSError; then the spawner has been told not to try again."""
        self._hall.spawner.start()
        try:
            await self._resolver.adopt()
            await recovery.recover(self._hall)
            self._resolver.settle({live.id for live in self._hall.workloads if live.keeper is not None})
            self.networks.watch()
        except BaseException:
            self._hall.spawner.close(goodbye=True)
            await self._resolver.close(end=False)
            raise
        self._hall.spawner.fill_pool()
        self._trim = asyncio.get_running_loop().call_later(_FIRST_TRIM, self._give_back)
        _log.info("ready: %d workloads", len(self._hall.workloads))

    def _give_back(self) -> None:
        """What a start, or a burst of work, has left behind in the heap: a quarter of what an idle engine would hold."""
        syscalls.trim_heap()
        self._trim = asyncio.get_running_loop().call_later(_NEXT_TRIM, self._give_back)

    async def close(self, *, teardown: bool = False) -> None:
        """Let go of everything; workloads go on, and are adopted by the next start.

        With `teardown` what this engine put into the kernel is taken away too: bridges, nftables table, parent cgroups. Raises
        nothing; to be called when no workload runs.
        """
        hall = self._hall
        hall.closing = True
        if self._trim is not None:
            self._trim.cancel()
        for live in hall.workloads:
            ending.cancel_restart(live)
        hall.healths.close()
        hall.events.close()
        await hall.spares.close()
        await hall.drain()
        hall.workloads.save_again()
        for live in hall.workloads:
            live.drop_held()
            if live.keeper is not None:
                live.keeper.close()
        hall.spawner.close(goodbye=True)
        hall.inotify.close()
        self.networks.unwatch()
        running = any(live.keeper for live in hall.workloads)
        await self._resolver.close(end=not running)
        if teardown and not running:
            hall.networks.teardown()
            recovery.remove_parent_cgroups(self.paths.scope)
            hall.volumes.mounts.close()
        hall.networks.close()
        hall.images.close()
        hall.records.close()

    def background(self, work: Coroutine[Any, Any, object], what: str) -> None:
        """Run something that nobody waits for; its failure is logged, and `close` waits for it."""
        self._hall.background(work, what)


def _make_folders(paths: Paths) -> None:
    """The state root, closed to everybody but root, and the run folder, where the socket is.

    Closed it must be: on disk everything has the ids of its image, so what a container's root makes set-uid there would be
    set-uid root for whoever could reach it.
    """
    wanted = ((paths.root, 0o700), (paths.root / "containers", 0o700), (paths.run, 0o755), (paths.run / "keepers", 0o700))
    try:
        for folder, mode in wanted:
            os.makedirs(folder, mode=mode, exist_ok=True)
            if stat.S_IMODE(os.stat(folder).st_mode) & ~mode:
                os.chmod(folder, mode)
    except PermissionError as exc:
        raise Forbidden(f"{exc.filename}: {exc.strerror}", hint="bothyd runs as root") from exc
    except OSError as exc:
        raise Unavailable(f"{exc.filename}: {exc.strerror}", errno=exc.errno or 0) from exc
